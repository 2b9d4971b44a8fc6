//! Who is online ([spec]): in memory, but for what people say about themselves.
//!
//! A change gets a serial of the process and is listed in its user's rooms, so that a sync finds the
//! changes in its own rooms without looking at all people.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#presence

mod people;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use serde_json::value::RawValue;
use storage::{
    Batch, NameHash, Range, Reads, ShortRoomId, ShortUserId, Snapshot, Topic,
    schema::{self, Generation, Membership, PresenceRow},
};

pub use self::people::PresenceNow;
use self::people::{Does, Far, Kept, People, ROOMS_MAX};
use crate::{Doing, Rooms, Viewer, writer::Working};

/// The longest that somebody says about how they are, in bytes.
const STATUS_MAX: usize = 4 * 1024;
/// Of so many people in a room a server is told that comes into it, at most.
const TOLD_MAX: usize = 1_000;

/// Who is online; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The operator wants none of it.
    off: bool,
    people: People,
    /// Somebody waits for the time at which there is something to look at.
    timed: bool,
}

/// Of whom somebody wants to learn how they are.
#[derive(Debug)]
pub struct PresenceNews<'a> {
    /// The rooms they are in.
    pub rooms: &'a BTreeSet<ShortRoomId>,
    /// The serial of this process up to which they know; nothing at first.
    pub serial: Option<u64>,
    /// Those of the rooms that are new to them.
    pub new_rooms: BTreeSet<ShortRoomId>,
    /// People who are new in the others.
    pub newcomers: BTreeSet<ShortUserId>,
}

/// What another server says of how somebody of it is.
#[derive(Clone, Debug)]
pub struct RemotePresence {
    /// Online, unavailable or offline.
    pub presence: PresenceState,
    /// What they say about it.
    pub status_msg: Option<String>,
    /// How long ago they did something, in milliseconds.
    pub last_active_ago: u64,
    /// Whether they are doing something now.
    pub currently_active: bool,
}

/// A device that waits for news. When this is dropped it no longer does.
#[derive(Debug)]
pub struct Polling {
    rooms: Rooms,
    viewer: Viewer,
}

impl Drop for Polling {
    fn drop(&mut self) {
        // Nothing follows at once: that it is gone shows after a while.
        let now = self.rooms.now();
        let mut state = self.rooms.presence().0.lock();
        state.people.leaves(&self.viewer, now);
    }
}

impl Rooms {
    /// Whether people see who is online. Without, everybody is offline.
    pub fn set_presence_enabled(&self, enabled: bool) {
        self.presence().0.lock().off = !enabled;
    }

