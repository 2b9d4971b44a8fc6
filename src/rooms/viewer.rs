//! Who looks at a room, and how they stand to it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use pdu::{EventNumber, canonical};
use ruma::{OwnedUserId, RoomId, events::StateEventType};
use storage::{
    Answers, Found, NameHash, Reads, ShortUserId, Slot, Snapshot, Stamped,
    schema::{self, EventRow, Head, Membership, Place, UserRoomRow, Visibility},
};

use crate::{ReadEvent, Room, Rooms, event::membership, read::content_of};

/// How many of somebody's own member events are looked at for the last one by which they were in.
const OWN_MEMBER_EVENTS_MAX: usize = 50;

/// A user of this server who looks at rooms.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// Who.
    pub user_id: OwnedUserId,
    /// Their short id.
    pub short: ShortUserId,
    /// Their device, as in [`Sent::device`](schema::Sent::device).
    pub device: NameHash,
}

/// A room as somebody looks at it: how they stand to it, at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// The room's head.
    pub head: Head,
    /// The viewer's row; none if they never had to do with the room, or have forgotten it.
    pub row: Option<UserRoomRow>,
    /// For who is not in the room and was: where that ended.
    pub until: Option<Until>,
}

/// Where the answers will be that a [`Look`] is made of.
pub(crate) struct AskedLook {
    head: Slot<Option<Found<Head>>>,
    row: Slot<Option<Found<Stamped<UserRoomRow>>>>,
}

/// Where somebody's time in a room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The place of the event that ended it.
    pub place: Place,
    /// The room's state after it.
    pub root: [u8; 16],
}

impl Look {
    /// The viewer's membership.
    pub fn membership(&self) -> Option<Membership> {
        self.row.as_ref().map(|row| row.membership)
    }

    /// Whether the viewer is in the room.
    pub fn is_joined(&self) -> bool {
        self.membership() == Some(Membership::Join)
    }

    /// The root of the state that the viewer may see: the current one, or the one in which they left.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they may see none.
    pub fn root(&self) -> error::Result<[u8; 16]> {
        match &self.until {
            _ if self.is_joined() => Ok(self.head.root),
            Some(until) => Ok(until.root),
            None if self.head.visibility == Visibility::WorldReadable => Ok(self.head.root),
            None => Err(error::forbidden(
                "You are not in this room, or it does not exist",
            )),
        }
    }

    /// The end of the timeline for the viewer: the place of its last event, or before it began.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they may see nothing of it.
    pub fn end(&self) -> error::Result<Place> {
        self.root()?;
        let last = self.head.next_slot.checked_sub(1);
        let last = last.map_or(Place::START, Place::live);
        Ok(match self.until {
            // What came after they left they may see if anybody may.
            Some(until)
                if !self.is_joined() && self.head.visibility != Visibility::WorldReadable =>
            {
                until.place
            }
            _ => last,
        })
    }

    /// The viewer's membership in the state after an event, where it can be told without that state.
    ///
    /// An event made here follows all that was there: its state is the room's, and since the viewer's
    /// latest member event that has said the same of them. An event made elsewhere may not know of it.
    pub(crate) fn known_after(
        &self,
        viewer: &Viewer,
        event: &ReadEvent,
    ) -> Option<Option<Membership>> {
        let Some(row) = &self.row else {
            return Some(None);
        };
        if event.is_member_event_of(&viewer.user_id) {
            return Some(membership_of(event));
        }
        if event.roots.after == self.head.root {
            return Some(Some(row.membership));
        }
        let header = &event.row.header;
        let made_here = header
            .sender
            .split_once(':')
            .is_some_and(|(_, server)| server == viewer.user_id.server_name());
        let later = row
            .place
            .zip(header.place)
            .is_some_and(|(own, place)| own <= place);
        (made_here && later).then_some(Some(row.membership))
    }
}

impl Rooms {
    /// The room of that id, if somebody of this server has ever had to do with it: as a member, or
    /// invited.
    pub async fn find_own_room(
        &self,
        user: ShortUserId,
        room_id: &RoomId,
    ) -> error::Result<Option<Arc<Room>>> {
        let Some(room) = self.find_room(room_id).await? else {
            return Ok(None);
        };
        let snapshot = self.snapshot().await?;
        let key = (user, room.short);
        let mut rows = snapshot.multi_get(&schema::ROOM_BY_USER, &[key]).await?;
        Ok(rows.pop().flatten().map(|_| room))
    }
}

impl Room {
    /// Whether somebody is joined now; one round trip.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they are not.
    pub async fn check_joined(&self, snapshot: &Snapshot, viewer: &Viewer) -> error::Result<()> {
        let key = (viewer.short, self.short);
        let row = snapshot
            .multi_get(&schema::ROOM_BY_USER, &[key])
            .await?
            .pop()
            .flatten();
        match row.map(|row| row.value.value.membership) {
            Some(Membership::Join) => Ok(()),
            _ => Err(error::forbidden("You are not in this room")),
        }
    }

    /// How somebody stands to this room: one round trip for who is in it, one more for each of their own
    /// member events since they were.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room is gone.
    pub async fn look(&self, snapshot: &Snapshot, viewer: &Viewer) -> error::Result<Look> {
        let mut reads = Reads::new();
        let asked = self.ask_look(&mut reads, viewer);
        let answers = snapshot.read(&reads).await?;
        self.answered_look(snapshot, &answers, &asked).await
    }

    /// Asks for what a [`Look`] is made of, among other things.
    pub(crate) fn ask_look(&self, reads: &mut Reads, viewer: &Viewer) -> AskedLook {
        AskedLook {
            head: reads.get(&schema::HEAD_BY_ROOM, &self.short),
            row: reads.get(&schema::ROOM_BY_USER, &(viewer.short, self.short)),
        }
    }

