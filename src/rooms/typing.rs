//! Who is typing ([spec]): in memory only, for as long as their clients say so.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, UserId};
use storage::{Clock, ShortRoomId, Storage, Topic};

use crate::{
    Parts, Room,
    doings::{Doing, Doings},
};

/// Nobody types for longer without saying so again.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// So many people of a room are told apart; who types beside them is not shown.
const TYPERS_MAX: usize = 100;
/// Other servers take somebody for silent who is not said to type again within a minute; in milliseconds.
const TOLD_AGAIN: u64 = 40_000;
/// So many rooms are remembered; those in which nobody types any more are forgotten first.
const ROOMS_MAX: usize = 50_000;

/// Counts what changes in memory only: typing, presence. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Serials(Arc<AtomicU64>);

impl Serials {
    /// The serial of the latest change: everything up to it can be seen.
    pub fn latest(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The serial of a change. To be taken under the lock under which the change is made, so that who
    /// read [`Serials::latest`] and then takes the lock sees it.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// Who is typing in which rooms. Clones share it.
#[derive(Clone, Debug)]
pub struct Typing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    clock: Clock,
    server_name: OwnedServerName,
    serials: Serials,
    doings: Doings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rooms: HashMap<ShortRoomId, InRoom>,
    /// The greatest serial of a room that was forgotten.
    forgotten: u64,
}

/// Who types in a room, in the order in which they began.
#[derive(Debug, Default)]
struct InRoom {
    serial: u64,
    typers: Vec<Typer>,
    /// Somebody waits for the time at which the next one falls silent.
    timed: bool,
}

/// Somebody who types.
#[derive(Debug)]
struct Typer {
    user: OwnedUserId,
    /// Until when, in milliseconds since 1970 as all here.
    until: u64,
    /// When other servers were last told.
    told_ts: u64,
}

/// Who is typing in a room now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypingNow {
    /// When that last changed. Whoever has seen a lesser serial of this process has something to learn.
    pub serial: u64,
    /// Who is typing.
    pub users: Vec<OwnedUserId>,
}

impl Typing {
    pub(crate) fn new(parts: &Parts, serials: &Serials, doings: &Doings) -> Self {
        Self(Arc::new(Inner {
            storage: parts.storage.clone(),
            clock: parts.clock.clone(),
            server_name: parts.server_name.clone(),
            serials: serials.clone(),
            doings: doings.clone(),
            state: Mutex::default(),
        }))
    }

    /// Says that a member of a room is typing, for so long at most unless they say so again, or that they
    /// no longer do.
    pub fn set(&self, room: &Room, user: &UserId, timeout: Option<Duration>) {
        let now = self.now();
        let (changed, watch) = {
            let mut state = self.0.state.lock();
            if timeout.is_some() {
                state.make_room(room.short);
            }
            let Some(in_room) = state.rooms.get_mut(&room.short) else {
                return;
            };
            let silent = in_room.expire(now);
            let mut changed = !silent.is_empty();
            self.fell_silent(room.short, silent);
            changed |= match timeout {
                Some(timeout) => in_room.start(user, until(now, timeout)),
                None => in_room.stop(user),
            };
            if let Some(typing) = in_room.word_of(user, timeout.is_some(), changed, now) {
                self.tell(room.short, user.to_owned(), typing);
            }
            if changed {
                in_room.serial = self.0.serials.next();
            }
            let watch = !in_room.timed && !in_room.typers.is_empty();
            in_room.timed |= watch;
            (changed, watch)
        };
        if changed {
            self.0.storage.wake(&[Topic::Room(room.short)]);
        }
        if watch {
            let (typing, room) = (self.clone(), room.short);
            tokio::spawn(async move { typing.watch(room).await });
        }
    }

    /// Who is typing in a room now.
    pub fn in_room(&self, room: ShortRoomId) -> TypingNow {
        let now = self.now();
        let mut state = self.0.state.lock();
        let forgotten = state.forgotten;
        let Some(in_room) = state.rooms.get_mut(&room) else {
            // It may be one of those that were forgotten, and then nobody is typing there.
            return TypingNow {
                serial: forgotten,
                users: Vec::new(),
            };
        };
        let silent = in_room.expire(now);
        if !silent.is_empty() {
            in_room.serial = self.0.serials.next();
            self.fell_silent(room, silent);
        }
        let users = in_room.typers.iter().map(|typer| typer.user.clone());
        TypingNow {
            serial: in_room.serial,
            users: users.collect(),
        }
    }

