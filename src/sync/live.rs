//! What a device waits for between its polls: the rooms that changed since it was last told.
//!
//! A device that polls on needs not be asked anew in which of its thousands of rooms something happened:
//! its wake-ups are collected while it is away. Who has none, or whose token is older, looks at the tails
//! of all its rooms instead; the answer is the same.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use storage::{NameHash, Position, ShortRoomId, ShortUserId, Storage, Subscription, Topic};

/// Devices whose wake-ups are collected, at most. Those beyond look at the tails of their rooms.
const LIVES_MAX: usize = 20_000;
/// Rooms of one device whose wake-ups are collected, at most.
const ROOMS_MAX: usize = 20_000;

/// The devices that were here lately.
#[derive(Debug, Default)]
pub(crate) struct Lives(Mutex<HashMap<(ShortUserId, NameHash), Live>>);

impl Lives {
    /// Takes what is known of a device, so that of two polls at once only one has it.
    pub(crate) fn take(&self, storage: &Storage, user: ShortUserId, device: NameHash) -> Live {
        let known = self.0.lock().remove(&(user, device));
        known.unwrap_or_else(|| Live::new(storage, user))
    }

    pub(crate) fn put_back(&self, user: ShortUserId, device: NameHash, live: Live) {
        let mut lives = self.0.lock();
        if lives.len() >= LIVES_MAX {
            let any = lives.keys().next().copied();
            any.and_then(|any| lives.remove(&any));
        }
        lives.insert((user, device), live);
    }
}

/// What is known of one device.
#[derive(Debug)]
pub(crate) struct Live {
    user: ShortUserId,
    subscription: Subscription,
    /// The joined rooms whose topics are subscribed to.
    joined: BTreeSet<ShortRoomId>,
    /// Whether `joined` are the device's rooms.
    complete: bool,
    /// Everything that changed after this position is among `changed`.
    base: Option<Position>,
    changed: BTreeSet<Topic>,
    /// The position up to which the last answer told everything.
    told: Option<Position>,
}

impl Live {
    fn new(storage: &Storage, user: ShortUserId) -> Self {
        Self {
            user,
            subscription: storage.subscribe(&[Topic::User(user)]),
            joined: BTreeSet::new(),
            complete: false,
            base: None,
            changed: BTreeSet::new(),
            told: None,
        }
    }

    /// Begins a poll of who knows everything up to `since`.
    pub(crate) fn begin(&mut self, since: Position) {
        if let Some(told) = self.told
            && told <= since
        {
            self.told = None;
            self.changed.clear();
            self.base = self.complete.then_some(told);
        }
        self.changed.extend(self.subscription.take());
    }

    /// What changed since, if that is known: the rooms, and whether anything of the user did.
    pub(crate) fn changed(&self, since: Position) -> Option<(BTreeSet<ShortRoomId>, bool)> {
        if !self.complete || self.base.is_none_or(|base| base > since) {
            return None;
        }
        let rooms = self.changed.iter().filter_map(|topic| match topic {
            Topic::Room(room) => Some(*room),
            _ => None,
        });
        let of_user = self.changed.contains(&Topic::User(self.user));
        Some((rooms.collect(), of_user))
    }

    /// Sees to it that exactly these rooms are waited for; whether one was not before.
    pub(crate) fn wait_for(&mut self, joined: &BTreeSet<ShortRoomId>) -> bool {
        self.complete = joined.len() <= ROOMS_MAX;
        let left: Vec<_> = self.joined.difference(joined).copied().collect();
        for room in left {
            self.subscription.remove(Topic::Room(room));
            self.joined.remove(&room);
        }
        let new: Vec<_> = joined
            .difference(&self.joined)
            .copied()
            .take(ROOMS_MAX.saturating_sub(self.joined.len()))
            .collect();
        let topics: Vec<_> = new.iter().copied().map(Topic::Room).collect();
        self.subscription.add(&topics);
        self.joined.extend(&new);
        !new.is_empty()
    }

    /// Nothing that concerns the device happened between `since` and now but what is in `changed`.
    pub(crate) fn nothing_new(&mut self, since: Position) {
        if self.complete {
            self.base = Some(self.base.map_or(since, |base| base.min(since)));
        }
    }

    /// Waits until something changes.
    pub(crate) async fn wait(&mut self) {
        let woken = self.subscription.woken().await;
        self.changed.extend(woken);
    }

    /// An answer told everything up to `position`.
    pub(crate) fn told(&mut self, position: Position) {
        self.told = Some(position);
    }
}
