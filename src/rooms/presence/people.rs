//! Who is there: what devices say, what follows from it for their people, and what others know of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ruma::{OwnedUserId, UserId, presence::PresenceState};
use serde_json::{Value, json, value::RawValue};
use storage::{NameHash, ShortRoomId, ShortUserId};

use crate::Viewer;

/// Who did nothing for so long is not there, though a device of theirs is; in milliseconds, as all here.
pub(super) const IDLE_AFTER: u64 = 5 * 60 * 1000;
/// Who has no device that asks for news for so long is offline.
pub(super) const OFFLINE_AFTER: u64 = 30 * 1000;
/// For so long after they did something people are active now, and nobody is told of each thing they do.
pub(super) const ACTIVE_FOR: u64 = 60 * 1000;
/// Who has been offline for so long is forgotten.
const FORGOTTEN_AFTER: u64 = 24 * 60 * 60 * 1000;
/// So many people are told apart; who comes beside them is offline to others.
const PEOPLE_MAX: usize = 100_000;
/// Devices of one person that are told apart.
const DEVICES_MAX: usize = 32;
/// People of other servers that are told apart.
const FAR_MAX: usize = 50_000;
/// Other servers take somebody for offline of whom they hear nothing for half an hour: they are told before.
const TOLD_AGAIN: u64 = 25 * 60 * 1000;
/// So do we.
const FAR_FOR: u64 = 30 * 60 * 1000;
/// So many rooms are told of a change of one person.
pub(super) const ROOMS_MAX: usize = 1_000;

/// All that is known, under one lock.
#[derive(Debug, Default)]
pub(super) struct People {
    people: HashMap<ShortUserId, Person>,
    /// How many of them are of other servers.
    far: usize,
    /// When to look at people again.
    due: BTreeSet<(u64, ShortUserId)>,
    /// The latest change of each person, by its serial.
    changes: BTreeMap<u64, ShortUserId>,
    /// The latest change of each person, by their rooms.
    by_room: HashMap<ShortRoomId, BTreeMap<u64, ShortUserId>>,
}

#[derive(Debug)]
struct Person {
    user_id: OwnedUserId,
    devices: HashMap<NameHash, Device>,
    status_msg: Option<String>,
    /// When they last did something.
    active_ts: u64,
    /// For somebody of another server: what it says of them.
    far: Option<Far>,
    /// What others were told.
    told: Told,
    /// When that changed: serial and time.
    serial: u64,
    changed_ts: u64,
    rooms: Vec<ShortRoomId>,
    due: u64,
}

/// What another server says of somebody.
#[derive(Clone, Debug)]
pub(super) struct Far {
    pub(super) presence: PresenceState,
    pub(super) currently_active: bool,
    /// When it said so.
    pub(super) said_ts: u64,
}

/// A device of somebody.
#[derive(Clone, Debug)]
struct Device {
    says: PresenceState,
    /// Polls that are under way.
    polls: u32,
    /// When it was last heard of.
    seen_ts: u64,
}

/// What others are told of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    presence: PresenceState,
    currently_active: bool,
    status_msg: Option<String>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            presence: PresenceState::Offline,
            currently_active: false,
            status_msg: None,
        }
    }
}

/// What is kept of somebody who is not in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) status_msg: Option<String>,
    pub(super) active_ts: u64,
}

/// What a device does.
#[derive(Clone, Debug)]
pub(super) enum Does {
    /// It says how its user is, and what they say about it.
    Says(PresenceState, Option<String>),
    /// It begins to wait for news, and says how its user is.
    Polls(PresenceState),
    /// Its user does something.
    Acts,
}

/// How somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceNow {
    /// Online, unavailable or offline.
    pub presence: PresenceState,
    /// How long ago they did something, in milliseconds; none if that is not known.
    pub last_active_ago: Option<u64>,
    /// Whether they are doing something now.
    pub currently_active: bool,
    /// What they say about it.
    pub status_msg: Option<String>,
}

impl Person {
    fn new(user_id: OwnedUserId, kept: Kept) -> Self {
        Self {
            user_id,
            devices: HashMap::new(),
            far: None,
            told: Told {
                status_msg: kept.status_msg.clone(),
                ..Told::default()
            },
            status_msg: kept.status_msg,
            active_ts: kept.active_ts,
            serial: 0,
            changed_ts: 0,
            rooms: Vec::new(),
            due: u64::MAX,
        }
    }