    fn fell_silent(&self, room: ShortRoomId, users: Vec<OwnedUserId>) {
        for user in users {
            self.tell(room, user, false);
        }
    }

    /// Other servers are told of people of this one.
    fn tell(&self, room: ShortRoomId, user: OwnedUserId, typing: bool) {
        if user.server_name() == self.0.server_name {
            let doing = Doing::Types { room, user, typing };
            self.0.doings.tell(doing);
        }
    }

    /// Rooms in which somebody began or ceased to type after a serial of this process.
    pub fn changed_since(&self, serial: u64) -> Vec<ShortRoomId> {
        let state = self.0.state.lock();
        let changed = state
            .rooms
            .iter()
            .filter(|(_, in_room)| in_room.serial > serial);
        changed.map(|(room, _)| *room).collect()
    }

    /// Waits for those who fall silent, until nobody types in the room.
    async fn watch(&self, room: ShortRoomId) {
        while let Some(wait) = self.next_silence(room) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes out who has fallen silent. How long until the next one does; none if nobody is left, and then
    /// nobody waits any more.
    fn next_silence(&self, room: ShortRoomId) -> Option<Duration> {
        let now = self.now();
        let (changed, next) = {
            let mut state = self.0.state.lock();
            let in_room = state.rooms.get_mut(&room)?;
            let silent = in_room.expire(now);
            let changed = !silent.is_empty();
            if changed {
                in_room.serial = self.0.serials.next();
                self.fell_silent(room, silent);
            }
            let next = in_room.typers.iter().map(|typer| typer.until).min();
            in_room.timed = next.is_some();
            (changed, next)
        };
        if changed {
            self.0.storage.wake(&[Topic::Room(room)]);
        }
        next.map(|until| Duration::from_millis(until.saturating_sub(now).max(1)))
    }

    fn now(&self) -> u64 {
        self.0.clock.now().get().into()
    }
}

impl State {
    /// Makes sure that there is an entry for a room, if there is space for one.
    fn make_room(&mut self, room: ShortRoomId) {
        if self.rooms.contains_key(&room) {
            return;
        }
        if self.rooms.len() >= ROOMS_MAX {
            let forgotten = &mut self.forgotten;
            self.rooms.retain(|_, in_room| {
                let keep = !in_room.typers.is_empty();
                if !keep {
                    *forgotten = in_room.serial.max(*forgotten);
                }
                keep
            });
        }
        if self.rooms.len() < ROOMS_MAX {
            self.rooms.insert(room, InRoom::default());
        }
    }
}

impl InRoom {
    fn start(&mut self, user: &UserId, until: u64) -> bool {
        if let Some(typer) = self.typers.iter_mut().find(|typer| typer.user == user) {
            typer.until = until;
            return false;
        }
        let space = self.typers.len() < TYPERS_MAX;
        if space {
            self.typers.push(Typer {
                user: user.to_owned(),
                until,
                told_ts: 0,
            });
        }
        space
    }

    fn stop(&mut self, user: &UserId) -> bool {
        let before = self.typers.len();
        self.typers.retain(|typer| typer.user != user);
        self.typers.len() < before
    }

    /// Takes out who has fallen silent.
    fn expire(&mut self, now: u64) -> Vec<OwnedUserId> {
        let silent = self.typers.extract_if(.., |typer| typer.until <= now);
        silent.map(|typer| typer.user).collect()
    }

