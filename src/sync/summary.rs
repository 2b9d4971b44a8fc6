//! Who a room is named after, and how many are in it ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync

use rooms::{Look, Room, StateKey};
use ruma::{UserId, events::StateEventType};
use storage::{
    Range, Reads,
    schema::{self, MemberRow, Membership},
};

use crate::{Reading, update::Summary};

/// How many members a room is named after.
const HEROES: usize = 5;
/// How many members are looked at for those who came first.
const LOOKED_AT_MAX: usize = 100;

/// What a room is named by.
fn names() -> [StateKey; 2] {
    [StateEventType::RoomName, StateEventType::RoomCanonicalAlias]
        .map(|event_type| (event_type, String::new()))
}

impl Reading<'_> {
    /// The room's summary: a round trip for its members, or for its name.
    pub(crate) async fn summary(&self, room: &Room, look: &Look) -> error::Result<Summary> {
        let heroes = if self.is_named(room, look).await? {
            None
        } else {
            Some(self.heroes(room, look).await?)
        };
        Ok(Summary {
            heroes,
            joined: look.head.joined,
            invited: look.head.invited,
        })
    }

    /// Reads ahead what names a room, if it is in the first generation of its flat tables, as nearly all are.
    pub(crate) fn name_ahead(&self, room: &Room) {
        room.numbers_ahead(self.rooms(), self.snapshot, 0, &names());
    }

    async fn is_named(&self, room: &Room, look: &Look) -> error::Result<bool> {
        let generation = look.head.generation;
        let found = room
            .numbers_now(self.rooms(), self.snapshot, generation, &names())
            .await?;
        let numbers: Vec<_> = found.into_iter().flatten().collect();
        let events = room.read_state_events(self.snapshot, &numbers).await?;
        Ok(events.iter().any(|event| {
            let content = serde_json::from_slice::<serde_json::Value>(event.content());
            let content = content.unwrap_or_default();
            let text = |key: &str| content.get(key).and_then(|value| value.as_str());
            text("name")
                .or_else(|| text("alias"))
                .is_some_and(|name| !name.is_empty())
        }))
    }

    /// The first joined and invited others; those who have left if there is nobody else.
    async fn heroes(&self, room: &Room, look: &Look) -> error::Result<Vec<ruma::OwnedUserId>> {
        let range = |membership: Membership| {
            Range::prefix(&(room.short, look.head.generation, membership as u8))
                .limit(LOOKED_AT_MAX)
        };
        let mut reads = Reads::new();
        let slots = [
            Membership::Join,
            Membership::Invite,
            Membership::Leave,
            Membership::Ban,
        ]
        .map(|membership| reads.range(&schema::MEMBER_BY_ROOM, &range(membership)));
        let answers = self.snapshot.read(&reads).await?;
        let mut lists: [Vec<MemberRow>; 4] = Default::default();
        for (list, slot) in lists.iter_mut().zip(&slots) {
            let rows = answers.rows(slot)?.into_iter().map(|(_, row)| row.value);
            list.extend(rows.filter(|row| row.user_id != self.viewer().user_id.as_str()));
        }
        let [joined, invited, left, banned] = lists;
        let mut heroes: Vec<_> = joined.into_iter().chain(invited).collect();
        if heroes.is_empty() {
            heroes = left.into_iter().chain(banned).collect();
        }
        heroes.sort_by_key(|row| row.number);
        heroes
            .into_iter()
            .take(HEROES)
            .map(|row| UserId::parse(&row.user_id).map_err(error::internal))
            .collect()
    }
}