    fn does(&mut self, device: NameHash, does: Does, now: u64) {
        if !self.devices.contains_key(&device) && self.devices.len() >= DEVICES_MAX {
            self.devices.retain(|_, device| device.is_here(now));
            if self.devices.len() >= DEVICES_MAX {
                return;
            }
        }
        let was_here = self
            .devices
            .get(&device)
            .is_some_and(|device| device.is_here(now));
        let device = self.devices.entry(device).or_insert(Device {
            says: PresenceState::Offline,
            polls: 0,
            seen_ts: now,
        });
        device.seen_ts = now;
        match does {
            Does::Says(says, status_msg) => {
                if says == PresenceState::Online {
                    self.active_ts = now;
                }
                device.says = says;
                self.status_msg = status_msg;
            }
            Does::Polls(says) => {
                // Who comes, or comes back to the device, is active; who stays and asks for news is not.
                let stays = was_here && device.says == PresenceState::Online;
                if says == PresenceState::Online && !stays {
                    self.active_ts = now;
                }
                device.says = says;
                device.polls = device.polls.saturating_add(1);
            }
            Does::Acts => {
                self.active_ts = now;
                if device.says == PresenceState::Unavailable {
                    device.says = PresenceState::Online;
                }
            }
        }
    }

    fn presence(&self, now: u64) -> PresenceState {
        if let Some(far) = &self.far {
            return match far.said_ts + FAR_FOR > now {
                true => far.presence.clone(),
                false => PresenceState::Offline,
            };
        }
        let here = self.devices.values().filter(|device| device.is_here(now));
        let mut presence = PresenceState::Offline;
        for device in here {
            match device.says {
                PresenceState::Online if self.active_ts + IDLE_AFTER > now => {
                    return PresenceState::Online;
                }
                _ => presence = PresenceState::Unavailable,
            }
        }
        presence
    }

    fn now(&self, now: u64) -> PresenceNow {
        let presence = self.presence(now);
        let active = match &self.far {
            Some(far) => far.currently_active,
            None => self.active_ts + ACTIVE_FOR > now,
        };
        PresenceNow {
            currently_active: presence == PresenceState::Online && active,
            presence,
            last_active_ago: (self.active_ts > 0).then(|| now.saturating_sub(self.active_ts)),
            status_msg: self.status_msg.clone(),
        }
    }

    /// When it has to be looked at again, because something comes to its end.
    fn next_due(&self, now: u64) -> u64 {
        let ends = self.devices.values().filter_map(|device| {
            let ends = device.seen_ts + OFFLINE_AFTER;
            (device.polls == 0 && device.is_here(now)).then_some(ends)
        });
        let presence = self.presence(now);
        let (near, there) = (self.far.is_none(), presence != PresenceState::Offline);
        let here = near && presence == PresenceState::Online;
        let idle = [self.active_ts + ACTIVE_FOR, self.active_ts + IDLE_AFTER];
        let idle = idle.into_iter().filter(|_| here);
        let far = self.far.as_ref().map(|far| far.said_ts + FAR_FOR);
        let again = (near && there).then_some(self.changed_ts + TOLD_AGAIN);
        let forgotten = self.changed_ts.max(self.active_ts) + FORGOTTEN_AFTER;
        let all = ends.chain(idle).chain(far).chain(again);
        let all = all.filter(|due| *due > now);
        all.min()
            .unwrap_or_else(|| forgotten.max(now + OFFLINE_AFTER))
    }
}

impl Device {
    fn is_here(&self, now: u64) -> bool {
        self.says != PresenceState::Offline
            && (self.polls > 0 || self.seen_ts + OFFLINE_AFTER > now)
    }
}

impl People {
    pub(super) fn knows(&self, user: ShortUserId) -> bool {
        self.people.contains_key(&user)
    }

    /// Takes somebody in. Not if there are too many already.
    pub(super) fn take_in(&mut self, who: &Viewer, kept: Kept) {
        if self.people.len() - self.far < PEOPLE_MAX && !self.knows(who.short) {
            let person = Person::new(who.user_id.clone(), kept);
            self.people.insert(who.short, person);
        }
    }

    /// Whether others have to be told.
    pub(super) fn does(&mut self, who: &Viewer, does: Does, now: u64) -> bool {
        let Some(person) = self.people.get_mut(&who.short) else {
            return false;
        };
        person.does(who.device, does, now);
        self.look(who.short, now)
    }

