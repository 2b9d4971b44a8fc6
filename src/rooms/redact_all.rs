//! Takes away all that somebody has said in a room from which they are removed ([MSC4293]).
//!
//! A kick or a ban may ask for it. It then counts as a redaction of every event of theirs, as long as it is
//! what the room's current state says of them: those that are here are pruned by a job, lots at a time; those
//! that come later are pruned as they come.
//!
//! [MSC4293]: https://github.com/matrix-org/matrix-spec-proposals/pull/4293

use pdu::{EventNumber, canonical};
use ruma::{EventId, OwnedEventId, events::StateEventType};
use serde::{Deserialize, Serialize};
use storage::{
    Batch, Range, ShortRoomId, Storage, Topic,
    schema::{self, EventRow, JobRow, Place},
};

use crate::{Group, Rooms, StoredEvent};

/// The job of pruning all that somebody has said in a room.
pub(crate) const REDACT_ALL: &str = "redact all";
/// The key of a member event's content by which it asks for that.
pub const REDACT_EVENTS: &str = "org.matrix.msc4293.redact_events";

/// Events that are looked at together.
const AT_ONCE: usize = 200;
/// What those that are pruned in one commit have at most, in bytes before they are.
const PRUNED_MAX: usize = 200_000;

/// What a job is about: a kick or a ban.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Removal {
    room: ShortRoomId,
    member: EventNumber,
}

/// Events that are to be pruned because their sender was removed.
#[derive(Clone, Debug)]
pub(crate) struct Pruning {
    /// Whose they are.
    pub(crate) user: String,
    /// The kick or ban: nothing is pruned if the current state says something else of them.
    pub(crate) because: EventNumber,
    pub(crate) targets: Vec<OwnedEventId>,
}

/// Whether an event removes somebody from its room and asks that all they said goes too.
pub(crate) fn is_asked_by(event: &StoredEvent) -> bool {
    let content = event.pdu.content_bytes();
    let is = |key, value: &[u8]| canonical::member(content, key) == Some(value);
    event.header.event_type == "m.room.member"
        && event.header.state_key.as_deref() != Some(&event.header.sender)
        && (is("membership", b"\"ban\"") || is("membership", b"\"leave\""))
        && is(REDACT_EVENTS, b"true")
}

/// Leaves the job, if an event asks for it.
pub(crate) fn leave_job(
    storage: &Storage,
    batch: &mut Batch,
    room: ShortRoomId,
    event: &StoredEvent,
) {
    if !is_asked_by(event) {
        return;
    }
    let removal = Removal {
        room,
        member: event.number,
    };
    let job = JobRow {
        kind: REDACT_ALL.to_owned(),
        // Plain data into a vector has no way to fail.
        body: postcard::to_allocvec(&removal).unwrap_or_default(),
        not_before_ts: 0,
        attempts: 0,
    };
    let id = storage.hash("redact all job", job.body.as_slice());
    batch.put(&schema::JOB_BY_ID, &id, &job);
    batch.wake(Topic::Jobs);
}

impl Rooms {
    /// Works off a [`REDACT_ALL`]: from the newest event back to the first one, until something else is said
    /// of the removed one's membership.
    pub(crate) async fn redact_all(&self, row: &JobRow) -> error::Result<()> {
        let Removal { room, member } = postcard::from_bytes(&row.body).map_err(error::internal)?;
        let Some(room) = self.find_short(room).await? else {
            return Ok(());
        };
        let snapshot = self.snapshot().await?;
        let removal = room.stored_events(&snapshot, &[member]).await?.pop();
        let user = removal.and_then(|event| event.header.state_key.clone());
        let Some(user) = user else { return Ok(()) };
        let key = (StateEventType::RoomMember, user.clone());
        let mut before: Option<Place> = None;
        loop {
            let snapshot = self.snapshot().await?;
            let keys = std::slice::from_ref(&key);
            let (_, now) = room.current_numbers(self, &snapshot, keys).await?;
            if now != [Some(member)] {
                return Ok(());
            }
            let mut range = Range::prefix(&(room.short,)).reverse().limit(AT_ONCE);
            if let Some(before) = before {
                range = range.before(&(room.short, before));
            }
            let rows = snapshot
                .multi_range(&schema::EVENT_BY_PLACE, &[range])
                .await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let Some(((_, last), _)) = rows.last() else {
                return Ok(());
            };
            before = Some(*last);
            let numbers: Vec<_> = rows
                .iter()
                .map(|(_, row)| (room.short, row.value.number))
                .collect();
            let events = snapshot
                .multi_get(&schema::EVENT_BY_NUMBER, &numbers)
                .await?;
            let events = events.into_iter().flatten().map(|row| row.value);
            for targets in in_lots(events, &user) {
                let pruning = Pruning {
                    user: user.clone(),
                    because: member,
                    targets,
                };
                let group = Group {
                    pruning: Some(pruning),
                    ..Group::default()
                };
                self.send(&room, group).await?;
            }
        }
    }
}

/// The ids of those events that somebody has sent and that were not redacted, as many together as one commit
/// takes.
fn in_lots(events: impl Iterator<Item = EventRow>, user: &str) -> Vec<Vec<OwnedEventId>> {
    let mut lots: Vec<Vec<OwnedEventId>> = Vec::new();
    let mut bytes = PRUNED_MAX;
    for row in events {
        let header = &row.header;
        if header.sender != user || header.redacted_because.is_some() {
            continue;
        }
        let Ok(id) = EventId::parse(&header.event_id) else {
            continue;
        };
        bytes = bytes.saturating_add(row.json.len());
        match lots.last_mut().filter(|_| bytes <= PRUNED_MAX) {
            Some(lot) => lot.push(id),
            None => {
                bytes = row.json.len();
                lots.push(vec![id]);
            }
        }
    }
    lots
}
