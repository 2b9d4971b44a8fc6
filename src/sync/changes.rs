//! In which of a user's rooms something happened since a position.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rooms::Room;
use serde_json::value::RawValue;
use storage::{
    NameHash, Position, Range, Reads, ShortRoomId, Snapshot, Stamped,
    schema::{self, AccountDataRow, Membership, UserChange, UserRoomRow},
};

use crate::{Live, Request, Syncs};

/// What changed, by room, before it is read.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Rooms in which something may have happened.
    pub(crate) rooms: Vec<RoomToRead>,
    /// Global account data that changed; all of it at first.
    pub(crate) account_data: Vec<AccountDataRow>,
}

/// A room to be read.
#[derive(Debug)]
pub(crate) struct RoomToRead {
    pub(crate) room: Arc<Room>,
    pub(crate) row: Stamped<UserRoomRow>,
    /// The user's membership changed, or their member event.
    pub(crate) member_changed: bool,
    /// They have read on.
    pub(crate) read_changed: bool,
    /// Account data of the room that changed; all of it at first.
    pub(crate) account_data: Vec<AccountDataRow>,
}

/// What changed for the user themselves.
#[derive(Debug, Default)]
struct OfUser {
    members: BTreeSet<ShortRoomId>,
    reads: BTreeSet<ShortRoomId>,
    account_data: BTreeSet<(ShortRoomId, NameHash)>,
}

type Rows = BTreeMap<ShortRoomId, Stamped<UserRoomRow>>;

impl Syncs {
    /// What changed, and the view that tells so.
    pub(crate) async fn changes(
        &self,
        request: &Request,
        live: &mut Live,
    ) -> error::Result<(Snapshot, Changes)> {
        let since = request.since.map(|since| since.position);
        let known = since
            .filter(|_| !request.full_state)
            .and_then(|since| live.changed(since));
        if let (Some(since), Some((changed, false))) = (since, &known) {
            let snapshot = self.snapshot(since).await?;
            let rows = self.rows(&snapshot, request, Some(changed)).await?;
            let changes = self
                .gather(&snapshot, request, rows, OfUser::default())
                .await?;
            return Ok((snapshot, changes));
        }
        loop {
            let snapshot = self.snapshot(since.unwrap_or(Position::START)).await?;
            let rows = self.rows(&snapshot, request, None).await?;
            let joined = rows
                .iter()
                .filter(|(_, row)| row.value.membership == Membership::Join)
                .map(|(room, _)| *room)
                .collect();
            if live.wait_for(&joined) {
                // What happened there until now was not waited for: look again.
                continue;
            }
            let of_user = self.of_user(&snapshot, request).await?;
            let rows = match (since, &known) {
                (None, _) => rows,
                _ if request.full_state => rows,
                (Some(since), known) => {
                    let changed = match known {
                        Some((changed, _)) => changed.clone(),
                        None => self.by_tails(&snapshot, request, since, &joined).await?,
                    };
                    let of_rooms = of_user.account_data.iter().map(|(room, _)| *room);
                    let mut wanted: BTreeSet<_> = of_rooms.collect();
                    wanted.extend(&of_user.members);
                    wanted.extend(&of_user.reads);
                    wanted.extend(changed);
                    rows.into_iter()
                        .filter(|(room, _)| wanted.contains(room))
                        .collect()
                }
            };
            let changes = self.gather(&snapshot, request, rows, of_user).await?;
            return Ok((snapshot, changes));
        }
    }

    async fn snapshot(&self, at_least: Position) -> error::Result<Snapshot> {
        Ok(self.0.storage.snapshot(at_least).await?)
    }

    /// The user's rooms, or some of them, without those that were forgotten or are not wanted.
    async fn rows(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        only: Option<&BTreeSet<ShortRoomId>>,
    ) -> error::Result<Rows> {
        let user = request.viewer.short;
        let rows: Rows = match only {
            Some(only) => {
                let keys: Vec<_> = only.iter().map(|room| (user, *room)).collect();
                let rows = snapshot.multi_get(&schema::ROOM_BY_USER, &keys).await?;
                only.iter()
                    .zip(rows)
                    .filter_map(|(room, row)| Some((*room, row?.value)))
                    .collect()
            }
            None => {
                let range = Range::prefix(&(user,));
                let rows = snapshot
                    .multi_range(&schema::ROOM_BY_USER, &[range])
                    .await?;
                rows.into_iter()
                    .flatten()
                    .map(|((_, room), row)| (room, row.value))
                    .collect()
            }
        };
        Ok(rows
            .into_iter()
            .filter(|(_, row)| !row.value.forgotten)
            .collect())
    }