    /// What other servers are to be told of somebody who began to type, went on or ceased to.
    fn word_of(&mut self, user: &UserId, types: bool, changed: bool, now: u64) -> Option<bool> {
        if !types {
            return changed.then_some(false);
        }
        let typer = self.typers.iter_mut().find(|typer| typer.user == user)?;
        if typer.told_ts > 0 && typer.told_ts + TOLD_AGAIN > now {
            return None;
        }
        typer.told_ts = now;
        Some(true)
    }
}

fn until(now: u64, timeout: Duration) -> u64 {
    let timeout = timeout.min(TIMEOUT_MAX).as_millis();
    now.saturating_add(u64::try_from(timeout).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use pdu::RoomRules;
    use ruma::{RoomVersionId, owned_user_id};

    use super::*;

    struct World {
        storage: Storage,
        clock: Clock,
        typing: Typing,
    }

    fn world() -> World {
        let (storage, clock) = (Storage::model(), Clock::standing_at(1_000_000));
        let rooms = crate::tests::rooms(storage.clone());
        let parts = Parts {
            clock: clock.clone(),
            ..rooms.parts().clone()
        };
        let typing = Typing::new(&parts, &Serials::default(), &Doings::default());
        World {
            storage,
            clock,
            typing,
        }
    }

    fn room(world: &World, number: u64) -> Room {
        let rules = RoomRules::of(&RoomVersionId::V11).unwrap();
        let short = ShortRoomId(number.to_be_bytes());
        Room::new(
            &world.storage,
            short,
            "!room:example.org".try_into().unwrap(),
            rules,
        )
    }

    const SECONDS: fn(u64) -> Option<Duration> = |seconds| Some(Duration::from_secs(seconds));

    #[tokio::test]
    async fn who_types_is_seen_until_they_stop_or_the_time_is_over() {
        let world = world();
        let (one, other) = (room(&world, 1), room(&world, 2));
        let (alice, bob) = (
            owned_user_id!("@a:example.org"),
            owned_user_id!("@b:example.org"),
        );
        let typing = &world.typing;
        let waits = world.storage.subscribe(&[Topic::Room(one.short)]);
        typing.set(&one, &alice, SECONDS(10));
        typing.set(&one, &bob, SECONDS(20));
        assert_eq!(waits.take().len(), 1);
        let now = typing.in_room(one.short);
        assert_eq!(now.users, [alice.clone(), bob.clone()]);
        assert_eq!(typing.in_room(other.short), TypingNow::default());

        typing.set(&one, &alice, SECONDS(10));
        assert_eq!(typing.in_room(one.short), now, "nothing new");
        assert!(waits.take().is_empty());

        world.clock.advance(Duration::from_secs(11));
        assert_eq!(typing.changed_since(now.serial), []);
        typing.next_silence(one.short).unwrap();
        assert_eq!(waits.take().len(), 1);
        assert_eq!(typing.changed_since(now.serial), [one.short]);
        let later = typing.in_room(one.short);
        assert_eq!(later.users, std::slice::from_ref(&bob));
        assert!(later.serial > now.serial);

        typing.set(&one, &bob, None);
        assert_eq!(typing.in_room(one.short).users, [] as [OwnedUserId; 0]);
        assert!(typing.in_room(one.short).serial > later.serial);
        assert_eq!(typing.next_silence(one.short), None, "nobody to wait for");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let world = world();
        let alice = owned_user_id!("@a:example.org");
        let crowd = room(&world, 1);
        for number in 0..TYPERS_MAX + 10 {
            let user = UserId::parse(format!("@{number}:example.org")).unwrap();
            world.typing.set(&crowd, &user, Some(Duration::MAX));
        }
        assert_eq!(world.typing.in_room(crowd.short).users.len(), TYPERS_MAX);
        world.clock.advance(TIMEOUT_MAX);
        assert_eq!(world.typing.in_room(crowd.short).users.len(), 0);

        let old = room(&world, 2);
        world.typing.set(&old, &alice, SECONDS(10));
        world.typing.set(&old, &alice, None);
        let before = world.typing.in_room(old.short).serial;
        for number in 0..ROOMS_MAX as u64 {
            let other = room(&world, 10 + number);
            world.typing.set(&other, &alice, SECONDS(10));
        }
        let state = world.typing.0.state.lock();
        assert!(state.rooms.len() <= ROOMS_MAX);
        assert!(!state.rooms.contains_key(&old.short));
        drop(state);
        let forgotten = world.typing.in_room(old.short);
        assert_eq!((forgotten.serial, forgotten.users.len()), (before, 0));
    }
}
