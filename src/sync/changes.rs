//! In which of a user's rooms something happened since a position: the first step of a sync.
//!
//! Storage alone decides that, by the tails of the rooms, so that the answer is the same whoever was
//! woken when. The list of the user's rooms is remembered for as long as their own tail stands still.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use rooms::{Room, TypingNow};
use storage::{
    Answers, Found, NameHash, Position, Range, Reads, ShortRoomId, ShortUserId, Slot, Snapshot,
    Stamped,
    schema::{self, AccountDataRow, Membership, UserChange, UserRoomRow},
};

use crate::{
    Request, Syncs,
    device::{self, OfDevice},
    device_lists::DeviceNews,
    wants::{room_passes, type_passes},
};

/// Changes of a user that are looked at one by one; who was away for longer is told by what the rows
/// themselves say of when they changed.
const USER_CHANGES_MAX: usize = 1_000;

/// What changed, by room, before the rooms are read.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Rooms in which something may have happened.
    pub(crate) rooms: Vec<ChangedRoom>,
    /// The rooms that the user is in, changed or not.
    pub(crate) joined: BTreeSet<ShortRoomId>,
    /// Global account data that changed; all of it at first.
    pub(crate) account_data: Vec<AccountDataRow>,
    /// People whom the user does not want to hear of.
    pub(crate) ignored: HashSet<String>,
    /// What the device is told of itself.
    pub(crate) of_device: OfDevice,
    /// Whose devices may have changed.
    pub(crate) devices: DeviceNews,
}

/// A room in which something may have happened.
#[derive(Debug)]
pub(crate) struct ChangedRoom {
    pub(crate) room: Arc<Room>,
    /// The user's relation to it.
    pub(crate) row: Stamped<UserRoomRow>,
    /// The room's log went on, or the user's membership changed, or all is asked for.
    pub(crate) log: bool,
    /// Receipts changed.
    pub(crate) receipts: bool,
    /// The user has read on.
    pub(crate) read: bool,
    /// Who types, if that changed.
    pub(crate) typing: Option<TypingNow>,
    /// Account data of the room that changed.
    pub(crate) account_data: Vec<AccountDataRow>,
}

/// A user's rooms, those they were invited to and those they left too.
#[derive(Debug)]
pub(crate) struct UserRooms {
    /// Where the user's tail stood; the rows are these for as long as it does.
    tail: Option<Position>,
    pub(crate) rows: BTreeMap<ShortRoomId, Stamped<UserRoomRow>>,
}

impl UserRooms {
    fn joined(&self) -> impl Iterator<Item = &ShortRoomId> {
        let rows = self.rows.iter();
        rows.filter(|(_, row)| row.value.membership == Membership::Join)
            .map(|(room, _)| room)
    }

    /// How much memory it takes, roughly, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let of_row = |row: &Stamped<UserRoomRow>| {
            let stripped = row.value.stripped_state.iter().map(String::len);
            200 + stripped.sum::<usize>()
        };
        self.rows.values().map(of_row).sum::<usize>() + 100
    }
}

type RoomRows = Vec<((ShortUserId, ShortRoomId), Found<Stamped<UserRoomRow>>)>;

/// What changed for the user themselves.
#[derive(Debug, Default)]
struct OfUser {
    reads: BTreeSet<ShortRoomId>,
    account_data: BTreeSet<(ShortRoomId, NameHash)>,
    device_list: bool,
    signed: BTreeSet<NameHash>,
    /// There were too many changes to be looked at one by one.
    all: bool,
}

/// Whether events and receipts came to a room.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    log: bool,
    receipts: bool,
}

/// Where the tails of some rooms will be found.
struct Tails {
    rooms: Vec<ShortRoomId>,
    log: Slot<Vec<Option<Found<Stamped<()>>>>>,
    receipts: Slot<Vec<Option<Found<Stamped<()>>>>>,
}

