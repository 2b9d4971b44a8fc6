//! What changed for a device since it last asked, for `/sync` and sliding sync to encode.
//!
//! [`Syncs::sync`] finds out in which of the device's rooms something happened ([`changes`]), reads what
//! that was from their logs ([`log`], [`joined`], [`left`]; all from one view), and waits if it was
//! nothing. The result is [`Update`], which knows nothing of how it is going to be written; [`v3`] writes
//! it for `/sync`.

mod account_data;
mod ahead;
mod changes;
mod device;
mod device_lists;
mod fields;
mod joined;
mod left;
mod live;
mod log;
mod members;
mod presence;
mod state;
mod summary;
#[cfg(test)]
mod tests;
mod timeline;
mod token;
mod update;
pub mod v3;
mod wants;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use rooms::{RelationFilter, Rooms, Viewer};
use ruma::api::client::filter::{FilterDefinition, LazyLoadOptions};
use storage::{
    NameHash, Position, ShortRoomId, ShortUserId, Snapshot, Storage, schema::Membership,
};
use users::Users;

use self::{
    account_data::AccountData,
    changes::UserRooms,
    live::{Live, Lives},
    members::{KnownMembers, ToldMembers, wants_each_once},
};
pub use self::{
    device::OfDevice,
    device_lists::DeviceLists,
    token::{EphemeralCursor, NoToken, Token},
    update::{Invited, Joined, Left, Summary, Timeline, Update},
};

/// The longest wait of one poll.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// From so many views an answer is read, if they get too old.
const VIEWS_MAX: usize = 10;
/// How much memory the remembered lists of people's rooms take, in bytes, and how many there are, about.
const USER_ROOMS_BYTES: u64 = 64 << 20;
const USER_ROOMS: usize = 10_000;

/// What devices are told; clones share what is known of them.
#[derive(Clone, Debug)]
pub struct Syncs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    users: Users,
    rooms: Rooms,
    lives: Lives,
    user_rooms: Cache<ShortUserId, Arc<UserRooms>, Bytes>,
}

/// Weighs a list of rooms by its memory.
#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<ShortUserId, Arc<UserRooms>> for Bytes {
    fn weight(&self, _: &ShortUserId, rooms: &Arc<UserRooms>) -> u64 {
        rooms.bytes() as u64
    }
}

/// Which state a device is told besides the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateForm {
    /// What it needs to know before the timeline.
    #[default]
    Before,
    /// All that changed, up to after the timeline, as `state_after`.
    After,
    /// MSC4222: the same under its unstable name.
    UnstableAfter,
}

/// What a device asks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub viewer: Viewer,
    /// Their device, as the rows of its keys and messages are keyed; none for the old ways of reading, which
    /// tell a device nothing of itself, and the room with each event.
    pub device: Option<NameHash>,
    /// What it knows; nothing at first.
    pub since: Option<Token>,
    /// What it wants.
    pub filter: FilterDefinition,
    /// Which events of timelines it wants by how they relate, or are related to.
    pub relations: RelationFilter,
    /// Whether it wants the whole state of all rooms, whatever it knows.
    pub full_state: bool,
    /// Which state it wants.
    pub state: StateForm,
    /// How long to wait for something to happen.
    pub timeout: Duration,
}

impl Request {
    /// The position that the device knows; none at first.
    fn position(&self) -> Option<Position> {
        self.since.map(|since| since.position)
    }

    /// Up to where the device knows what is kept in memory only; none if another run of the process told
    /// it.
    fn serial(&self, run: u64) -> Option<u64> {
        self.since
            .map(|since| since.ephemeral)
            .filter(|ephemeral| ephemeral.run == run)
            .map(|ephemeral| ephemeral.serial)
    }

    fn wants_state_after(&self) -> bool {
        self.state != StateForm::Before
    }
}

impl Syncs {
    /// The syncs of these people and rooms.
    pub fn new(storage: &Storage, users: &Users, rooms: &Rooms) -> Self {
        Self(Arc::new(Inner {
            storage: storage.clone(),
            users: users.clone(),
            rooms: rooms.clone(),
            lives: Lives::default(),
            user_rooms: Cache::with_weighter(USER_ROOMS, USER_ROOMS_BYTES, Bytes),
        }))
    }

