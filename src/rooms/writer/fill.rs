//! The end of a partial join (MSC3902): the whole state before the join is put below what happened since, all of
//! which is judged again (`fill/replay.rs`).

mod log;
mod replay;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use pdu::EventNumber;
use ruma::{OwnedServerName, UserId, events::StateEventType};
use storage::{
    Batch, CommitError, NameHash, Range, ShortRoomId, Snapshot,
    schema::{self, Generation, StateChange},
};

use self::replay::{Replayed, replay};
use super::{
    OldGeneration, TRIES_MAX,
    generation::{self, Written, drop_later},
    judge::{CurrentChange, Entry},
    load,
    needs::Needs,
};
use crate::{Room, Rooms, accept, partial::tell_late_changes};

/// Changed entries that are looked at together.
const ENTRIES_AT_ONCE: usize = 1_000;
/// Servers that are looked at, of one room.
const SERVERS_MAX: usize = 50_000;
/// People of ours in one room whose devices are told to servers that were left out.
const OURS_MAX: usize = 1_000;

/// What is put in its place.
#[derive(Clone, Debug)]
pub(crate) struct Filling {
    /// The number of the event by which we came in.
    pub(crate) join: EventNumber,
    /// The root of the whole state before it.
    pub(crate) whole: [u8; 16],
    /// The job that had it told, and its row: both end together.
    pub(crate) job: (NameHash, Bytes),
}

/// Puts the whole state in its place, if the room still lacks it.
pub(super) async fn fill(rooms: &Rooms, room: &Arc<Room>, filling: &Filling) -> error::Result<()> {
    for _ in 0..TRIES_MAX {
        if attempt(rooms, room, filling).await? {
            return Ok(());
        }
    }
    Err(error::internal("the room changes too fast to be written"))
}