    /// Says how somebody is, and what they say about it (nothing clears what they said before).
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` if that is too long.
    pub async fn set_presence(
        &self,
        viewer: &Viewer,
        presence: PresenceState,
        status_msg: Option<String>,
    ) -> error::Result<()> {
        if status_msg
            .as_ref()
            .is_some_and(|text| text.len() > STATUS_MAX)
        {
            return Err(error::invalid_param(format!(
                "`status_msg` has at most {STATUS_MAX} bytes"
            )));
        }
        self.device_does(viewer, Does::Says(presence, status_msg))
            .await?;
        if !self.presence().0.lock().off {
            self.keep(viewer.short).await?;
        }
        Ok(())
    }

    /// A device begins to wait for news, and says how its user is (`set_presence`), for as long as the
    /// answer is kept.
    pub async fn polling(
        &self,
        viewer: &Viewer,
        presence: PresenceState,
    ) -> error::Result<Option<Polling>> {
        if self.presence().0.lock().off {
            return Ok(None);
        }
        self.device_does(viewer, Does::Polls(presence)).await?;
        Ok(Some(Polling {
            rooms: self.clone(),
            viewer: viewer.clone(),
        }))
    }

    /// Somebody does something: sends, reads on, types. Says nothing of those who never wait for news.
    pub async fn is_active(&self, viewer: &Viewer) {
        if !self.presence().0.lock().people.knows(viewer.short) {
            return;
        }
        if let Err(error) = self.device_does(viewer, Does::Acts).await {
            // What they did is done all the same.
            tracing::warn!(%error, "a change of presence could not be told");
        }
    }

    /// People came into a room, or left it, by what was just written. Servers are told of those of ours who are
    /// there: the room's of those who came, and such as are new in it of all.
    pub(crate) fn have_moved(&self, working: &Working) {
        let (room, moved) = (working.room.short, &working.moved);
        if moved.is_empty() {
            return;
        }
        let now = self.now();
        let mut state = self.presence().0.lock();
        for (user, joined) in moved {
            state.people.moves(*user, room, *joined);
        }
        if state.off {
            return;
        }
        for (user, joined) in moved {
            if *joined && state.people.is_one_of_ours_there(*user, now) {
                let user = *user;
                self.0.doings.tell(Doing::Joins { room, user });
            }
        }
        drop(state);
        for server in &working.joined_servers {
            let server = server.clone();
            self.0.doings.tell(Doing::ServerJoins { room, server });
        }
    }

    /// How those of ours are who are in a room and not offline, some of them if they are many.
    pub fn present_of_ours(&self, room: ShortRoomId) -> Vec<(OwnedUserId, PresenceNow)> {
        let now = self.now();
        let state = self.presence().0.lock();
        if state.off {
            return Vec::new();
        }
        let people = &state.people;
        let present = people.present(&BTreeSet::from([room]), now).into_iter();
        let present = present.filter_map(|user| people.one_of_ours(user, now));
        present.take(TOLD_MAX).collect()
    }

    /// How somebody is whom the viewer shares a room with, or the viewer themselves.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they share none.
    pub async fn presence_of(&self, viewer: &Viewer, user: &UserId) -> error::Result<PresenceNow> {
        let now = self.now();
        let nothing = || PresenceNow::offline(Kept::default(), now);
        if self.presence().0.lock().off {
            return Ok(nothing());
        }
        let snapshot = self.snapshot().await?;
        if viewer.user_id != user && !self.share_a_room(&snapshot, viewer, user).await? {
            return Err(error::forbidden("You share no room with this user"));
        }
        let name = self.storage().user_hash(user);
        let short = if user.server_name() == self.server_name() {
            let rows = snapshot.multi_get(&schema::USER_BY_NAME, &[name]).await?;
            rows.into_iter().flatten().next().map(|row| row.value)
        } else {
            Some(far_away(name))
        };
        let Some(short) = short else {
            return Ok(nothing());
        };
        if let Some(found) = self.presence().0.lock().people.find(short, now) {
            return Ok(found);
        }
        let kept = kept(&snapshot, short).await?;
        Ok(PresenceNow::offline(kept, now))
    }

    /// `m.presence` as news for somebody.
    pub fn presence_news(&self, wanted: &PresenceNews<'_>) -> error::Result<Vec<Box<RawValue>>> {
        let now = self.now();
        let state = self.presence().0.lock();
        if state.off {
            return Ok(Vec::new());
        }
        let people = &state.people;
        let mut users = match wanted.serial {
            Some(serial) => people.changed(wanted.rooms, serial),
            None => people.present(wanted.rooms, now),
        };
        users.extend(people.present(&wanted.new_rooms, now));
        users.extend(&wanted.newcomers);
        people.events(&users, now)
    }

    /// Those of some users that are joined to the room named with them, by what presence knows them by; one
    /// round trip.
    pub async fn present_members(
        &self,
        snapshot: &Snapshot,
        members: &[(ShortRoomId, Generation, &UserId)],
    ) -> error::Result<BTreeSet<ShortUserId>> {
        let hashes: Vec<_> = members
            .iter()
            .map(|(.., user)| self.storage().user_hash(*user))
            .collect();
        let keys: Vec<_> = members
            .iter()
            .zip(&hashes)
            .map(|((room, generation, _), hash)| {
                (*room, *generation, Membership::Join as u8, *hash)
            })
            .collect();
        let mut reads = Reads::new();
        let shorts = reads.get_all(&schema::USER_BY_NAME, &hashes);
        let joined = reads.get_all(&schema::MEMBER_BY_ROOM, &keys);
        let answers = snapshot.read(&reads).await?;
        let (shorts, joined) = (answers.all(&shorts)?, answers.all(&joined)?);
        let both = members.iter().zip(&hashes).zip(shorts).zip(joined);
        Ok(both
            .filter_map(|((((.., user), hash), short), joined)| {
                joined?;
                match user.server_name() == self.server_name() {
                    true => short.map(|short| short.value),
                    false => Some(far_away(*hash)),
                }
            })
            .collect())
    }

    /// How somebody of ours is, and who they are; none if nothing is known of them.
    pub async fn presence_to_tell(
        &self,
        user: ShortUserId,
    ) -> error::Result<Option<(OwnedUserId, PresenceNow)>> {
        let found = {
            let state = self.presence().0.lock();
            if state.off {
                return Ok(None);
            }
            state.people.find(user, self.now())
        };
        let user_id = self.user_id(user).await?;
        Ok(user_id.zip(found))
    }

    /// Another server says how somebody of it is. Of whom nobody of ours shares a room with nothing is kept.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn receive_presence(&self, user: &UserId, said: RemotePresence) -> error::Result<()> {
        if self.presence().0.lock().off {
            return Ok(());
        }
        let hash = self.storage().user_hash(user);
        let snapshot = self.snapshot().await?;
        if joined_far(&snapshot, hash).await?.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let far = Far {
            presence: said.presence,
            currently_active: said.currently_active,
            said_ts: now,
        };
        let kept = Kept {
            status_msg: said.status_msg.filter(|text| text.len() <= STATUS_MAX),
            active_ts: now.saturating_sub(said.last_active_ago),
        };
        let short = far_away(hash);
        let (changed, watch) = {
            let mut state = self.presence().0.lock();
            let changed = state.people.is_far(short, user, far, kept);
            let watch = !std::mem::replace(&mut state.timed, true);
            (changed, watch)
        };
        self.watch_presence_if(watch);
        if changed {
            self.tell_presence(short).await?;
        }
        Ok(())
    }

    fn watch_presence_if(&self, watch: bool) {
        if watch {
            let rooms = self.clone();
            tokio::spawn(async move { rooms.watch_presence().await });
        }
    }

    async fn device_does(&self, viewer: &Viewer, does: Does) -> error::Result<()> {
        let known = {
            let state = self.presence().0.lock();
            if state.off {
                return Ok(());
            }
            state.people.knows(viewer.short)
        };
        let kept = if known {
            Kept::default()
        } else {
            kept(&self.snapshot().await?, viewer.short).await?
        };
        let (changed, watch) = {
            let now = self.now();
            let mut state = self.presence().0.lock();
            state.people.take_in(viewer, kept);
            let changed = state.people.does(viewer, does, now);
            let watch = !std::mem::replace(&mut state.timed, true);
            (changed, watch)
        };
        self.watch_presence_if(watch);
        if changed {
            self.tell_presence(viewer.short).await?;
        }
        Ok(())
    }

    /// Waits for what comes to its end, until nobody is known any more.
    async fn watch_presence(&self) {
        loop {
            match self.look_at_presence().await {
                Ok(Some(wait)) => tokio::time::sleep(wait).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a change of presence could not be told");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Tells what has come to its end. How long until the next thing does; none if there is nothing, and
    /// then nobody waits any more.
    async fn look_at_presence(&self) -> error::Result<Option<Duration>> {
        let now = self.now();
        let (changed, next) = {
            let mut state = self.presence().0.lock();
            let (changed, next) = state.people.look_at_due(now);
            state.timed = next.is_some();
            (changed, next)
        };
        for (user, offline) in changed {
            self.tell_presence(user).await?;
            if offline {
                self.keep(user).await?;
            }
        }
        // Not each of thousands by itself.
        let wait = |next: u64| Duration::from_millis(next.saturating_sub(now).max(1_000));
        Ok(next.map(wait))
    }

    /// Lists a change in the rooms of its user, and wakes who is there.
    async fn tell_presence(&self, user: ShortUserId) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let far = self.presence().0.lock().people.far_user(user);
        let rooms = match &far {
            None => joined(&snapshot, user, ROOMS_MAX).await?,
            Some(far) => joined_far(&snapshot, self.storage().user_hash(far)).await?,
        };
        let mut topics: Vec<_> = rooms.iter().map(|room| Topic::Room(*room)).collect();
        topics.push(Topic::User(user));
        {
            let mut state = self.presence().0.lock();
            let serial = self.serials().next();
            state.people.list(user, rooms, serial, self.now());
        }
        self.storage().wake(&topics);
        if far.is_none() {
            self.0.doings.tell(Doing::IsThere(user));
        }
        Ok(())
    }

    /// Writes down what is to outlive the process.
    async fn keep(&self, user: ShortUserId) -> error::Result<()> {
        let now = self.now();
        let found = {
            let people = &self.presence().0.lock().people;
            let near = people.far_user(user).is_none();
            people.find(user, now).filter(|_| near)
        };
        let Some(found) = found else { return Ok(()) };
        let row = PresenceRow {
            status_msg: found.status_msg,
            active_ts: found
                .last_active_ago
                .map_or(0, |ago| now.saturating_sub(ago)),
        };
        let mut batch = Batch::new();
        batch.put(&schema::PRESENCE_BY_USER, &user, &row);
        self.storage().commit(batch).await?;
        Ok(())
    }

    async fn share_a_room(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        user: &UserId,
    ) -> error::Result<bool> {
        let rooms = joined(snapshot, viewer.short, usize::MAX).await?;
        let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &rooms).await?;
        let hash = self.storage().user_hash(user);
        let keys: Vec<_> = rooms
            .into_iter()
            .zip(heads)
            .filter_map(|(room, head)| {
                Some((room, head?.value.generation, Membership::Join as u8, hash))
            })
            .collect();
        let members = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
        Ok(members.iter().any(Option::is_some))
    }
}

/// The rooms that somebody is in, `max` at most.
async fn joined(
    snapshot: &Snapshot,
    user: ShortUserId,
    max: usize,
) -> error::Result<Vec<ShortRoomId>> {
    let range = Range::prefix(&(user,));
    let rows = snapshot
        .multi_range(&schema::ROOM_BY_USER, &[range])
        .await?;
    let joined = rows
        .into_iter()
        .flatten()
        .filter(|(_, row)| row.value.value.membership == Membership::Join);
    Ok(joined.map(|((_, room), _)| room).take(max).collect())
}

/// The rooms that somebody of another server is in, by the hash of their id.
async fn joined_far(snapshot: &Snapshot, user: NameHash) -> error::Result<Vec<ShortRoomId>> {
    let range = Range::prefix(&(user,)).limit(ROOMS_MAX);
    let rows = snapshot
        .multi_range(&schema::ROOM_BY_REMOTE_USER, &[range])
        .await?;
    Ok(rows
        .into_iter()
        .flatten()
        .map(|((_, room), _)| room)
        .collect())
}

/// What somebody of another server is known by in memory: a piece of the hash of their id, as random as the
/// short ids of people of ours.
pub(crate) fn far_away(user: NameHash) -> ShortUserId {
    let mut short = ShortUserId([0; 8]);
    short
        .0
        .iter_mut()
        .zip(user.0)
        .for_each(|(to, from)| *to = from);
    short
}

/// What is written down of somebody.
async fn kept(snapshot: &Snapshot, user: ShortUserId) -> error::Result<Kept> {
    let mut reads = Reads::new();
    let row = reads.get(&schema::PRESENCE_BY_USER, &user);
    let row = snapshot.read(&reads).await?.one(&row)?;
    Ok(row.map_or_else(Kept::default, |row| Kept {
        status_msg: row.value.status_msg,
        active_ts: row.value.active_ts,
    }))
}
