//! Who is typing, in memory only ([spec]).
//!
//! A room's typists carry a serial from one counter of the process; a reader that remembers the counter
//! and the run of the process knows whose rooms changed since.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use storage::{ShortRoomId, Topic};

use crate::{Room, Rooms};

/// Typing ends after this time, however long a client asks for.
const LONGEST: Duration = Duration::from_secs(120);
/// Rooms in which somebody types, and typists in a room, at most; more are not told of.
const ROOMS_MAX: usize = 100_000;
const TYPISTS_MAX: usize = 100;
/// Rooms without typists are forgotten after this time; who has not asked for so long learns nothing new.
const FORGOTTEN_AFTER: u64 = 10 * 60 * 1000;

/// Who types where.
#[derive(Debug)]
pub(crate) struct Typing {
    run: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    serial: u64,
    rooms: HashMap<ShortRoomId, Typists>,
}

#[derive(Debug, Default)]
struct Typists {
    serial: u64,
    changed_ts: u64,
    /// Who, and until when, in milliseconds since 1970.
    users: Vec<(OwnedUserId, u64)>,
}

/// Who types in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypingNow {
    /// When that last changed: a number that rises with every change in any room.
    pub serial: u64,
    /// Who.
    pub users: Vec<OwnedUserId>,
}

impl Typing {
    pub(crate) fn new(run: u64) -> Self {
        Self {
            run,
            inner: Mutex::default(),
        }
    }
}

impl Rooms {
    /// Names this run of the process: serials of typing mean nothing in another one.
    pub fn typing_run(&self) -> u64 {
        self.typing_state().run
    }

    /// The latest serial that was given to a change of typing.
    pub fn typing_serial(&self) -> u64 {
        self.typing_state().inner.lock().serial
    }

    /// Says that somebody types for so long, or has stopped.
    pub fn set_typing(&self, room: &Room, user: &UserId, lasts: Option<Duration>) {
        let now = self.now();
        let until = lasts.map(|lasts| {
            let lasts = u64::try_from(lasts.min(LONGEST).as_millis()).unwrap_or(u64::MAX);
            now.saturating_add(lasts)
        });
        let changed = self
            .typing_state()
            .inner
            .lock()
            .set(room.short, user, until, now);
        if changed {
            self.storage().wake(&[Topic::Room(room.short)]);
        }
        if let (Some(_), Some(lasts)) = (until, lasts) {
            self.end_typing_later(room.short, lasts.min(LONGEST));
        }
    }

    /// Who types in a room; none if nobody has for long.
    pub fn typing(&self, room: ShortRoomId) -> Option<TypingNow> {
        let inner = self.typing_state().inner.lock();
        let typists = inner.rooms.get(&room)?;
        Some(TypingNow {
            serial: typists.serial,
            users: typists.users.iter().map(|(user, _)| user.clone()).collect(),
        })
    }

    /// Ends what has run out, once `lasts` is over.
    fn end_typing_later(&self, room: ShortRoomId, lasts: Duration) {
        let rooms = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            let now = rooms.now();
            let ended = rooms.typing_state().inner.lock().expire(room, now);
            if ended {
                rooms.storage().wake(&[Topic::Room(room)]);
            }
        });
    }
}

impl Inner {
    /// Whether anything changed.
    fn set(&mut self, room: ShortRoomId, user: &UserId, until: Option<u64>, now: u64) -> bool {
        if !self.rooms.contains_key(&room) {
            if until.is_none() {
                return false;
            }
            self.make_place(now);
            if self.rooms.len() >= ROOMS_MAX {
                return false;
            }
        }
        let typists = self.rooms.entry(room).or_default();
        let at = typists.users.iter().position(|(other, _)| other == user);
        match (at, until) {
            (Some(at), Some(until)) => {
                if let Some(typist) = typists.users.get_mut(at) {
                    typist.1 = until;
                }
                return false;
            }
            (Some(at), None) => drop(typists.users.remove(at)),
            (None, Some(until)) if typists.users.len() < TYPISTS_MAX => {
                typists.users.push((user.to_owned(), until));
            }
            (None, _) => return false,
        }
        self.changed(room, now);
        true
    }

    /// Whether anybody's time had run out.
    fn expire(&mut self, room: ShortRoomId, now: u64) -> bool {
        let Some(typists) = self.rooms.get_mut(&room) else {
            return false;
        };
        let before = typists.users.len();
        typists.users.retain(|(_, until)| *until > now);
        if typists.users.len() == before {
            return false;
        }
        self.changed(room, now);
        true
    }

    fn changed(&mut self, room: ShortRoomId, now: u64) {
        self.serial += 1;
        if let Some(typists) = self.rooms.get_mut(&room) {
            typists.serial = self.serial;
            typists.changed_ts = now;
        }
    }

    fn make_place(&mut self, now: u64) {
        if self.rooms.len() < ROOMS_MAX {
            return;
        }
        self.rooms.retain(|_, typists| {
            !typists.users.is_empty() || typists.changed_ts + FORGOTTEN_AFTER > now
        });
    }
}