    /// Makes a [`Look`] of the answers.
    pub(crate) async fn answered_look(
        &self,
        snapshot: &Snapshot,
        answers: &Answers,
        asked: &AskedLook,
    ) -> error::Result<Look> {
        let head = answers
            .one(&asked.head)?
            .ok_or_else(|| error::forbidden("You are not in this room, or it does not exist"))?
            .value;
        let row = answers
            .one(&asked.row)?
            .map(|row| row.value.value)
            .filter(|row| !row.forgotten);
        let until = match &row {
            Some(row) if row.membership != Membership::Join => {
                self.until(snapshot, row.number).await?
            }
            _ => None,
        };
        Ok(Look { head, row, until })
    }

    /// Where the time in the room ended of somebody whose latest member event this is.
    async fn until(
        &self,
        snapshot: &Snapshot,
        latest: Option<EventNumber>,
    ) -> error::Result<Option<Until>> {
        let mut number = latest;
        let mut after: Option<Until> = None;
        for _ in 0..OWN_MEMBER_EVENTS_MAX {
            let Some(current) = number else { break };
            let mut reads = Reads::new();
            let key = (self.short, current);
            let row = reads.get(&schema::EVENT_BY_NUMBER, &key);
            let roots = reads.get(&schema::ROOTS_BY_EVENT, &key);
            let answers = snapshot.read(&reads).await?;
            let (Some(row), roots) = (answers.one(&row)?, answers.one(&roots)?) else {
                break;
            };
            if membership_in(&row.value) == Some(Membership::Join) {
                return Ok(after);
            }
            after = row
                .value
                .header
                .place
                .zip(roots)
                .map(|(place, roots)| Until {
                    place,
                    root: roots.value.after,
                });
            number = row.value.header.replaces_state;
        }
        Ok(None)
    }

    /// The viewer's membership in the states after some events, in their order: the tree is read only for
    /// those of which it is not known otherwise, all of these together.
    pub(crate) async fn memberships_after(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[&ReadEvent],
    ) -> error::Result<Vec<Option<Membership>>> {
        let known: Vec<_> = events
            .iter()
            .map(|event| look.known_after(viewer, event))
            .collect();
        let unknown = events
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none());
        let roots: BTreeSet<_> = unknown.map(|(event, _)| event.roots.after).collect();
        let read = self.memberships_at(snapshot, &roots, viewer).await?;
        let all = events.iter().zip(known);
        Ok(all
            .map(|(event, known)| known.unwrap_or_else(|| read.get(&event.roots.after).copied()))
            .collect())
    }

    /// The viewer's memberships that count at some events, in their order: that in the state after the
    /// event, and for their own member events also that before it.
    pub(crate) async fn memberships_around(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[&ReadEvent],
    ) -> error::Result<Vec<[Option<Membership>; 2]>> {
        let before: BTreeSet<_> = events
            .iter()
            .filter(|event| event.is_member_event_of(&viewer.user_id))
            .map(|event| event.roots.before)
            .collect();
        let after = self
            .memberships_after(snapshot, viewer, look, events)
            .await?;
        let before = self.memberships_at(snapshot, &before, viewer).await?;
        let own = |event: &ReadEvent| {
            let root = event.roots.before;
            let own = event.is_member_event_of(&viewer.user_id);
            own.then(|| before.get(&root).copied()).flatten()
        };
        let all = events.iter().zip(after);
        Ok(all.map(|(event, after)| [after, own(event)]).collect())
    }

    /// Somebody's membership in a state.
    pub async fn membership_at(
        &self,
        snapshot: &Snapshot,
        root: [u8; 16],
        viewer: &Viewer,
    ) -> error::Result<Option<Membership>> {
        let roots = BTreeSet::from([root]);
        let memberships = self.memberships_at(snapshot, &roots, viewer).await?;
        Ok(memberships.get(&root).copied())
    }

    /// Somebody's membership in the states of some roots. Roots in which they have none are left out.
    /// As many round trips as the tree has levels, and one.
    pub(crate) async fn memberships_at(
        &self,
        snapshot: &Snapshot,
        roots: &BTreeSet<[u8; 16]>,
        viewer: &Viewer,
    ) -> error::Result<HashMap<[u8; 16], Membership>> {
        if roots.is_empty() {
            return Ok(HashMap::new());
        }
        let roots: Vec<_> = roots.iter().copied().collect();
        let key = (StateEventType::RoomMember, viewer.user_id.to_string());
        let found = self.find_state(snapshot, &roots, &[key]).await?;
        let numbers: BTreeSet<_> = found.values().copied().collect();
        let keys: Vec<_> = numbers.iter().map(|number| (self.short, *number)).collect();
        let rows = snapshot.multi_get(&schema::EVENT_BY_NUMBER, &keys).await?;
        let memberships: HashMap<_, _> = numbers
            .into_iter()
            .zip(rows)
            .filter_map(|(number, row)| Some((number, membership_in(&row?.value)?)))
            .collect();
        Ok(found
            .into_iter()
            .filter_map(|((root, _), number)| Some((root, *memberships.get(&number)?)))
            .collect())
    }
}

/// The membership that a member event says.
pub fn membership_of(event: &ReadEvent) -> Option<Membership> {
    membership_in(&event.row)
}

/// The membership that the row of a member event says.
fn membership_in(row: &EventRow) -> Option<Membership> {
    let name = canonical::string(canonical::member(content_of(row), "membership")?)?;
    membership(&name)
}