impl Tails {
    fn ask<'a>(reads: &mut Reads, rooms: impl Iterator<Item = &'a ShortRoomId>) -> Self {
        let rooms: Vec<_> = rooms.copied().collect();
        Self {
            log: reads.get_all(&schema::TAIL_BY_ROOM, &rooms),
            receipts: reads.get_all(&schema::RECEIPT_TAIL_BY_ROOM, &rooms),
            rooms,
        }
    }

    fn moved(
        self,
        answers: &Answers,
        since: Position,
    ) -> error::Result<BTreeMap<ShortRoomId, Moved>> {
        let later =
            |row: Option<Found<Stamped<()>>>| row.is_some_and(|row| row.value.position > since);
        let log = answers.all(&self.log)?.into_iter().map(later);
        let receipts = answers.all(&self.receipts)?.into_iter().map(later);
        let moved = self.rooms.into_iter().zip(log).zip(receipts);
        Ok(moved
            .filter(|((_, log), receipts)| *log || *receipts)
            .map(|((room, log), receipts)| (room, Moved { log, receipts }))
            .collect())
    }
}

impl Syncs {
    /// What changed. One round trip where the user's rooms are remembered, and one for account data.
    pub(crate) async fn changes(
        &self,
        snapshot: &Snapshot,
        request: &Request,
    ) -> error::Result<Changes> {
        let (user, since) = (request.viewer.short, request.position());
        let ignored_key = (
            user,
            ShortRoomId::NONE,
            self.0.storage.type_hash("m.ignored_user_list"),
        );
        let mut reads = Reads::new();
        let tail = reads.get(&schema::TAIL_BY_USER, &user);
        let ignored = reads.get(&schema::ACCOUNT_DATA_BY_USER, &ignored_key);
        let log = since.map(|since| {
            let range = Range::prefix(&(user,))
                .after(&(user, since))
                .limit(USER_CHANGES_MAX + 1);
            reads.range(&schema::CHANGE_BY_USER_POSITION, &range)
        });
        let known = self.0.user_rooms.get(&user);
        let tails = known
            .as_ref()
            .filter(|_| since.is_some())
            .map(|known| Tails::ask(&mut reads, known.joined()));
        let fresh = known.is_none().then(|| {
            let range = Range::prefix(&(user,));
            reads.range(&schema::ROOM_BY_USER, &range)
        });
        let of_device = device::Asked::ask(&mut reads, request);
        let answers = snapshot.read(&reads).await?;
        let of_device = of_device.answer(&answers)?;
        let tail = answers.one(&tail)?.map(|row| row.value.position);
        let of_user = match &log {
            Some(log) => OfUser::new(answers.rows(log)?.into_iter().map(|(_, row)| row.value)),
            None => OfUser::default(),
        };
        let ignored = answers.one(&ignored)?;
        let ignored = ignored.map(|row| ignored_users(&row.value.value.json));
        let (rooms, moved) = match (known, tails) {
            (Some(known), tails) if known.tail == tail => {
                let moved = match (tails, since) {
                    (Some(tails), Some(since)) => tails.moved(&answers, since)?,
                    _ => BTreeMap::new(),
                };
                (known, moved)
            }
            _ => {
                let rows = match &fresh {
                    Some(slot) => Some(answers.rows(slot)?),
                    None => None,
                };
                self.read_rooms(snapshot, user, tail, rows, since).await?
            }
        };
        let mut account_data = self.account_data(snapshot, request, &of_user).await?;
        let global = account_data.remove(&ShortRoomId::NONE).unwrap_or_default();
        let devices = DeviceNews {
            own: of_user.device_list || of_user.all,
            rooms: moved
                .iter()
                .filter(|(_, moved)| moved.receipts)
                .map(|(room, _)| *room)
                .collect(),
            signed: of_user.signed.clone(),
        };
        let changed = changed_rooms(self, request, &rooms, moved, &of_user, account_data);
        Ok(Changes {
            of_device,
            devices,
            rooms: self.named(snapshot, request, changed).await?,
            joined: rooms.joined().copied().collect(),
            account_data: global,
            ignored: ignored.unwrap_or_default(),
        })
    }