    /// Another server says how somebody of it is. Whether others have to be told.
    pub(super) fn is_far(
        &mut self,
        user: ShortUserId,
        user_id: &UserId,
        far: Far,
        said: Kept,
    ) -> bool {
        if !self.knows(user) {
            if self.far >= FAR_MAX {
                return false;
            }
            self.far += 1;
            let person = Person::new(user_id.to_owned(), Kept::default());
            self.people.insert(user, person);
        }
        let Some(person) = self.people.get_mut(&user) else {
            return false;
        };
        if person.user_id != user_id {
            return false;
        }
        let now = far.said_ts;
        person.far = Some(far);
        (person.status_msg, person.active_ts) = (said.status_msg, said.active_ts);
        self.look(user, now)
    }

    /// For somebody of another server: who they are.
    pub(super) fn far_user(&self, user: ShortUserId) -> Option<OwnedUserId> {
        let person = self.people.get(&user)?;
        person.far.as_ref().map(|_| person.user_id.clone())
    }

    /// A device stops waiting for news. Nothing follows from it at once, so that nobody has to be told.
    pub(super) fn leaves(&mut self, who: &Viewer, now: u64) {
        if let Some(person) = self.people.get_mut(&who.short)
            && let Some(device) = person.devices.get_mut(&who.device)
        {
            device.polls = device.polls.saturating_sub(1);
            device.seen_ts = now;
        }
        self.schedule(who.short, now);
    }

    /// Sees to it that somebody is looked at when something comes to its end.
    fn schedule(&mut self, user: ShortUserId, now: u64) {
        let Some(person) = self.people.get_mut(&user) else {
            return;
        };
        let next = person.next_due(now);
        if next != person.due {
            self.due.remove(&(person.due, user));
            self.due.insert((next, user));
            person.due = next;
        }
    }

    /// Looks at somebody anew. Whether others have to be told.
    fn look(&mut self, user: ShortUserId, now: u64) -> bool {
        self.schedule(user, now);
        let Some(person) = self.people.get_mut(&user) else {
            return false;
        };
        let shown = person.now(now);
        let told = Told {
            presence: shown.presence,
            currently_active: shown.currently_active,
            status_msg: shown.status_msg,
        };
        let again = person.far.is_none()
            && told.presence != PresenceState::Offline
            && person.changed_ts + TOLD_AGAIN <= now;
        let changed = again || told != person.told;
        person.told = told;
        changed
    }

