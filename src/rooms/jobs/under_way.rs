//! Jobs that are under way: several side by side, so that one which waits for another server holds up nobody.

use std::collections::{BTreeMap, HashMap};

use storage::{Found, NameHash, ShortUserId, schema::JobRow};
use tokio::task::{Id, JoinSet};
use users::job::{self, UserJob};

use super::is_own;
use crate::Rooms;

/// So many jobs go on side by side that may wait for other servers, and so many that do not.
const WAITING_AT_ONCE: usize = 16;
const OWN_AT_ONCE: usize = 4;
/// So many of each have been read and wait for their turn; others are read again then.
const QUEUE_MAX: usize = 500;

/// Jobs that are under way, and those whose turn is next.
#[derive(Debug)]
pub(super) struct UnderWay {
    tasks: JoinSet<error::Result<()>>,
    running: HashMap<Id, Running>,
    /// Jobs that may wait for other servers.
    waiting: Line,
    /// Jobs that this server does by itself: they never wait behind the others.
    own: Line,
}

/// Jobs of which some go on side by side.
#[derive(Debug)]
struct Line {
    at_once: usize,
    running: usize,
    queue: BTreeMap<NameHash, Found<JobRow>>,
    /// There may be more that is due than stands in the queue.
    more: bool,
}

/// A job that is being worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    id: NameHash,
    own: bool,
    member: Option<ShortUserId>,
}

impl Line {
    fn new(at_once: usize) -> Self {
        Self {
            at_once,
            running: 0,
            queue: BTreeMap::new(),
            more: false,
        }
    }

    /// Whether it has room for more than it knows of.
    fn wants_more(&self) -> bool {
        self.more && self.queue.is_empty() && self.running < self.at_once
    }
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            running: HashMap::new(),
            waiting: Line::new(WAITING_AT_ONCE),
            own: Line::new(OWN_AT_ONCE),
        }
    }
}

impl UnderWay {
    /// All that is due is about to be [added](Self::add).
    pub(super) fn begin_to_add(&mut self) {
        self.waiting.more = false;
        self.own.more = false;
    }

    /// Lets a job that is due stand in its line, in the place of what it was before.
    pub(super) fn add(&mut self, id: NameHash, row: Found<JobRow>) {
        let runs = self.running.values().any(|running| running.id == id);
        let line = self.line(is_own(&row.value.kind));
        // One that runs may have been asked for anew: that is seen when it has ended.
        if runs || (line.queue.len() >= QUEUE_MAX && !line.queue.contains_key(&id)) {
            line.more = true;
        } else {
            line.queue.insert(id, row);
        }
    }

    /// Begins what may begin.
    pub(super) fn begin(&mut self, rooms: &Rooms) {
        for own in [false, true] {
            while self.line(own).running < self.line(own).at_once
                && let Some((running, row)) = self.next(own)
            {
                let rooms = rooms.clone();
                let task = async move { rooms.work_off(running.id, &row).await };
                let task = self.tasks.spawn(task);
                self.running.insert(task.id(), running);
                self.line(own).running += 1;
            }
        }
    }

    /// Waits for the next job to end; none if none is under way.
    pub(super) async fn ended(&mut self) -> Option<error::Result<()>> {
        let ended = self.tasks.join_next_with_id().await?;
        let (task, done) = match ended {
            Ok((task, done)) => (task, done),
            Err(broken) => (broken.id(), Err(error::internal(broken))),
        };
        if let Some(running) = self.running.remove(&task) {
            let line = self.line(running.own);
            line.running = line.running.saturating_sub(1);
        }
        Some(done)
    }

    /// Whether there is room for jobs of which only storage knows.
    pub(super) fn wants_more(&self) -> bool {
        self.waiting.wants_more() || self.own.wants_more()
    }

    /// Breaks off what is under way. Every step may be repeated.
    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    fn line(&mut self, own: bool) -> &mut Line {
        if own {
            &mut self.own
        } else {
            &mut self.waiting
        }
    }

    /// Takes out the first job that does not get in the way of one that runs.
    fn next(&mut self, own: bool) -> Option<(Running, Found<JobRow>)> {
        let line = if own { &self.own } else { &self.waiting };
        let free = line.queue.iter().find_map(|(id, row)| {
            let member = member(&row.value);
            let taken = self
                .running
                .values()
                .any(|running| running.member == member);
            (member.is_none() || !taken).then_some(Running {
                id: *id,
                own,
                member,
            })
        });
        let running = free?;
        let row = self.line(own).queue.remove(&running.id)?;
        Some((running, row))
    }
}

/// The user whose memberships a job changes. Two such jobs of one user are not under way at once: who is to be
/// called something else in a room might come back into it while they leave it.
fn member(row: &JobRow) -> Option<ShortUserId> {
    let changes = matches!(row.kind.as_str(), job::PROFILE | job::DEACTIVATE);
    let job = changes.then(|| UserJob::from_row(row).ok()).flatten();
    job.map(|job| job.user)
}
