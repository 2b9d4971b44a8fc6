//! In which of a user's rooms something happened since a position: the first step of a sync.
//!
//! Storage alone decides that, by the tails of the rooms, so that the answer is the same whoever was
//! woken when. The list of the user's rooms is remembered for as long as their own tail stands still.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use rooms::{Room, TypingNow};
use ruma::OwnedUserId;
use storage::{
    Answers, Found, NameHash, Position, Range, Reads, ShortRoomId, ShortUserId, Slot, Snapshot,
    Stamped,
    schema::{self, Membership, UserChange, UserRoomRow},
};
use users::{InvitePermissions, Invites};

use crate::{
    Request, Syncs,
    account_data::AccountData,
    device::{self, OfDevice},
    device_lists::DeviceNews,
    wants::{room_passes, type_passes},
};

/// Changes of a user that are looked at one by one; who was away for longer is told by what the rows
/// themselves say of when they changed.
const USER_CHANGES_MAX: usize = 1_000;

/// What changed, by room, before the rooms are read.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Rooms in which something may have happened.
    pub(crate) rooms: Vec<ChangedRoom>,
    /// The rooms that the user is in, changed or not.
    pub(crate) joined: BTreeSet<ShortRoomId>,
    /// People whom the user does not want to hear of.
    pub(crate) ignored: HashSet<String>,
    /// Whose invites they want.
    pub(crate) invites: InvitePermissions,
    /// Who talks for the server, which nobody can ignore.
    pub(crate) notices_user: Option<OwnedUserId>,
    /// What the device is told of itself.
    pub(crate) of_device: OfDevice,
    /// Whose devices may have changed.
    pub(crate) devices: DeviceNews,
}

impl Changes {
    /// Whether invites of somebody are shown.
    pub(crate) fn welcomes(&self, sender: &str) -> bool {
        let of_server = self
            .notices_user
            .as_ref()
            .is_some_and(|user| user == sender);
        let wanted = !self.ignored.contains(sender) && self.invites.of(sender) == Invites::Welcome;
        of_server || wanted
    }
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
}

/// A user's rooms, those they were invited to and those they left too.
#[derive(Debug)]
pub(crate) struct UserRooms {
    /// Where the user's tail stood; the rows are these for as long as it does.
    tail: Option<Position>,
    rows: Arc<RowsOfRooms>,
}

type RowsOfRooms = BTreeMap<ShortRoomId, Stamped<UserRoomRow>>;

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

type UserLogRow = ((ShortUserId, Position), Found<UserChange>);
type RoomRows = Vec<((ShortUserId, ShortRoomId), Found<Stamped<UserRoomRow>>)>;

/// What changed for the user themselves.
#[derive(Debug, Default)]
struct OfUser {
    /// Rooms of which the user's row changed, and when.
    rooms: Vec<(Position, ShortRoomId)>,
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
    /// What changed. One round trip where the user's rooms are remembered, one more where some of these rows
    /// changed.
    pub(crate) async fn changes(
        &self,
        snapshot: &Snapshot,
        request: &Request,
    ) -> error::Result<(Changes, AccountData)> {
        let (user, since) = (request.viewer.short, request.position());
        let ignored_key = (
            user,
            ShortRoomId::NONE,
            self.0.storage.type_hash("m.ignored_user_list"),
        );
        let known = self.0.user_rooms.get(&user);
        let mut reads = Reads::new();
        let tail = reads.get(&schema::TAIL_BY_USER, &user);
        let ignored = reads.get(&schema::ACCOUNT_DATA_BY_USER, &ignored_key);
        let invites = InvitePermissions::keys(&self.0.storage, user);
        let invites = reads.get_all(&schema::ACCOUNT_DATA_BY_USER, &invites);
        let log = since.map(|since| {
            // Back to where their rooms are known, too.
            let known = known
                .as_ref()
                .map(|known| known.tail.unwrap_or(Position::START));
            let after = known.map_or(since, |known| known.min(since));
            let range = Range::prefix(&(user,))
                .after(&(user, after))
                .limit(USER_CHANGES_MAX + 1);
            reads.range(&schema::CHANGE_BY_USER_POSITION, &range)
        });
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
        let of_device = match of_device {
            Some(asked) => asked.answer(&answers)?,
            None => OfDevice::default(),
        };
        let log = log.map(|log| answers.rows(&log)).transpose()?;
        let of_user = OfUser::new(log.iter().flatten(), since);
        let ignored = answers.one(&ignored)?;
        let ignored = ignored.map(|row| users::ignored_users(&row.value.value.json));
        let invites = InvitePermissions::of_rows(&answers.all(&invites)?);
        let mut moved = match (tails, since) {
            (Some(tails), Some(since)) => tails.moved(&answers, since)?,
            _ => BTreeMap::new(),
        };
        let tail = answers.one(&tail)?.map(|row| row.value.position);
        let renewing = Renewing {
            snapshot,
            user,
            since,
            tail,
        };
        let rooms = match (known, fresh) {
            (Some(known), _) if known.tail == tail => known,
            (Some(known), _) if known.tail < tail && log.is_some() && !of_user.all => {
                let changed = of_user.rooms_after(known.tail);
                self.renewed(&renewing, &known, changed, &mut moved).await?
            }
            (_, fresh) => {
                let rows = fresh.map(|slot| answers.rows(&slot)).transpose()?;
                self.read_rooms(&renewing, rows, &mut moved).await?
            }
        };
        let account_data = if since.is_none() || of_user.all {
            AccountData::find(snapshot, user, since).await?
        } else {
            AccountData::Changed(of_user.account_data.clone())
        };
        let devices = DeviceNews {
            own: of_user.device_list || of_user.all,
            rooms: moved
                .iter()
                .filter(|(_, moved)| moved.receipts)
                .map(|(room, _)| *room)
                .collect(),
            signed: of_user.signed.clone(),
        };
        let changed = changed_rooms(self, request, &rooms, moved, &of_user, &account_data);
        let changes = Changes {
            of_device,
            devices,
            rooms: self.named(snapshot, request, changed).await?,
            joined: rooms.joined().copied().collect(),
            ignored: ignored.unwrap_or_default(),
            invites,
            notices_user: self.0.rooms.notices_user().map(ToOwned::to_owned),
        };
        Ok((changes, account_data))
    }