    /// Looks at all for whom something has come to its end: those of whom others have to be told, with
    /// whether they are offline, and when there is something to look at again.
    pub(super) fn look_at_due(&mut self, now: u64) -> (Vec<(ShortUserId, bool)>, Option<u64>) {
        let mut changed = Vec::new();
        while let Some((due, user)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, user));
            let forgotten = self.people.get_mut(&user).is_some_and(|person| {
                person.due = u64::MAX;
                person.devices.retain(|_, device| device.is_here(now));
                let silent = person.changed_ts.max(person.active_ts) + FORGOTTEN_AFTER <= now;
                person.devices.is_empty() && silent
            });
            if forgotten {
                self.forget(user);
            } else if self.look(user, now) {
                let told = self.people.get(&user).map(|person| &person.told);
                let offline = told.is_some_and(|told| told.presence == PresenceState::Offline);
                changed.push((user, offline));
            }
        }
        (changed, self.due.first().map(|(due, _)| *due))
    }

    fn forget(&mut self, user: ShortUserId) {
        if let Some(person) = self.people.remove(&user) {
            self.far -= usize::from(person.far.is_some());
            self.unlist(&person);
            self.due.remove(&(person.due, user));
        }
    }

    fn unlist(&mut self, person: &Person) {
        self.changes.remove(&person.serial);
        for room in &person.rooms {
            if let Some(changes) = self.by_room.get_mut(room) {
                changes.remove(&person.serial);
                if changes.is_empty() {
                    self.by_room.remove(room);
                }
            }
        }
    }

    /// Lists a change of somebody in the rooms that they are in now.
    pub(super) fn list(
        &mut self,
        user: ShortUserId,
        rooms: Vec<ShortRoomId>,
        serial: u64,
        now: u64,
    ) {
        let Some(mut person) = self.people.remove(&user) else {
            return;
        };
        self.unlist(&person);
        self.changes.insert(serial, user);
        for room in &rooms {
            self.by_room.entry(*room).or_default().insert(serial, user);
        }
        (person.serial, person.changed_ts, person.rooms) = (serial, now, rooms);
        self.people.insert(user, person);
    }

    /// Somebody comes into a room or leaves it, so that who looks at the room finds them, or does not.
    pub(super) fn moves(&mut self, user: ShortUserId, room: ShortRoomId, joined: bool) {
        let Some(person) = self
            .people
            .get_mut(&user)
            .filter(|person| person.serial > 0)
        else {
            return;
        };
        person.rooms.retain(|other| *other != room);
        let in_room = self.by_room.entry(room).or_default();
        if joined && person.rooms.len() < ROOMS_MAX {
            person.rooms.push(room);
            in_room.insert(person.serial, user);
        } else {
            in_room.remove(&person.serial);
        }
        if in_room.is_empty() {
            self.by_room.remove(&room);
        }
    }

    /// How somebody is; none if they are not known here.
    pub(super) fn find(&self, user: ShortUserId, now: u64) -> Option<PresenceNow> {
        self.people.get(&user).map(|person| person.now(now))
    }

    /// Somebody of ours, and how they are; none if they are of another server, or not known here.
    pub(super) fn one_of_ours(
        &self,
        user: ShortUserId,
        now: u64,
    ) -> Option<(OwnedUserId, PresenceNow)> {
        let person = self.people.get(&user)?;
        let ours = self.far_user(user).is_none();
        ours.then(|| (person.user_id.clone(), person.now(now)))
    }

    /// Whether somebody is of ours, and not offline.
    pub(super) fn is_one_of_ours_there(&self, user: ShortUserId, now: u64) -> bool {
        let found = self.one_of_ours(user, now);
        found.is_some_and(|(_, found)| found.presence != PresenceState::Offline)
    }

    /// Who of these rooms has changed after a serial.
    pub(super) fn changed(
        &self,
        rooms: &BTreeSet<ShortRoomId>,
        serial: u64,
    ) -> BTreeSet<ShortUserId> {
        let after = (
            std::ops::Bound::Excluded(serial),
            std::ops::Bound::Unbounded,
        );
        let all = self.changes.range(after);
        // The smaller of two ways: through the changes, or through the rooms.
        if all.clone().take(rooms.len()).count() < rooms.len() {
            return all
                .map(|(_, user)| *user)
                .filter(|user| {
                    let person = self.people.get(user);
                    person
                        .is_some_and(|person| person.rooms.iter().any(|room| rooms.contains(room)))
                })
                .collect();
        }
        rooms
            .iter()
            .filter_map(|room| self.by_room.get(room))
            .flat_map(|changes| changes.range(after))
            .map(|(_, user)| *user)
            .collect()
    }

    /// Who of these rooms is not offline.
    pub(super) fn present(&self, rooms: &BTreeSet<ShortRoomId>, now: u64) -> BTreeSet<ShortUserId> {
        let mut present = self.changed(rooms, 0);
        present.retain(|user| {
            let person = self.people.get(user);
            person.is_some_and(|person| person.presence(now) != PresenceState::Offline)
        });
        present
    }

    /// `m.presence` of these people, as far as they are known.
    pub(super) fn events(
        &self,
        users: &BTreeSet<ShortUserId>,
        now: u64,
    ) -> error::Result<Vec<Box<RawValue>>> {
        users
            .iter()
            .filter_map(|user| self.people.get(user))
            .map(|person| {
                let content = person.now(now).content();
                let event = json!({
                    "type": "m.presence", "sender": person.user_id, "content": content,
                });
                serde_json::value::to_raw_value(&event).map_err(error::internal)
            })
            .collect()
    }
}

impl PresenceNow {
    /// Of whom nothing is known.
    pub(super) fn offline(kept: Kept, now: u64) -> Self {
        Self {
            presence: PresenceState::Offline,
            last_active_ago: (kept.active_ts > 0).then(|| now.saturating_sub(kept.active_ts)),
            currently_active: false,
            status_msg: kept.status_msg,
        }
    }

    /// The content of `m.presence`.
    fn content(&self) -> Value {
        let mut content = json!({ "presence": self.presence });
        let members = [
            ("last_active_ago", self.last_active_ago.map(Value::from)),
            ("status_msg", self.status_msg.clone().map(Value::from)),
            (
                "currently_active",
                (self.presence == PresenceState::Online).then_some(self.currently_active.into()),
            ),
        ];
        if let Some(content) = content.as_object_mut() {
            for (name, value) in members {
                content.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        content
    }
}
