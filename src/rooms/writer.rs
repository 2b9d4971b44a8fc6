//! The one way in which a room changes: a queue of what is to be written, drained into batches.
//!
//! All that waits is judged in order and written in one commit, so that a busy room's messages share
//! one sync of the log. The commit's precondition is the room's head: a second writer of the same room
//! (another process, or one made anew) costs a retry, never a wrong state.

mod fill;
mod generation;
mod graph;
mod incoming;
mod judge;
mod lay_down;
mod load;
mod needs;
mod receiving;
mod resolve;
mod tried;
mod working;

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use ruma::OwnedEventId;
use storage::{Batch, CommitError};
use tokio::sync::oneshot;

use self::receiving::Arriving;
pub(crate) use self::{
    fill::Filling,
    generation::{DROP_GENERATION, OldGeneration, Written, drop_generation},
    graph::GraphEvent,
    incoming::pruned_by,
    judge::{CurrentChange, Entry, Judged, Outcome, visibility_of},
    lay_down::{Laid, auth_ids, lay_down, lay_state},
    load::{flat_key, head_without_events, write_answer},
    needs::STRIPPED_STATE,
    tried::{Tried, tried},
    working::Working,
};
use crate::{Group, Room, Rooms, accept, partial::PartialJoin, policy_server::ToSign};

/// Events in one commit at most.
const EVENTS_MAX: usize = 1_000;
/// Content of one commit at most, in bytes: what a batch may have, less what we add to it.
const CONTENT_MAX: usize = 400_000;
/// Tries to commit before giving up.
const TRIES_MAX: usize = 20;
/// Views from which one event or group is judged, if they get too old.
const VIEWS_MAX: usize = 10;

type Answer = error::Result<Submitted>;

/// What became of a group.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// It is sent: the ids of its events.
    Sent(Vec<OwnedEventId>),
    /// Nothing was written: the room's policy server has to sign it first.
    ToSign(Box<ToSign>),
}

/// The writer of one room.
#[derive(Debug)]
pub(crate) struct RoomWriter {
    room: Arc<Room>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    draining: bool,
    arriving: VecDeque<Arriving>,
    filling: VecDeque<ToFill>,
    /// What the last commit left behind: good for the next one if the head is still the same.
    warm: Option<Box<Working>>,
}

/// The rest of a state that waits to be put in its place.
#[derive(Debug)]
struct ToFill {
    filling: Filling,
    answer: oneshot::Sender<error::Result<()>>,
}

/// On which way an event comes into a room that is no draft of ours.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// As all servers of the room hear of it.
    Heard,
    /// As all hear of it, but the room's policy server does not recommend it, for this reason.
    NotRecommended(String),
    /// It is ours, and was signed by others before anybody hears of it: the one draft of this group, the rows of
    /// which are written with it. If it is not accepted, nothing is.
    Ours(Arc<Group>),
    /// It was made with our help or handed to us: we tell the others.
    HandedOver,
    /// It is by it that this server comes into the room, where this is the state before it. What the room
    /// was to us earlier is left behind.
    Entering {
        /// The root of that state.
        root: [u8; 16],
        /// That state lacks members, who will be told later (MSC3902): by this job.
        partial: Option<Arc<PartialJoin>>,
    },
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    answer: oneshot::Sender<Answer>,
}

impl RoomWriter {
    pub(crate) fn new(room: Arc<Room>) -> Self {
        Self {
            room,
            queue: Mutex::default(),
        }
    }