    /// The user's rooms as they are now, to be remembered, and which of them moved.
    async fn read_rooms(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
        tail: Option<Position>,
        rows: Option<RoomRows>,
        since: Option<Position>,
    ) -> error::Result<(Arc<UserRooms>, BTreeMap<ShortRoomId, Moved>)> {
        let rows = match rows {
            Some(rows) => rows,
            None => {
                let range = Range::prefix(&(user,));
                let rows = snapshot
                    .multi_range(&schema::ROOM_BY_USER, &[range])
                    .await?;
                rows.into_iter().flatten().collect()
            }
        };
        let rows = rows
            .into_iter()
            .map(|((_, room), row)| (room, row.value))
            .collect();
        let rooms = Arc::new(UserRooms { tail, rows });
        self.0.user_rooms.insert(user, Arc::clone(&rooms));
        let Some(since) = since else {
            return Ok((rooms, BTreeMap::new()));
        };
        let mut reads = Reads::new();
        let tails = Tails::ask(&mut reads, rooms.joined());
        let moved = tails.moved(&snapshot.read(&reads).await?, since)?;
        Ok((rooms, moved))
    }

    /// Account data that changed, by room; all of it at first, push rules as they hold.
    async fn account_data(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        of_user: &OfUser,
    ) -> error::Result<BTreeMap<ShortRoomId, Vec<AccountDataRow>>> {
        let user = request.viewer.short;
        let since = request.position();
        let mut data: BTreeMap<ShortRoomId, Vec<AccountDataRow>> = BTreeMap::new();
        if since.is_none() || of_user.all {
            let range = Range::prefix(&(user,));
            let rows = snapshot
                .multi_range(&schema::ACCOUNT_DATA_BY_USER, &[range])
                .await?;
            let later = |row: &Stamped<AccountDataRow>| match since {
                Some(since) => row.position > since,
                None => !users::says_nothing(&row.value),
            };
            for ((_, room, _), row) in rows.into_iter().flatten() {
                if later(&row.value) {
                    data.entry(room).or_default().push(row.value.value);
                }
            }
        } else if !of_user.account_data.is_empty() {
            let keys: Vec<_> = of_user
                .account_data
                .iter()
                .map(|(room, kind)| (user, *room, *kind))
                .collect();
            let rows = snapshot
                .multi_get(&schema::ACCOUNT_DATA_BY_USER, &keys)
                .await?;
            for ((_, room, _), row) in keys.into_iter().zip(rows) {
                let row = row.map(|row| row.value.value);
                data.entry(room).or_default().extend(row);
            }
        }
        let global = data.entry(ShortRoomId::NONE).or_default();
        let is_rules = |row: &AccountDataRow| row.event_type == users::PUSH_RULES;
        if since.is_none() || global.iter().any(is_rules) {
            let rules = self.0.users.push_rules_data(user).await?;
            global.retain(|row| !is_rules(row));
            global.push(AccountDataRow {
                event_type: rules.event_type,
                json: rules.content.get().to_owned(),
            });
        }
        Ok(data)
    }

    /// Finds the rooms behind the short ids, without those that the filter does not want.
    async fn named(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        changed: Vec<(ShortRoomId, Unnamed)>,
    ) -> error::Result<Vec<ChangedRoom>> {
        let shorts: Vec<_> = changed.iter().map(|(short, _)| *short).collect();
        let rooms = self.0.rooms.by_short(snapshot, &shorts).await?;
        let wanted = &request.filter.room;
        Ok(rooms
            .into_iter()
            .zip(changed)
            .filter(|(room, _)| {
                room_passes(wanted.rooms.as_deref(), &wanted.not_rooms, &room.room_id)
            })
            .map(|(room, (_, changed))| ChangedRoom {
                room,
                row: changed.row,
                log: changed.moved.log,
                receipts: changed.moved.receipts,
                read: changed.read,
                typing: changed.typing,
                account_data: changed.account_data,
            })
            .collect())
    }
}

