//! Wake-ups: who waits for what.

use std::{
    collections::{BTreeSet, HashMap},
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Topic;

/// Where wake-ups may come late or get lost, as between processes, nobody waits longer than this for one.
const BACKSTOP: Duration = Duration::from_millis(250);

/// Who waits for which topics.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    waiting: Mutex<HashMap<Topic, Vec<Weak<Waiting>>>>,
    backstop: Option<Duration>,
}

#[derive(Debug, Default)]
struct Waiting {
    woken: Mutex<BTreeSet<Topic>>,
    notify: Notify,
}

/// A wait for topics that misses nothing: make it, read a snapshot, then wait, then look again.
///
/// It collects the topics that were woken, each once, however long nobody asks.
#[derive(Debug)]
pub struct Subscription {
    waiting: Arc<Waiting>,
    wakeups: Arc<Wakeups>,
}

impl Wakeups {
    /// For an engine that cannot promise to wake everybody in time.
    pub(crate) fn with_backstop() -> Self {
        Self {
            backstop: Some(BACKSTOP),
            ..Self::default()
        }
    }

    pub(crate) fn subscribe(self: &Arc<Self>, topics: &[Topic]) -> Subscription {
        let subscription = Subscription {
            waiting: Arc::default(),
            wakeups: Arc::clone(self),
        };
        subscription.add(topics);
        subscription
    }

    pub(crate) fn wake(&self, topics: &[Topic]) {
        let mut waiting_by_topic = self.waiting.lock();
        for topic in topics {
            let Some(waiting) = waiting_by_topic.get_mut(topic) else {
                continue;
            };
            waiting.retain(|waiting| {
                let Some(waiting) = waiting.upgrade() else {
                    return false;
                };
                waiting.woken.lock().insert(*topic);
                waiting.notify.notify_one();
                true
            });
            if waiting.is_empty() {
                waiting_by_topic.remove(topic);
            }
        }
    }
}

impl Subscription {
    /// Waits for these topics too.
    pub fn add(&self, topics: &[Topic]) {
        let mut waiting_by_topic = self.wakeups.waiting.lock();
        for topic in topics {
            let waiting = waiting_by_topic.entry(*topic).or_default();
            waiting.retain(|other| other.strong_count() > 0);
            if !waiting
                .iter()
                .any(|other| other.as_ptr() == Arc::as_ptr(&self.waiting))
            {
                waiting.push(Arc::downgrade(&self.waiting));
            }
        }
    }

    /// Waits for this topic no more.
    pub fn remove(&self, topic: Topic) {
        let mut waiting_by_topic = self.wakeups.waiting.lock();
        if let Some(waiting) = waiting_by_topic.get_mut(&topic) {
            waiting.retain(|other| other.as_ptr() != Arc::as_ptr(&self.waiting));
            if waiting.is_empty() {
                waiting_by_topic.remove(&topic);
            }
        }
    }

    /// Waits until something was woken since the last call, and tells what: nothing, after a while, where
    /// wake-ups may get lost. Whoever waits looks again either way.
    pub async fn woken(&self) -> BTreeSet<Topic> {
        let backstop = async {
            match self.wakeups.backstop {
                Some(time) => tokio::time::sleep(time).await,
                None => pending().await,
            }
        };
        tokio::pin!(backstop);
        loop {
            let woken = self.take();
            if !woken.is_empty() {
                return woken;
            }
            tokio::select! {
                () = self.waiting.notify.notified() => {}
                () = &mut backstop => return self.take(),
            }
        }
    }

    /// Whether something may have happened to its topics since what was woken was last taken: it was woken,
    /// or wake-ups may get lost. All that was committed, and acknowledged, before this call counts.
    pub fn may_be_behind(&self) -> bool {
        self.wakeups.backstop.is_some() || !self.waiting.woken.lock().is_empty()
    }

    /// What was woken since the last call; nothing if nothing was.
    pub fn take(&self) -> BTreeSet<Topic> {
        std::mem::take(&mut *self.waiting.woken.lock())
    }
}