    /// Sends a group: the ids of its events once they are stored, or what has to be signed by others before. Goes
    /// on when the caller does not.
    pub(crate) async fn submit(self: &Arc<Self>, rooms: &Rooms, group: Group) -> Answer {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(Waiting { group, answer });
            !std::mem::replace(&mut queue.draining, true)
        };
        if start {
            let (writer, rooms) = (Arc::clone(self), rooms.clone());
            tokio::spawn(async move { writer.drain(&rooms).await });
        }
        answered
            .await
            .map_err(|_| error::internal("the room's writer was stopped"))?
    }

    /// Puts the whole state in its place in a room of which we did not know all.
    pub(crate) async fn fill(
        self: &Arc<Self>,
        rooms: &Rooms,
        filling: Filling,
    ) -> error::Result<()> {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.queue.lock();
            queue.filling.push_back(ToFill { filling, answer });
            !std::mem::replace(&mut queue.draining, true)
        };
        if start {
            let (writer, rooms) = (Arc::clone(self), rooms.clone());
            tokio::spawn(async move { writer.drain(&rooms).await });
        }
        answered
            .await
            .map_err(|_| error::internal("the room's writer was stopped"))?
    }

    /// Writes what waits until nothing does: drafts and events of other servers by turns.
    async fn drain(&self, rooms: &Rooms) {
        loop {
            let (mut waiting, arriving, to_fill, mut warm) = {
                let mut queue = self.queue.lock();
                let waiting = queue.take();
                let arriving = queue.take_arriving();
                let to_fill = queue.filling.pop_front();
                if waiting.is_empty() && arriving.is_empty() && to_fill.is_none() {
                    queue.draining = false;
                    return;
                }
                (waiting, arriving, to_fill, queue.warm.take())
            };
            self.write(rooms, &mut waiting, &mut warm).await;
            if !arriving.is_empty() {
                // What they change in the state is not followed up: the next draft looks anew.
                warm = None;
                self.write_arriving(rooms, arriving).await;
            }
            if let Some(to_fill) = to_fill {
                warm = None;
                let filled = fill::fill(rooms, &self.room, &to_fill.filling).await;
                let _ = to_fill.answer.send(filled);
            }
            self.queue.lock().warm = warm;
        }
    }

    /// Judges, commits and answers what was taken from the queue.
    async fn write(
        &self,
        rooms: &Rooms,
        waiting: &mut Vec<Waiting>,
        warm: &mut Option<Box<Working>>,
    ) {
        let mut sent = Vec::new();
        let mut views = 1;
        for _ in 0..TRIES_MAX {
            waiting.retain(|one| !one.answer.is_closed());
            if waiting.is_empty() {
                return;
            }
            match self.attempt(rooms, waiting, warm, &mut sent).await {
                Ok(Attempt::Done) => return,
                // With few at a time the one that cannot be stored does not take others with it.
                Ok(Attempt::Split) => {
                    let mut rest = waiting.split_off(1);
                    Box::pin(self.write(rooms, waiting, warm)).await;
                    Box::pin(self.write(rooms, &mut rest, warm)).await;
                    return;
                }
                Ok(Attempt::Again) => {}
                // Nothing was judged yet.
                Err(error) if error.is_too_busy() && views < VIEWS_MAX => views += 1,
                Err(error) => {
                    *warm = None;
                    let text = error.to_string();
                    let mut error = Some(error);
                    for one in waiting.drain(..) {
                        let error = error
                            .take()
                            .unwrap_or_else(|| error::internal(text.clone()));
                        let _ = one.answer.send(Err(error));
                    }
                    return;
                }
            }
        }
        for one in waiting.drain(..) {
            let _ = one.answer.send(Err(error::internal(
                "the room changes too fast to be written",
            )));
        }
    }

    /// One try. `sent` holds the ids of the events of the try before, if its outcome is not known.
    async fn attempt(
        &self,
        rooms: &Rooms,
        waiting: &mut Vec<Waiting>,
        warm: &mut Option<Box<Working>>,
        sent: &mut Vec<Vec<OwnedEventId>>,
    ) -> error::Result<Attempt> {
        // What was only pruned leaves no new event behind: it is done again.
        if sent.iter().any(|ids| !ids.is_empty()) && load::are_stored(rooms, sent.concat()).await? {
            let known = std::mem::take(sent);
            // Those without events were answered when they were judged.
            waiting.drain(..).zip(known).for_each(|(one, ids)| {
                let _ = one.answer.send(Ok(Submitted::Sent(ids)));
            });
            return Ok(Attempt::Done);
        }
        sent.clear();

        let groups: Vec<_> = waiting.iter().map(|one| &one.group).collect();
        let mut working = load::working(rooms, &self.room, &groups, warm.take()).await?;
        let mut batch = Batch::new();
        let mut index = 0;
        let mut keep = Vec::new();
        for one in waiting.drain(..) {
            let judged = match working.judge_group(rooms, &one.group).await {
                Ok(judged) => judged,
                Err(error) => {
                    let _ = one.answer.send(Err(error));
                    continue;
                }
            };
            if judged.is_empty() && one.group.pruning.is_none() {
                let ids = Submitted::Sent(working.answers(&one.group));
                let _ = one.answer.send(Ok(ids));
                continue;
            }
            if let Some((policy, events)) = working.policy_server_for(rooms, &one.group, &judged) {
                let to_sign = ToSign::new(one.group, policy, events);
                let _ = one.answer.send(Ok(Submitted::ToSign(Box::new(to_sign))));
                continue;
            }
            let mut ids = Vec::new();
            for outcome in judged {
                if let Some(judged) = outcome.new {
                    let storage = rooms.storage();
                    accept::accept(storage, &mut batch, &mut working, judged, index);
                    index += 1;
                }
                ids.push(outcome.event_id);
            }
            if let Some(pruning) = &one.group.pruning {
                let storage = rooms.storage();
                index = accept::prune_all(storage, &mut batch, &mut working, pruning, index);
            }
            accept::finish_group(&mut batch, &one.group, &ids);
            working.remember(&one.group, &ids);
            sent.push(ids);
            keep.push(one);
        }
        *waiting = keep;
        if waiting.is_empty() {
            *warm = Some(working);
            return Ok(Attempt::Done);
        }
        if index > 0 {
            accept::finish(rooms.storage(), &mut batch, &mut working, index);
        }
        match rooms.storage().commit(batch).await {
            Ok(_) => {
                rooms.have_moved(&working);
                working.committed();
                *warm = Some(working);
                for (one, ids) in waiting.drain(..).zip(std::mem::take(sent)) {
                    let _ = one.answer.send(Ok(Submitted::Sent(ids)));
                }
                Ok(Attempt::Done)
            }
            Err(CommitError::Unknown) => Ok(Attempt::Again),
            Err(CommitError::Conflict(_) | CommitError::Done(_) | CommitError::TooOld) => {
                sent.clear();
                Ok(if waiting.len() > 1 {
                    Attempt::Split
                } else {
                    Attempt::Again
                })
            }
            Err(CommitError::TooLarge) if waiting.len() > 1 => {
                sent.clear();
                Ok(Attempt::Split)
            }
            Err(CommitError::TooLarge) => {
                Err(error::too_large("This is too much to store at once"))
            }
            Err(error) => Err(error::internal(error)),
        }
    }
}

enum Attempt {
    /// Everything was answered.
    Done,
    /// Something was in the way: try again.
    Again,
    /// One of them may be in the way of the others: try each by itself.
    Split,
}

impl Queue {
    /// What fits into one commit, in the order in which it came.
    fn take(&mut self) -> Vec<Waiting> {
        let (mut events, mut content) = (0, 0);
        let mut taken = Vec::new();
        while let Some(next) = self.waiting.front() {
            events += next.group.drafts.len();
            content += next
                .group
                .drafts
                .iter()
                .map(|d| d.content.get().len())
                .sum::<usize>();
            if !taken.is_empty() && (events > EVENTS_MAX || content > CONTENT_MAX) {
                break;
            }
            taken.extend(self.waiting.pop_front());
        }
        taken
    }
}