/// A changed room of which only the short id is known.
struct Unnamed {
    row: Stamped<UserRoomRow>,
    moved: Moved,
    read: bool,
    typing: Option<TypingNow>,
    account_data: Vec<AccountDataRow>,
}

fn changed_rooms(
    syncs: &Syncs,
    request: &Request,
    rooms: &UserRooms,
    mut moved: BTreeMap<ShortRoomId, Moved>,
    of_user: &OfUser,
    mut account_data: BTreeMap<ShortRoomId, Vec<AccountDataRow>>,
) -> Vec<(ShortRoomId, Unnamed)> {
    let since = request.position();
    let typing = &syncs.0.rooms.typing();
    let serial = request.serial(syncs.0.rooms.run());
    let filter = &request.filter.room.ephemeral;
    let wants_typing = type_passes(filter.types.as_deref(), &filter.not_types, "m.typing");
    let typed: BTreeSet<ShortRoomId> = if wants_typing {
        typing
            .changed_since(serial.unwrap_or(0))
            .into_iter()
            .collect()
    } else {
        BTreeSet::new()
    };
    let mut changed = Vec::new();
    for (short, row) in &rooms.rows {
        let account_data = account_data.remove(short).unwrap_or_default();
        let mut moved = moved.remove(short).unwrap_or_default();
        let new = since.is_none_or(|since| row.position > since);
        let wanted = match row.value.membership {
            Membership::Join => {
                moved.log |= new || request.full_state;
                moved.receipts |= new;
                let typing = typed.contains(short).then(|| typing.in_room(*short));
                // To who does not know the room, nobody typing is nothing new.
                let typing = typing.filter(|now| serial.is_some() || !now.users.is_empty());
                let read = of_user.reads.contains(short) || of_user.all;
                let any = moved.log || moved.receipts || read || typing.is_some();
                (any || !account_data.is_empty()).then_some((read, typing))
            }
            Membership::Invite | Membership::Knock => new.then_some((false, None)),
            Membership::Leave | Membership::Ban => {
                let archived = request.filter.room.include_leave;
                let wanted = match since {
                    // Who has forgotten it soon may still have to be told that they left.
                    Some(_) if row.value.forgotten => new,
                    Some(_) => new || (archived && request.full_state),
                    None => archived && !row.value.forgotten,
                };
                wanted.then_some((false, None))
            }
        };
        if let Some((read, typing)) = wanted {
            let row = row.clone();
            let unnamed = Unnamed {
                row,
                moved,
                read,
                typing,
                account_data,
            };
            changed.push((*short, unnamed));
        }
    }
    changed
}

impl OfUser {
    fn new(changes: impl ExactSizeIterator<Item = UserChange>) -> Self {
        let mut of_user = Self {
            all: changes.len() > USER_CHANGES_MAX,
            ..Self::default()
        };
        for change in changes {
            match change {
                UserChange::Read(room) => drop(of_user.reads.insert(room)),
                UserChange::AccountData(room, kind) => {
                    of_user.account_data.insert((room, kind));
                }
                UserChange::DeviceList => of_user.device_list = true,
                UserChange::Signatures(user) => drop(of_user.signed.insert(user)),
                // The rows of rooms tell themselves when they changed.
                UserChange::Room(_) => {}
            }
        }
        of_user
    }
}

/// The people in `m.ignored_user_list`.
fn ignored_users(json: &str) -> HashSet<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        ignored_users: BTreeMap<String, serde::de::IgnoredAny>,
    }
    serde_json::from_str::<Content>(json)
        .map(|content| content.ignored_users.into_keys().collect())
        .unwrap_or_default()
}
