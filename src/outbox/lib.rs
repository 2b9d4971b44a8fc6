//! What other servers are still to be told: events of rooms, messages to devices, changes of devices, and what
//! people do at this moment.
//!
//! The outbox follows the stream of positions ([`follow`]) and puts what this server made into lanes, one for
//! each other server ([`lanes`]). A lane sends one transaction after the other ([`send`]): what must not be lost
//! lies in storage until the server has acknowledged it, so a crash repeats something at most.
//!
//! A lane whose server does not answer, or does not keep up, is late: of each room it keeps one row, from
//! which event on the server was not told ([`late`]). So an outage costs rooms, not events, and holds up
//! nobody else.

mod came;
mod edus;
mod follow;
mod lanes;
mod late;
mod park;
mod send;
#[cfg(test)]
mod tests;
mod transaction;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use federation::Federation;
use parking_lot::Mutex;
use rooms::Rooms;
use ruma::{OwnedServerName, ServerName};
use storage::{Clock, Position, Random, Storage, Topic};
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use users::Users;

use self::{follow::Following, lanes::Lanes};

/// Wake-ups may get lost: look at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after storage has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Whoever waits until something was told looks so often whether it was.
const TOLD_EVERY: Duration = Duration::from_millis(50);
/// So many doings of people are looked at together.
const DOINGS_AT_ONCE: usize = 200;

/// What other servers are still to be told; clones share it.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

/// What the outbox is built on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where all is that is to be told.
    pub storage: Storage,
    /// The people.
    pub users: Users,
    /// The rooms.
    pub rooms: Rooms,
    /// The way to other servers.
    pub federation: Federation,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

struct Inner {
    parts: Parts,
    lanes: Mutex<Lanes>,
    /// How far the stream was read. Held by who reads on.
    following: tokio::sync::Mutex<Following>,
    /// There is something to send.
    ready: Notify,
    /// Tells the transactions of this process from those of others.
    run: u64,
    /// How many transactions there were.
    transactions: AtomicU64,
}

impl Outbox {
    /// An outbox over what `parts` name. It does nothing until [`Outbox::work`] is called.
    pub fn new(parts: Parts) -> Self {
        let mut run = [0; 8];
        parts.random.fill(&mut run);
        Self(Arc::new(Inner {
            parts,
            lanes: Mutex::default(),
            following: tokio::sync::Mutex::default(),
            ready: Notify::new(),
            run: u64::from_be_bytes(run),
            transactions: AtomicU64::new(0),
        }))
    }

    /// Tells other servers what they are to be told, until `stop` is done.
    pub async fn work(&self, stop: impl Future<Output = ()>) {
        let storage = &self.0.parts.storage;
        let wakes = storage.subscribe(&[Topic::Stream, Topic::Destinations]);
        let mut doings = self.0.parts.rooms.listen();
        let mut sending = JoinSet::new();
        let mut failed = self.look_or_say().await;
        tokio::pin!(stop);
        loop {
            let (due, next) = self.due(usize::MAX);
            for server in due {
                let outbox = self.clone();
                sending.spawn(async move { outbox.send_one(&server).await });
            }
            let wait = if failed {
                PAUSE
            } else {
                next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
            };
            tokio::select! {
                _ = wakes.woken() => failed = self.look_or_say().await,
                doing = doings.recv() => {
                    let mut some: Vec<_> = doing.into_iter().collect();
                    while some.len() < DOINGS_AT_ONCE && let Ok(doing) = doings.try_recv() {
                        some.push(doing);
                    }
                    if let Err(error) = self.take_doings(some).await {
                        tracing::warn!(%error, "other servers miss what people do");
                    }
                }
                Some(_) = sending.join_next() => {}
                () = self.0.ready.notified() => {}
                () = sleep(wait) => failed = self.look_or_say().await,
                () = &mut stop => break,
            }
        }
        sending.shutdown().await;
        let mut following = self.0.following.lock().await;
        if let Err(error) = self.save_place(&mut following, true).await {
            tracing::warn!(%error, "how far other servers were told could not be stored");
        }
    }

    /// Waits until all that the stream holds up to a position was told, or written down for servers that do not
    /// answer.
    pub async fn has_told(&self, until: Position) {
        loop {
            let stream = self.0.following.lock().await.reached();
            let waits = self.0.lanes.lock().place();
            if waits.unwrap_or(stream).min(stream) >= until {
                return;
            }
            sleep(TOLD_EVERY).await;
        }
    }

    /// A server spoke to us: what waits for it is sent now, whatever was wrong before.
    pub fn heard_from(&self, server: &ServerName) {
        if self.0.lanes.lock().heard_from(server) {
            self.0.ready.notify_one();
        }
    }

    /// Reads on; whether that failed.
    async fn look_or_say(&self) -> bool {
        let looked = self.look().await;
        if let Err(error) = &looked {
            tracing::error!(%error, "what other servers are to be told cannot be read");
        }
        looked.is_err()
    }

    /// Servers to which something is to be sent now, and which nobody else sends to, at most so many; then how
    /// long until the next one.
    fn due(&self, most: usize) -> (Vec<OwnedServerName>, Option<Duration>) {
        let now = self.now();
        let mut lanes = self.0.lanes.lock();
        let due = lanes.take_due(now, most);
        let next = lanes.next_due();
        let wait = |next: u64| Duration::from_millis(next.saturating_sub(now).max(1));
        (due, next.map(wait))
    }

    /// Milliseconds since 1970.
    fn now(&self) -> u64 {
        self.0.parts.clock.now().get().into()
    }

    fn storage(&self) -> &Storage {
        &self.0.parts.storage
    }

    fn rooms(&self) -> &Rooms {
        &self.0.parts.rooms
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.parts.rooms.server_name();
        f.debug_tuple("Outbox").field(&name).finish()
    }
}