/// One try: whether there is nothing left to do.
async fn attempt(rooms: &Rooms, room: &Arc<Room>, filling: &Filling) -> error::Result<bool> {
    let snapshot = rooms.snapshot().await?;
    let (id, raw) = &filling.job;
    let rows = snapshot.multi_get(&schema::JOB_BY_ID, &[*id]).await?;
    let row = rows.into_iter().flatten().next();
    let working = load::with_needs(rooms, room, &snapshot, &Needs::default(), None).await?;
    // It may be another join by now whose members are lacking.
    if !working.head.partial || row.is_none_or(|row| row.raw != *raw) {
        return Ok(true);
    }
    let next = working.head.next_number;
    let replayed = replay(rooms, room, filling.join, filling.whole, next).await?;
    let snapshot = rooms.snapshot().await?;
    let mut working = load::with_needs(rooms, room, &snapshot, &Needs::default(), None).await?;
    let new = replayed.root;
    let Seen { entries, state } = seen(rooms, room, working.head.root, new).await?;
    let snapshot = rooms.snapshot().await?;
    let events = entries
        .iter()
        .flat_map(|entry| [&entry.before, &entry.after]);
    let needs = Needs::of_changes(rooms.server_name(), events.flatten());
    load::more(rooms, &snapshot, &mut working, &needs).await?;
    let old = OldGeneration {
        room: room.short,
        generation: working.head.generation,
    };
    let written = generation::write(rooms, room, new, &[], old.generation, None).await?;
    tell_left_out(rooms, old, &written, &replayed).await?;
    log::rewrite(rooms, room, filling.join, &replayed).await?;
    let mut batch = Batch::new();
    batch.expect_equals(&schema::JOB_BY_ID, id, raw);
    batch.delete(&schema::JOB_BY_ID, id);
    drop_later(rooms, &mut batch, old);
    let snapshot = rooms.snapshot().await?;
    tell_late_changes(&snapshot, &mut batch, room.short, written.generation).await?;
    let change = CurrentChange {
        root: new,
        entries,
        written: Some(written),
    };
    let storage = rooms.storage();
    working.head.extremities = replayed.extremities;
    accept::fill(
        storage,
        &mut batch,
        &mut working,
        filling.join,
        change,
        state,
    );
    accept::finish(storage, &mut batch, &mut working, 1);
    match storage.commit(batch).await {
        Ok(_) => {
            rooms.have_moved(&working);
            Ok(true)
        }
        Err(CommitError::Unknown | CommitError::Conflict(_) | CommitError::TooOld) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Leaves it to be told what changed of the devices of people of ours to the servers that were thought not to be
/// in the room, or not all the time.
async fn tell_left_out(
    rooms: &Rooms,
    old: OldGeneration,
    written: &Written,
    replayed: &Replayed,
) -> error::Result<()> {
    let snapshot = rooms.snapshot().await?;
    let range = Range::prefix(&(old.room, old.generation)).limit(SERVERS_MAX);
    let told = snapshot
        .multi_range(&schema::SERVER_BY_ROOM, &[range])
        .await?;
    let told: BTreeSet<_> = told
        .into_iter()
        .flatten()
        .map(|(_, row)| row.value.name)
        .collect();
    let there = written.servers.iter().filter(|(_, row)| row.joined > 0);
    let there = there.map(|(server, _)| server).chain(&replayed.moved);
    let left_out = there.filter(|server| !told.contains(server.as_str()));
    let left_out: BTreeSet<OwnedServerName> = left_out.cloned().collect();
    if left_out.is_empty() {
        return Ok(());
    }
    for user in ours_in(rooms, &snapshot, old.room, written.generation).await? {
        users::publish_devices(rooms.storage(), user).await?;
        rooms.leave_device_news(user, &left_out).await?;
    }
    Ok(())
}

/// People of ours who are in a room, by a generation of its flat tables.
async fn ours_in(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: ShortRoomId,
    generation: Generation,
) -> error::Result<Vec<storage::ShortUserId>> {
    let storage = rooms.storage();
    let server = storage.server_hash(rooms.server_name());
    let range = Range::prefix(&(room, generation, server)).limit(OURS_MAX);
    let rows = snapshot
        .multi_range(&schema::MEMBER_BY_SERVER, &[range])
        .await?;
    let names = rows.into_iter().flatten().map(|((_, _, _, name), _)| name);
    let names: Vec<_> = names.collect();
    let join = schema::Membership::Join as u8;
    let keys: Vec<_> = names
        .iter()
        .map(|name| (room, generation, join, *name))
        .collect();
    let mut reads = storage::Reads::new();
    let joined = reads.get_all(&schema::MEMBER_BY_ROOM, &keys);
    let users = reads.get_all(&schema::USER_BY_NAME, &names);
    let answers = snapshot.read(&reads).await?;
    let all = answers.all(&joined)?.into_iter().zip(answers.all(&users)?);
    Ok(all
        .filter_map(|(joined, user)| joined.and(user))
        .map(|row| row.value)
        .collect())
}

/// What changes in the current state, as people see it.
struct Seen {
    /// What changes of people of ours.
    entries: Vec<Entry>,
    /// All that changes but members who become known; none if that is much.
    state: Option<Vec<StateChange>>,
}

async fn seen(rooms: &Rooms, room: &Room, old: [u8; 16], new: [u8; 16]) -> error::Result<Seen> {
    let snapshot = rooms.snapshot().await?;
    let differences = room.state_difference(&snapshot, old, new).await?;
    let own = rooms.server_name();
    let (mut entries, mut state) = (Vec::new(), Vec::new());
    for differences in differences.chunks(ENTRIES_AT_ONCE) {
        let snapshot: Snapshot = rooms.snapshot().await?;
        let numbers: Vec<_> = differences
            .iter()
            .flat_map(|one| [one.left, one.right])
            .flatten()
            .collect();
        let events = room.stored_events(&snapshot, &numbers).await?;
        let events: HashMap<_, _> = numbers.into_iter().zip(events).collect();
        for one in differences {
            let event = |number: Option<EventNumber>| events.get(&number?).cloned();
            let (before, after) = (event(one.left), event(one.right));
            let slot = after.as_ref().or(before.as_ref()).and_then(|event| {
                let (kind, key) = event.pdu.state_slot()?;
                Some((kind, key.to_owned()))
            });
            let Some(key) = slot else { continue };
            if state.len() <= accept::LOGGED_CHANGES_MAX
                && (before.is_some() || key.0 != StateEventType::RoomMember)
            {
                state.push(StateChange {
                    event_type: key.0.to_string(),
                    state_key: key.1.clone(),
                    before: one.left,
                    after: one.right,
                });
            }
            if UserId::parse(&key.1).is_ok_and(|user| user.server_name() == own) {
                entries.push(Entry { key, before, after });
            }
        }
    }
    let few = state.len() <= accept::LOGGED_CHANGES_MAX;
    Ok(Seen {
        entries,
        state: few.then_some(state),
    })
}
