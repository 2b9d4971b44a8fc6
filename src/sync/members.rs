//! Whose member events a device knows that loads members lazily ([spec]), so that they are not sent anew
//! with everything that these people say.
//!
//! What is known counts only for who goes on from the answer that told it: a device that comes back with
//! an older token has not got that answer, or has lost what it knew.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members

use std::collections::HashSet;

use ruma::api::client::filter::{LazyLoadOptions, RoomEventFilter};
use storage::{NameHash, Position, ShortRoomId};

/// Members that are remembered for a device, at most.
const MEMBERS_MAX: usize = 10_000;

/// A member of a room, by the hash of the state key of their member event.
pub(crate) type Member = (ShortRoomId, NameHash);

/// What an answer tells of members.
#[derive(Debug, Default)]
pub(crate) struct ToldMembers {
    /// Those who speak in it.
    pub(crate) members: Vec<Member>,
    /// Rooms that it tells anew: what the device knew of them before it may have thrown away.
    pub(crate) anew: Vec<ShortRoomId>,
}

/// The members that a device knows. Whatever changes of these later it is told anyway.
#[derive(Debug, Default)]
pub(crate) struct KnownMembers {
    /// The position of the device's token that this holds for.
    at: Option<Position>,
    known: HashSet<Member>,
    /// What the answer with a token told, which the device may have got or not.
    told: Option<(Position, ToldMembers)>,
}

impl KnownMembers {
    /// Begins a poll of who knows everything up to `since`.
    pub(crate) fn begin(&mut self, since: Option<Position>) {
        match self.told.take() {
            Some((at, told)) if Some(at) == since => {
                self.at = since;
                self.known.retain(|(room, _)| !told.anew.contains(room));
                self.known.extend(told.members);
            }
            _ if self.at == since => {}
            _ => {
                self.at = since;
                self.known.clear();
            }
        }
        if self.known.len() > MEMBERS_MAX {
            self.known.clear();
        }
    }

    /// The poll is answered up to `position`, and with that these are told. None: in a way after which
    /// nothing is known of what the device knows.
    pub(crate) fn answered(&mut self, position: Position, told: Option<ToldMembers>) {
        if told.is_none() {
            self.known.clear();
        }
        self.told = Some((position, told.unwrap_or_default()));
    }

    pub(crate) fn knows(&self, member: &Member) -> bool {
        self.known.contains(member)
    }

    /// How many members are remembered.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
            + self
                .told
                .as_ref()
                .map_or(0, |(_, told)| told.members.len() + told.anew.len())
    }
}

/// Whether a filter of state wants each member event once, and hides none.
pub(crate) fn wants_each_once(filter: &RoomEventFilter) -> bool {
    let hides_nothing = RoomEventFilter::with_lazy_loading();
    let lazy = LazyLoadOptions::Enabled {
        include_redundant_members: false,
    };
    filter.lazy_load_options == lazy
        && filter.types == hides_nothing.types
        && filter.not_types.is_empty()
        && filter.senders == hides_nothing.senders
        && filter.not_senders.is_empty()
        && filter.rooms == hides_nothing.rooms
        && filter.not_rooms.is_empty()
        && filter.url_filter.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Member = (ShortRoomId([1; 8]), NameHash([2; 16]));

    fn at(number: u8) -> Position {
        Position::from_bytes([number; 16])
    }

    #[allow(clippy::unnecessary_wraps)] // as it is given
    fn nobody() -> Option<ToldMembers> {
        Some(ToldMembers::default())
    }

    #[allow(clippy::unnecessary_wraps)] // as it is given
    fn alice() -> Option<ToldMembers> {
        let members = vec![ALICE];
        Some(ToldMembers {
            members,
            ..ToldMembers::default()
        })
    }

    #[test]
    fn only_who_goes_on_from_an_answer_knows_what_it_told() {
        let mut members = KnownMembers::default();
        members.begin(None);
        members.answered(at(1), alice());
        assert!(!members.knows(&ALICE), "it may not have got the answer");
        members.begin(Some(at(1)));
        assert!(members.knows(&ALICE));
        members.answered(at(2), nobody());
        members.begin(Some(at(1)));
        assert!(members.knows(&ALICE), "it asks again, and knew her before");
        members.answered(at(3), nobody());
        members.begin(Some(at(3)));
        assert!(members.knows(&ALICE));
        members.begin(Some(at(2)));
        assert!(!members.knows(&ALICE), "it has gone back");

        members.answered(at(4), alice());
        members.begin(Some(at(4)));
        let anew = vec![ALICE.0];
        let told = ToldMembers {
            anew,
            ..ToldMembers::default()
        };
        members.answered(at(5), Some(told));
        members.begin(Some(at(5)));
        assert!(
            !members.knows(&ALICE),
            "the room was told anew, and not her"
        );

        members.answered(at(4), alice());
        members.begin(Some(at(4)));
        members.answered(at(5), None);
        members.begin(Some(at(5)));
        assert!(
            !members.knows(&ALICE),
            "it was asked in another way meanwhile"
        );
        members.answered(at(6), alice());
        members.begin(None);
        assert!(!members.knows(&ALICE), "it begins anew");
    }
}
