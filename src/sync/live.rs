//! What a device waits for, kept between its polls.
//!
//! A device that polls on needs not wait anew for each of its thousands of rooms: what it waits for stays
//! as it is until its rooms change. What happened is never decided by who was woken, only when to look: a
//! device that was told everything, and that nothing woke since, is told so without a look.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use storage::{NameHash, Position, ShortRoomId, ShortUserId, Storage, Subscription, Topic};

use crate::{Request, Token, Update, device::OfDevice, members::KnownMembers};

/// Devices that are remembered, at most.
const LIVES_MAX: usize = 20_000;
/// Rooms that all devices wait for together while they are away, and members whom they know, at most.
const ENTRIES_MAX: usize = 2_000_000;

/// The devices that were here lately.
#[derive(Debug, Default)]
pub(crate) struct Lives(Mutex<Away>);

#[derive(Debug, Default)]
struct Away {
    devices: HashMap<(ShortUserId, NameHash), Live>,
    entries: usize,
}

impl Lives {
    /// Takes what is known of a device, so that of two polls at once only one has it.
    pub(crate) fn take(&self, storage: &Storage, user: ShortUserId, device: NameHash) -> Live {
        let known = self.0.lock().remove((user, device));
        known.unwrap_or_else(|| Live::new(storage, user))
    }

    pub(crate) fn put_back(&self, user: ShortUserId, device: NameHash, live: Live) {
        let mut away = self.0.lock();
        away.remove((user, device));
        let too_much = |away: &Away| {
            away.devices.len() >= LIVES_MAX || away.entries + live.entries() > ENTRIES_MAX
        };
        while too_much(&away)
            && let Some(any) = away.devices.keys().next().copied()
        {
            away.remove(any);
        }
        away.entries += live.entries();
        away.devices.insert((user, device), live);
    }
}

impl Away {
    fn remove(&mut self, device: (ShortUserId, NameHash)) -> Option<Live> {
        let live = self.devices.remove(&device)?;
        self.entries -= live.entries();
        Some(live)
    }
}

/// What one device waits for.
#[derive(Debug)]
pub(crate) struct Live {
    subscription: Subscription,
    joined: BTreeSet<ShortRoomId>,
    /// The members whom it knows, if it loads them lazily.
    pub(crate) members: KnownMembers,
    /// Up to here the messages that it has were removed.
    pub(crate) removed: Position,
    /// Set where the last look found everything, and all that it waits for was waited for before.
    up_to_date: Option<UpToDate>,
}

/// What a device was told with everything else.
#[derive(Debug)]
struct UpToDate {
    /// With this token.
    token: Token,
    /// What it is told again each time.
    of_device: OfDevice,
}

impl Live {
    pub(crate) fn new(storage: &Storage, user: ShortUserId) -> Self {
        Self {
            subscription: storage.subscribe(&[Topic::User(user)]),
            joined: BTreeSet::new(),
            members: KnownMembers::default(),
            removed: Position::START,
            up_to_date: None,
        }
    }

    /// What a device is told that goes on from the token of its last answer, if that told it everything and
    /// nothing woke it since: that nothing happened.
    pub(crate) fn nothing_new(&self, request: &Request) -> Option<(Update, Token)> {
        let known = self.up_to_date.as_ref()?;
        let goes_on = request.since == Some(known.token) && !request.full_state;
        if !goes_on || self.subscription.may_be_behind() {
            return None;
        }
        let update = Update {
            of_device: known.of_device.clone(),
            ..Update::default()
        };
        Some((update, known.token))
    }

    /// Keeps what a look found, with which the device gets this token.
    pub(crate) fn looked(&mut self, request: &Request, update: &Update, token: Token) {
        let everything = request.device.is_some() && update.of_device.has_all_messages();
        self.up_to_date = everything.then(|| UpToDate {
            token,
            of_device: update.of_device.without_messages(),
        });
    }

    fn entries(&self) -> usize {
        self.joined.len() + self.members.len()
    }

    /// Forgets what was woken: a look at everything follows.
    pub(crate) fn clear(&mut self) {
        self.up_to_date = None;
        self.subscription.take();
    }

    /// Sees to it that exactly these rooms are waited for; whether one was not before.
    pub(crate) fn follow(&mut self, joined: &BTreeSet<ShortRoomId>) -> bool {
        if self.joined == *joined {
            return false;
        }
        for left in self.joined.difference(joined) {
            self.subscription.remove(Topic::Room(*left));
        }
        let new: Vec<_> = joined
            .difference(&self.joined)
            .map(|room| Topic::Room(*room))
            .collect();
        self.subscription.add(&new);
        self.joined.clone_from(joined);
        !new.is_empty()
    }

    /// Waits until something is woken.
    pub(crate) async fn wait(&self) {
        self.subscription.woken().await;
    }
}