    /// The user's rooms, of which some changed since they were remembered; adds which of these moved. One
    /// round trip, and none if none changed.
    async fn renewed(
        &self,
        renewing: &Renewing<'_>,
        known: &UserRooms,
        changed: BTreeSet<ShortRoomId>,
        moved: &mut BTreeMap<ShortRoomId, Moved>,
    ) -> error::Result<Arc<UserRooms>> {
        let mut rows = Arc::clone(&known.rows);
        if !changed.is_empty() {
            let keys: Vec<_> = changed.iter().map(|room| (renewing.user, *room)).collect();
            let mut reads = Reads::new();
            let found = reads.get_all(&schema::ROOM_BY_USER, &keys);
            let tails = Tails::ask(&mut reads, changed.iter());
            let answers = renewing.snapshot.read(&reads).await?;
            if let Some(since) = renewing.since {
                moved.extend(tails.moved(&answers, since)?);
            }
            let rows = Arc::make_mut(&mut rows);
            for (room, row) in changed.into_iter().zip(answers.all(&found)?) {
                match row {
                    Some(row) => drop(rows.insert(room, row.value)),
                    None => drop(rows.remove(&room)),
                }
            }
        }
        Ok(self.remember(renewing, rows))
    }

    /// The user's rooms as they are now, and which of them moved. A round trip each, unless the rows are
    /// there already.
    async fn read_rooms(
        &self,
        renewing: &Renewing<'_>,
        rows: Option<RoomRows>,
        moved: &mut BTreeMap<ShortRoomId, Moved>,
    ) -> error::Result<Arc<UserRooms>> {
        let rows = match rows {
            Some(rows) => rows,
            None => {
                let range = Range::prefix(&(renewing.user,));
                let rows = renewing
                    .snapshot
                    .multi_range(&schema::ROOM_BY_USER, &[range])
                    .await?;
                rows.into_iter().flatten().collect()
            }
        };
        let rows: BTreeMap<_, _> = rows
            .into_iter()
            .map(|((_, room), row)| (room, row.value))
            .collect();
        let rooms = self.remember(renewing, Arc::new(rows));
        if let Some(since) = renewing.since {
            let mut reads = Reads::new();
            let tails = Tails::ask(&mut reads, rooms.joined());
            *moved = tails.moved(&renewing.snapshot.read(&reads).await?, since)?;
        }
        Ok(rooms)
    }

    fn remember(&self, renewing: &Renewing<'_>, rows: Arc<RowsOfRooms>) -> Arc<UserRooms> {
        let tail = renewing.tail;
        let rooms = Arc::new(UserRooms { tail, rows });
        self.0.user_rooms.insert(renewing.user, Arc::clone(&rooms));
        rooms
    }

    /// Finds the rooms behind the short ids, without those that the filter does not want.
    async fn named(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        changed: Vec<(ShortRoomId, Unnamed)>,
    ) -> error::Result<Vec<ChangedRoom>> {
        let shorts: Vec<_> = changed.iter().map(|(short, _)| *short).collect();
        // What was remembered of the user may name rooms that are gone.
        let rooms = self.0.rooms.find_by_short(snapshot, &shorts).await?;
        let wanted = &request.filter.room;
        Ok(rooms
            .into_iter()
            .zip(changed)
            .filter_map(|(room, changed)| Some((room?, changed)))
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
            })
            .collect())
    }
}

/// What the list of a user's rooms is renewed by.
struct Renewing<'a> {
    snapshot: &'a Snapshot,
    user: ShortUserId,
    since: Option<Position>,
    /// Where the user's tail stands.
    tail: Option<Position>,
}

/// A changed room of which only the short id is known.
struct Unnamed {
    row: Stamped<UserRoomRow>,
    moved: Moved,
    read: bool,
    typing: Option<TypingNow>,
}

fn changed_rooms(
    syncs: &Syncs,
    request: &Request,
    rooms: &UserRooms,
    mut moved: BTreeMap<ShortRoomId, Moved>,
    of_user: &OfUser,
    account_data: &AccountData,
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
    let with_data = account_data.rooms();
    let mut changed = Vec::new();
    for (short, row) in &*rooms.rows {
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
                (any || with_data.contains(short)).then_some((read, typing))
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
            };
            changed.push((*short, unnamed));
        }
    }
    changed
}

impl OfUser {
    /// By the rows of a user's log, which may begin before the device's position.
    fn new<'a>(changes: impl Iterator<Item = &'a UserLogRow>, since: Option<Position>) -> Self {
        let (mut of_user, mut count) = (Self::default(), 0);
        for ((_, position), change) in changes {
            count += 1;
            if let UserChange::Room(room) = change.value {
                of_user.rooms.push((*position, room));
            }
            if since.is_some_and(|since| *position <= since) {
                continue;
            }
            match change.value {
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
        of_user.all = count > USER_CHANGES_MAX;
        of_user
    }

    /// The rooms of which the user's row changed after a position.
    fn rooms_after(&self, tail: Option<Position>) -> BTreeSet<ShortRoomId> {
        let later = self.rooms.iter().filter(|(at, _)| Some(*at) > tail);
        later.map(|(_, room)| *room).collect()
    }
}
