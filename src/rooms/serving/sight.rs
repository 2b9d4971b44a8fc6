//! Which events a server may see, by the history visibility at each ([spec]).
//!
//! A server sees what one of its people may see. That it is in the room is known; so what is shared it sees,
//! and else what happened while somebody of it was there.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

use std::collections::{BTreeSet, HashMap, HashSet};

use pdu::EventNumber;
use ruma::{UserId, events::StateEventType};
use storage::{
    Range,
    schema::{self, Membership, Visibility},
};

use super::Serving;
use crate::{
    StateKey,
    writer::{GraphEvent, visibility_of},
};

/// People of a server whose memberships are looked at together.
const PEOPLE_AT_ONCE: usize = 500;
/// People of a server who are looked at, at most: if none of these was there, nobody was.
const PEOPLE_MAX: usize = 20_000;

/// What is asked of the state at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Seen,
    Hidden,
    /// Somebody of the server must have been there, or invited if that is enough.
    ByMembership {
        invite: bool,
    },
}

/// The strongest tie that people of a server had to a room in a state: joined or invited.
type Ties = HashMap<[u8; 16], Membership>;

impl Serving {
    /// Which of some events the server may see, in their order. The states at events are asked only where
    /// `joined` or `invited` is in force, or their sender wanted what they said to be erased.
    pub(super) async fn may_see(&self, events: &[GraphEvent]) -> error::Result<Vec<bool>> {
        let senders: BTreeSet<_> = events
            .iter()
            .map(|event| event.event.header.sender.as_str())
            .filter(|sender| {
                let server = sender.split_once(':').map(|(_, server)| server);
                server == Some(self.rooms.server_name().as_str())
            })
            .collect();
        let erased = match senders.is_empty() {
            true => HashSet::new(),
            false => self.rooms.erased_people(&self.snapshot, senders).await?,
        };
        let sights: Vec<_> = events
            .iter()
            .map(|event| self.sight(event, &erased))
            .collect();
        let asked = events.iter().zip(&sights);
        let asked = asked.filter(|(_, sight)| matches!(sight, Sight::ByMembership { .. }));
        let roots: BTreeSet<_> = asked.flat_map(|(event, _)| self.roots_of(event)).collect();
        let ties = self.ties(roots).await?;
        let all = events.iter().zip(sights);
        Ok(all
            .map(|(event, sight)| match sight {
                Sight::Seen => true,
                Sight::Hidden => false,
                Sight::ByMembership { invite } => self.roots_of(event).any(|root| {
                    let tie = ties.get(&root);
                    tie.is_some_and(|tie| invite || *tie == Membership::Join)
                }),
            })
            .collect())
    }

    fn sight(&self, event: &GraphEvent, erased: &HashSet<&str>) -> Sight {
        let header = &event.event.header;
        if self.is_theirs(&header.sender) {
            return Sight::Seen;
        }
        if event.roots.is_none() {
            // Known as somebody's state or auth event, which a server in the room is told anyway.
            return match header.state_key {
                Some(_) => Sight::Seen,
                None => Sight::Hidden,
            };
        }
        if erased.contains(header.sender.as_str()) && header.state_key.is_none() {
            return Sight::ByMembership { invite: false };
        }
        let slot = event.event.pdu.state_slot();
        let changed = (StateEventType::RoomHistoryVisibility, "");
        let in_force = match slot == Some(changed) {
            true => [header.visibility, visibility_of(Some(&event.event.pdu))],
            false => [header.visibility; 2],
        };
        let open = [Visibility::WorldReadable, Visibility::Shared];
        if in_force.iter().any(|one| open.contains(one)) {
            Sight::Seen
        } else {
            let invite = in_force.contains(&Visibility::Invited);
            Sight::ByMembership { invite }
        }
    }

    fn is_theirs(&self, user: &str) -> bool {
        let server = user.split_once(':').map(|(_, server)| server);
        server == Some(self.server.as_str())
    }

    /// The states that count at an event: that after it, and where somebody of the server comes or goes also
    /// that before it.
    fn roots_of(&self, event: &GraphEvent) -> impl Iterator<Item = [u8; 16]> + use<> {
        let slot = event.event.pdu.state_slot();
        let goes = slot
            .is_some_and(|(kind, key)| kind == StateEventType::RoomMember && self.is_theirs(key));
        let after = event.roots.map(|roots| roots.after);
        let before = event.roots.filter(|_| goes).map(|roots| roots.before);
        after.into_iter().chain(before)
    }

    /// The strongest tie that the server's people have to the room in each of these states. States in which
    /// they have none are left out.
    async fn ties(&self, mut roots: BTreeSet<[u8; 16]>) -> error::Result<Ties> {
        let mut ties = Ties::new();
        let prefix = (self.room.short, self.generation, self.server_hash);
        let mut range = Range::prefix(&prefix).limit(PEOPLE_AT_ONCE);
        let mut looked_at = 0;
        while !roots.is_empty() && looked_at < PEOPLE_MAX {
            let ranges = [range.clone()];
            let rows = self
                .snapshot
                .multi_range(&schema::MEMBER_BY_SERVER, &ranges);
            let rows: Vec<_> = rows.await?.into_iter().flatten().collect();
            let numbers: Vec<_> = rows.iter().map(|(_, row)| row.value).collect();
            let keys = self.members(&numbers).await?;
            self.tie(&roots, &keys, &mut ties).await?;
            roots.retain(|root| ties.get(root) != Some(&Membership::Join));
            looked_at += rows.len();
            let Some((last, _)) = rows.last().filter(|_| rows.len() == PEOPLE_AT_ONCE) else {
                break;
            };
            range = range.after(last);
        }
        Ok(ties)
    }

    /// The state keys of member events.
    async fn members(&self, numbers: &[EventNumber]) -> error::Result<Vec<StateKey>> {
        let keys: Vec<_> = numbers.iter().map(|one| (self.room.short, *one)).collect();
        let rows = self.snapshot.multi_get(&schema::EVENT_BY_NUMBER, &keys);
        let rows = rows.await?.into_iter().flatten();
        let users = rows.filter_map(|row| row.value.header.state_key);
        let users = users.filter(|user| UserId::parse(user).is_ok());
        Ok(users
            .map(|user| (StateEventType::RoomMember, user))
            .collect())
    }

    async fn tie(
        &self,
        roots: &BTreeSet<[u8; 16]>,
        keys: &[StateKey],
        ties: &mut Ties,
    ) -> error::Result<()> {
        let roots: Vec<_> = roots.iter().copied().collect();
        let found = self.room.find_state(&self.snapshot, &roots, keys).await?;
        let numbers: BTreeSet<_> = found.values().copied().collect();
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = self.room.stored_events(&self.snapshot, &numbers).await?;
        let events: HashMap<_, _> = numbers.into_iter().zip(events).collect();
        for ((root, _), number) in found {
            let membership = events
                .get(&number)
                .and_then(|event| event.member().membership);
            match membership {
                Some(Membership::Join) => {
                    ties.insert(root, Membership::Join);
                }
                Some(Membership::Invite) => {
                    ties.entry(root).or_insert(Membership::Invite);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