    /// What changed for the user themselves; at first all is new anyway.
    async fn of_user(&self, snapshot: &Snapshot, request: &Request) -> error::Result<OfUser> {
        let mut of_user = OfUser::default();
        let Some(since) = request.since else {
            return Ok(of_user);
        };
        let user = request.viewer.short;
        let range = Range::prefix(&(user,)).after(&(user, since.position.end_of_commit()));
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_USER_POSITION, &[range])
            .await?;
        for (_, row) in rows.into_iter().flatten() {
            match row.value {
                UserChange::Room(room) => drop(of_user.members.insert(room)),
                UserChange::Read(room) => drop(of_user.reads.insert(room)),
                UserChange::AccountData(room, kind) => {
                    of_user.account_data.insert((room, kind));
                }
                UserChange::DeviceList => {}
            }
        }
        Ok(of_user)
    }

    /// The joined rooms whose tails say that something happened.
    async fn by_tails(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        since: Position,
        joined: &BTreeSet<ShortRoomId>,
    ) -> error::Result<BTreeSet<ShortRoomId>> {
        let mut reads = Reads::new();
        let tails = reads.get_all(&schema::TAIL_BY_ROOM, joined);
        let receipts = reads.get_all(&schema::RECEIPT_TAIL_BY_ROOM, joined);
        let answers = snapshot.read(&reads).await?;
        let (tails, receipts) = (answers.all(&tails)?, answers.all(&receipts)?);
        let cursor = request
            .since
            .map(|since| since.ephemeral)
            .unwrap_or_default();
        let same_run = cursor.run == self.0.rooms.run();
        let all = joined.iter().zip(tails).zip(receipts);
        Ok(all
            .filter(|((room, tail), receipts)| {
                let later = |row: &Option<storage::Found<Stamped<()>>>| {
                    row.as_ref().is_some_and(|row| row.value.position > since)
                };
                let typing = self.0.rooms.typing().in_room(**room);
                let typing = if same_run {
                    typing.serial > cursor.serial
                } else {
                    !typing.users.is_empty()
                };
                later(tail) || later(receipts) || typing
            })
            .map(|((room, _), _)| *room)
            .collect())
    }

    /// The rooms of these rows, with their account data, and the global one.
    async fn gather(
        &self,
        snapshot: &Snapshot,
        request: &Request,
        rows: Rows,
        of_user: OfUser,
    ) -> error::Result<Changes> {
        let user = request.viewer.short;
        let mut data: BTreeMap<ShortRoomId, Vec<AccountDataRow>> = BTreeMap::new();
        if request.since.is_none() {
            let range = Range::prefix(&(user,));
            let all = snapshot
                .multi_range(&schema::ACCOUNT_DATA_BY_USER, &[range])
                .await?;
            for ((_, room, _), row) in all.into_iter().flatten() {
                data.entry(room).or_default().push(row.value.value);
            }
            let push_rules = self.0.users.push_rules_data(user).await?;
            let global = data.entry(ShortRoomId::NONE).or_default();
            global.retain(|row| row.event_type != push_rules.event_type);
            global.push(AccountDataRow {
                event_type: push_rules.event_type,
                json: push_rules.content.get().to_owned(),
            });
        } else if !of_user.account_data.is_empty() {
            let keys: Vec<_> = of_user
                .account_data
                .iter()
                .map(|(room, kind)| (user, *room, *kind))
                .collect();
            let changed = snapshot
                .multi_get(&schema::ACCOUNT_DATA_BY_USER, &keys)
                .await?;
            for ((_, room, _), row) in keys.into_iter().zip(changed) {
                let row = row.map(|row| row.value.value);
                data.entry(room).or_default().extend(row);
            }
        }
        let shorts: Vec<_> = rows.keys().copied().collect();
        let rooms = self.0.rooms.by_short(snapshot, &shorts).await?;
        let wanted = &request.filter.room;
        let rooms = rooms
            .into_iter()
            .zip(rows)
            .filter(|(room, _)| {
                let is = |id: &ruma::OwnedRoomId| *id == room.room_id;
                !wanted.not_rooms.iter().any(is)
                    && wanted
                        .rooms
                        .as_ref()
                        .is_none_or(|rooms| rooms.iter().any(is))
            })
            .map(|(room, (short, row))| RoomToRead {
                member_changed: of_user.members.contains(&short),
                read_changed: of_user.reads.contains(&short),
                account_data: data.remove(&short).unwrap_or_default(),
                room,
                row,
            })
            .collect();
        Ok(Changes {
            rooms,
            account_data: data.remove(&ShortRoomId::NONE).unwrap_or_default(),
        })
    }
}

/// Account data as an event.
pub(crate) fn account_data_event(row: &AccountDataRow) -> error::Result<Box<RawValue>> {
    let event_type = serde_json::to_string(&row.event_type).map_err(error::internal)?;
    let event = format!("{{\"type\":{event_type},\"content\":{}}}", row.json);
    RawValue::from_string(event).map_err(error::internal)
}
