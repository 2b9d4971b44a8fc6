//! What records of the stream say of rooms, for who tells other servers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pdu::EventNumber;
use ruma::{OwnedUserId, UserId};
use storage::{
    Position, ShortRoomId, Snapshot,
    schema::{self, Membership, RoomChange, StreamRecord},
};

use crate::{ReadEvent, Rooms, membership_of};

/// What some records say.
#[derive(Debug, Default)]
pub struct News {
    /// For each record the root of its room's state after it; none of what was found later than it happened.
    pub roots: Vec<Option<[u8; 16]>>,
    /// People of ours who came into rooms.
    pub came: Vec<(ShortRoomId, OwnedUserId)>,
}

/// A member event that may be of one of ours, and the one before.
struct Moved {
    before: Option<EventNumber>,
    after: EventNumber,
}

impl Rooms {
    /// What some records say; two round trips, and one more where somebody of ours may have come into a room.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn news(
        &self,
        snapshot: &Snapshot,
        records: &[(Position, StreamRecord)],
    ) -> error::Result<News> {
        let keys: Vec<_> = records
            .iter()
            .map(|(position, record)| (record.room, *position))
            .collect();
        let changes = snapshot
            .multi_get(&schema::CHANGE_BY_ROOM_POSITION, &keys)
            .await?;
        let mut news = News::default();
        let mut moved: BTreeMap<ShortRoomId, Vec<Moved>> = BTreeMap::new();
        for ((_, record), change) in records.iter().zip(changes) {
            let change = change
                .map(|row| row.value)
                .filter(|change| !change.historic);
            news.roots.push(change.as_ref().map(|change| change.root));
            if let Some(change) = change {
                let of_room = self.moved(record, &change);
                if !of_room.is_empty() {
                    moved.entry(record.room).or_default().extend(of_room);
                }
            }
        }
        let shorts: Vec<_> = moved.keys().copied().collect();
        let rooms = self.by_short(snapshot, &shorts).await?;
        for (room, moved) in rooms.into_iter().zip(moved.into_values()) {
            let numbers = moved.iter().flat_map(|one| [one.before, Some(one.after)]);
            let numbers: BTreeSet<_> = numbers.flatten().collect();
            let numbers: Vec<_> = numbers.into_iter().collect();
            let events = room.read_state(snapshot, &numbers).await?;
            let joins: HashMap<_, _> = numbers
                .iter()
                .zip(events)
                .filter_map(|(number, event)| Some((*number, self.joined_of_ours(&event?)?)))
                .collect();
            for one in moved {
                let before = one.before.and_then(|before| joins.get(&before));
                if let (Some(user), None) = (joins.get(&one.after), before) {
                    news.came.push((room.short, user.clone()));
                }
            }
        }
        Ok(news)
    }

    /// Member events that a commit brought into the current state, of ours. Where that changed too much to be
    /// listed, as when this server comes into a room, the event that did it.
    fn moved(&self, record: &StreamRecord, change: &RoomChange) -> Vec<Moved> {
        let Some(state) = &change.state else {
            return vec![Moved {
                before: None,
                after: record.number,
            }];
        };
        let ours = |user: &str| {
            let user = UserId::parse(user);
            user.is_ok_and(|user| user.server_name() == self.server_name())
        };
        state
            .iter()
            .filter(|entry| entry.event_type == "m.room.member" && ours(&entry.state_key))
            .filter_map(|entry| {
                Some(Moved {
                    before: entry.before,
                    after: entry.after?,
                })
            })
            .collect()
    }

    /// For an event by which somebody of ours is in a room: who.
    fn joined_of_ours(&self, event: &ReadEvent) -> Option<OwnedUserId> {
        let member = event.is_state("m.room.member");
        let joined = member && membership_of(event) == Some(Membership::Join);
        let user = event.row.header.state_key.as_deref().filter(|_| joined)?;
        let user = UserId::parse(user).ok()?;
        (user.server_name() == self.server_name()).then_some(user)
    }
}