    /// What changed since the device's token, and its next one, as soon as something did: at the latest
    /// after the time it gave, or when `stop` is done. The same token gives the same again, and what came
    /// since.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn sync(
        &self,
        request: &Request,
        stop: impl Future<Output = ()>,
    ) -> error::Result<(Update, Token)> {
        let mut request = request.clone();
        // A token of another history (a restored backup) is of no use: the device starts anew.
        let epoch = self.0.storage.epoch();
        request.since = request
            .since
            .filter(|since| since.position.epoch() == epoch);
        let (user, device) = (request.viewer.short, request.viewer.device);
        let mut live = self.0.lives.take(&self.0.storage, user, device);
        let answer = self.poll(request, &mut live, stop).await;
        self.0.lives.put_back(user, device, live);
        answer
    }

    /// Whose devices changed since a token, for a device that knows what it told.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn device_lists_since(
        &self,
        viewer: Viewer,
        since: Token,
    ) -> error::Result<DeviceLists> {
        let mut live = Live::new(&self.0.storage, viewer.short);
        let mut filter = FilterDefinition::default();
        // Rooms of which we do not know all members yet (MSC3902) count as they do for who sees them.
        filter.room.state.lazy_load_options = LazyLoadOptions::Enabled {
            include_redundant_members: false,
        };
        let mut request = Request {
            viewer,
            device: None,
            since: Some(since),
            filter,
            relations: RelationFilter::default(),
            full_state: false,
            state: StateForm::Before,
            timeout: Duration::ZERO,
        };
        let (update, ..) = self.look(&mut request, &mut live).await?;
        Ok(update.device_lists)
    }

    async fn poll(
        &self,
        mut request: Request,
        live: &mut Live,
        stop: impl Future<Output = ()>,
    ) -> error::Result<(Update, Token)> {
        let end = tokio::time::sleep(request.timeout.min(LONGEST_WAIT));
        tokio::pin!(end, stop);
        self.remove_messages(&request, live).await?;
        live.members.begin(request.position());
        let mut is_woken = async |live: &Live| {
            tokio::select! {
                () = live.wait() => true,
                () = &mut end => false,
                () = &mut stop => false,
            }
        };
        if let Some(nothing) = live.nothing_new(&request)
            && !is_woken(live).await
        {
            return Ok(nothing);
        }
        loop {
            live.clear();
            let (update, token, new_rooms, told) = self.look(&mut request, live).await?;
            let done = request.since.is_none() || request.full_state || !update.is_empty();
            if !new_rooms {
                live.looked(&request, &update, token);
            } else if !done {
                // What happened in them until now woke nobody: look again.
                continue;
            }
            if done || !is_woken(live).await {
                let in_full = wants_each_once(&request.filter.room.state);
                let told = in_full.then_some(told);
                live.members.answered(token.position, told);
                return Ok((update, token));
            }
        }
    }

    /// Removes the messages that the device has: it goes on from a token that was given out with them.
    async fn remove_messages(&self, request: &Request, live: &mut Live) -> error::Result<()> {
        let has = request.since.map(|since| since.to_device);
        let has = has.filter(|has| *has > live.removed);
        let (Some(has), Some(device)) = (has, request.device) else {
            return Ok(());
        };
        let user = request.viewer.short;
        self.0.users.remove_messages(user, device, has).await?;
        live.removed = has;
        Ok(())
    }

    /// Everything that changed, as of now; whether there are rooms that were not waited for before; the
    /// members that are told because they speak. Begins again from a new view if one gets too old: what was
    /// read is quicker to be had the next time.
    async fn look(
        &self,
        request: &mut Request,
        live: &mut Live,
    ) -> error::Result<(Update, Token, bool, ToldMembers)> {
        let mut new_rooms = false;
        for _ in 1..VIEWS_MAX {
            match self.look_once(request, live, &mut new_rooms).await {
                Err(error) if error.is_too_busy() => {}
                looked => return looked,
            }
        }
        self.look_once(request, live, &mut new_rooms).await
    }

    /// The same from one view; `new_rooms` keeps what an earlier one found of them.
    async fn look_once(
        &self,
        request: &mut Request,
        live: &mut Live,
        new_rooms: &mut bool,
    ) -> error::Result<(Update, Token, bool, ToldMembers)> {
        // Before the view, so that what happens in between is told again rather than never.
        let ephemeral = EphemeralCursor {
            run: self.0.rooms.run(),
            serial: self.0.rooms.serials().latest(),
        };
        let snapshot = self.0.rooms.snapshot().await?;
        let position = snapshot.position();
        if let Some(since) = &mut request.since {
            // Nobody was told of what has not happened yet.
            since.position = since.position.min(position);
        }
        let had = request
            .since
            .map_or(Position::START, |since| since.to_device);
        let work = async |snapshot: Snapshot| {
            let (changes, account_data) = self.changes(&snapshot, request).await?;
            *new_rooms |= live.follow(&changes.joined);
            let reading = Reading {
                syncs: self,
                request,
                snapshot: &snapshot,
                members: &live.members,
                told: Mutex::default(),
            };
            let told = changes.of_device.told;
            let token = Token {
                position,
                to_device: told.unwrap_or(had),
                ephemeral,
            };
            let update = reading.update(changes, account_data).await?;
            Ok((update, token, *new_rooms, reading.told.into_inner()))
        };
        snapshot.gathered(work).await
    }
}

/// One look at everything, from one view.
struct Reading<'a> {
    syncs: &'a Syncs,
    request: &'a Request,
    snapshot: &'a Snapshot,
    /// The members whom the device knows.
    members: &'a KnownMembers,
    /// Those whom it is told.
    told: Mutex<ToldMembers>,
}

impl Reading<'_> {
    fn rooms(&self) -> &Rooms {
        &self.syncs.0.rooms
    }

    fn viewer(&self) -> &Viewer {
        &self.request.viewer
    }

    /// The position that the device knows; none at first.
    fn since(&self) -> Option<Position> {
        self.request.position()
    }

    async fn update(
        &self,
        changes: changes::Changes,
        account_data: AccountData,
    ) -> error::Result<Update> {
        let (mut joined, mut left, mut account_data, devices) = tokio::try_join!(
            self.joined(&changes),
            self.left(&changes),
            self.account_data(account_data),
            self.changed_devices(&changes),
        )?;
        for joined in &mut joined {
            let rows = account_data.remove(&joined.room.short).unwrap_or_default();
            joined.account_data = self.room_account_data(&joined.room, &rows)?;
        }
        for left in &mut left {
            let rows = account_data.remove(&left.room.short).unwrap_or_default();
            left.account_data = self.room_account_data(&left.room, &rows)?;
        }
        joined.retain(|joined| !joined.is_empty());
        let (presence, device_lists) = tokio::try_join!(
            self.presence(&changes, &joined),
            self.device_lists(&changes, devices, &joined, &left),
        )?;
        let global = account_data.remove(&ShortRoomId::NONE).unwrap_or_default();
        Ok(Update {
            device_lists,
            joined,
            presence,
            left,
            invited: self.outside(&changes, Membership::Invite)?,
            knocked: self.outside(&changes, Membership::Knock)?,
            account_data: self.global_account_data(&global)?,
            of_device: changes.of_device,
        })
    }
}
