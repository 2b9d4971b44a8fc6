//! The room: writing and reading its events, state, members, timeline, receipts.
//!
//! What changes a room goes through its [`RoomWriter`](writer) as a [`Group`] of drafts, is judged, and
//! becomes rows of one batch in [`accept`], which does the same for events of other servers. Who cares
//! about an accepted event reads the room log or the stream; nothing is called.

mod accept;
mod ahead;
mod aliases;
mod blocked;
mod chains;
mod client_event;
mod create;
mod current;
mod delayed;
mod device_lists;
mod directory;
mod doings;
mod draft;
mod erased;
mod event;
pub mod event_filter;
mod explain;
mod extremities;
mod fold;
mod format;
mod guests;
mod invites;
mod jobs;
mod members;
mod membership;
mod news;
mod notices;
mod outside;
mod partial;
mod place_token;
mod policy_server;
mod presence;
mod profiles;
mod purge;
mod read;
mod read_marker;
mod receipts;
mod receive;
mod redact_all;
mod relation_filter;
mod relations;
mod remote;
mod remote_devices;
mod remote_receipts;
mod reports;
mod resident;
mod restricted;
mod room;
mod send;
mod server_acl;
mod servers;
mod serving;
mod shut_down;
mod spaces;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;
mod third_party;
mod timeline;
mod typing;
mod unread;
mod upgrade;
mod viewer;
mod visibility;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use federation::Federation;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use storage::{Clock, NameHash, Position, Random, ShortRoomId, Snapshot, Storage, schema};
use tokio::sync::Semaphore;

use self::writer::RoomWriter;
pub use self::{
    client_event::{EventForm, EventFormat},
    create::{InitialState, NewRoomRequest, Preset},
    delayed::{DelayAction, Delayed, NewDelayedEvent},
    directory::{DirectoryPage, DirectoryQuery, DirectoryToken},
    doings::Doing,
    draft::{Draft, Group, MoreRows},
    event::StoredEvent,
    explain::{Differing, Entry as ExplainedEntry, Explained, Named},
    fold::fold,
    members::MEMBERSHIPS,
    membership::Said,
    news::News,
    outside::BroughtInvite,
    place_token::{NoPlaceToken, PlaceToken},
    presence::{Polling, PresenceNews, PresenceNow, RemotePresence},
    read::{EVENTS_AT_ONCE, ReadEvent},
    read_marker::{NewReceipt, ReadUpTo},
    receive::{Incoming, Received, Standing},
    redact_all::REDACT_EVENTS,
    relation_filter::{Filter, RelationFilter},
    relations::{RECURSION_DEPTH, Related},
    remote::Taken,
    remote_devices::{DeviceUpdate, DevicesChange, KnownDevices, remote_device},
    remote_receipts::RemoteReceipt,
    reports::{NewReport, Report, ReportKind, ReportQuery, RoomNames},
    resident::{JoinAnswer, MemberTemplate, TakenEvent},
    room::Room,
    server_acl::ServerAcl,
    servers::Servers,
    serving::{ServedState, Serving},
    shut_down::{Kicked, Replacement, ShutDown},
    spaces::{Child, HierarchyPage, HierarchyQuery, RoomSummary, ServedSpace},
    state::StateKey,
    subscriptions::{Subscribed, SubscriptionChange, SubscriptionChanges},
    third_party::BoundInvite,
    timeline::{Page, Span, Wanted},
    typing::{Serials, Typing, TypingNow},
    unread::{Count, NotificationPage, NotificationQuery, Notified, Unread},
    upgrade::UpgradeRequest,
    viewer::{Look, Until, Viewer, membership_of},
};

/// How many rooms' ids are remembered.
const KNOWN_ROOMS: usize = 100_000;
/// How many rooms' writers keep what they know.
const WARM_WRITERS: usize = 4_096;

/// The rooms of this server; clones share them.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

/// What the rooms are built on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where they are kept.
    pub storage: Storage,
    /// Our name.
    pub server_name: OwnedServerName,
    /// What we have to do with other servers, with the keys that sign our events.
    pub federation: Federation,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

struct Inner {
    parts: Parts,
    rooms: Cache<OwnedRoomId, Arc<Room>>,
    rooms_by_short: Cache<ShortRoomId, Arc<Room>>,
    writers: Cache<ShortRoomId, Arc<RoomWriter>>,
    /// Tells this process from others, in tokens that count what is in memory only.
    run: u64,
    serials: Serials,
    typing: Typing,
    doings: doings::Doings,
    presence: presence::Presence,
    counts: unread::Counts,
    counted: servers::Counted,
    /// Events that wait for what they follow.
    waiting: remote::Waiting,
    fetching: remote::Fetching,
    /// Who talks for the server.
    notices_user: OnceLock<OwnedUserId>,
    walks: spaces::Walks,
    arrivals: remote::Arrivals,
    /// What is let through where this server is the policy server.
    policy_rules: OnceLock<policy_server::PolicyRules>,
    silent: policy_server::Silent,
    /// In how many turns events of a room are shown to its policy server.
    signing: Cache<ShortRoomId, Arc<Semaphore>>,
    /// Jobs that go on beside others.
    filling: Mutex<HashSet<NameHash>>,
    /// The latest time given out by [`Rooms::unique_time`].
    latest_time: AtomicU64,
    /// The day on which the once keys of earlier ones were last removed.
    swept_day: AtomicU32,
}

impl Rooms {
    /// The rooms that `parts.storage` holds.
    pub fn new(parts: Parts) -> Self {
        let mut run = [0; 8];
        parts.random.fill(&mut run);
        let serials = Serials::default();
        let doings = doings::Doings::default();
        Self(Arc::new(Inner {
            run: u64::from_be_bytes(run),
            typing: Typing::new(&parts, &serials, &doings),
            doings,
            serials,
            presence: presence::Presence::default(),
            counts: unread::Counts::default(),
            counted: servers::Counted::default(),
            waiting: remote::Waiting::default(),
            fetching: Cache::new(WARM_WRITERS),
            notices_user: OnceLock::new(),
            walks: spaces::Walks::default(),
            arrivals: remote::Arrivals::default(),
            policy_rules: OnceLock::new(),
            silent: policy_server::Silent::default(),
            signing: Cache::new(WARM_WRITERS),
            filling: Mutex::default(),
            parts,
            rooms: Cache::new(KNOWN_ROOMS),
            rooms_by_short: Cache::new(KNOWN_ROOMS),
            writers: Cache::new(WARM_WRITERS),
            latest_time: AtomicU64::new(0),
            swept_day: AtomicU32::new(0),
        }))
    }

    /// Where rooms are kept.
    pub fn storage(&self) -> &Storage {
        &self.0.parts.storage
    }

    /// Our name.
    pub fn server_name(&self) -> &ServerName {
        &self.0.parts.server_name
    }

    /// What we have to do with other servers.
    pub fn federation(&self) -> &Federation {
        &self.0.parts.federation
    }

    /// A number that no other process has: serials of other runs say nothing about this one.
    pub fn run(&self) -> u64 {
        self.0.run
    }

    /// The counter of what changes in memory only.
    pub fn serials(&self) -> &Serials {
        &self.0.serials
    }

    /// Who is typing.
    pub fn typing(&self) -> &Typing {
        &self.0.typing
    }

    /// Begins to listen to what people of this server do that others' servers are told.
    pub fn listen(&self) -> tokio::sync::broadcast::Receiver<Doing> {
        self.0.doings.listen()
    }

    /// The time, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.0.parts.clock.now().get().into()
    }

    /// The time in milliseconds since 1970, but given out only once: a little ahead of it if need be.
    fn unique_time(&self) -> u64 {
        let now = self.now();
        let next = |latest: u64| Some(now.max(latest.saturating_add(1)));
        let order = Ordering::Relaxed;
        match self.0.latest_time.fetch_update(order, order, next) {
            Ok(latest) | Err(latest) => now.max(latest.saturating_add(1)),
        }
    }

    fn presence(&self) -> &presence::Presence {
        &self.0.presence
    }

    fn counted(&self) -> &servers::Counted {
        &self.0.counted
    }

    fn counts(&self) -> &unread::Counts {
        &self.0.counts
    }

    fn waiting(&self) -> &remote::Waiting {
        &self.0.waiting
    }

    fn fetching(&self) -> &remote::Fetching {
        &self.0.fetching
    }

    fn filling(&self) -> &Mutex<HashSet<NameHash>> {
        &self.0.filling
    }

    fn arrivals(&self) -> &remote::Arrivals {
        &self.0.arrivals
    }

    /// Policy servers that did not answer lately.
    fn silent(&self) -> &policy_server::Silent {
        &self.0.silent
    }

    fn walks(&self) -> &spaces::Walks {
        &self.0.walks
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// A view of everything that was acknowledged before this call.
    pub async fn snapshot(&self) -> error::Result<Snapshot> {
        Ok(self.storage().snapshot(Position::START).await?)
    }

    /// The room of that id, if this server knows it.
    pub async fn find_room(&self, room_id: &RoomId) -> error::Result<Option<Arc<Room>>> {
        if let Some(room) = self.0.rooms.get(room_id) {
            return Ok(Some(room));
        }
        let Some(room) = Room::find(self, room_id).await? else {
            return Ok(None);
        };
        let room = Arc::new(room);
        self.0.rooms.insert(room_id.to_owned(), Arc::clone(&room));
        Ok(Some(room))
    }

    /// The rooms with these ids, in their order, as far as this server knows them. From memory, or in two
    /// round trips.
    async fn find_rooms(
        &self,
        snapshot: &Snapshot,
        ids: &[OwnedRoomId],
    ) -> error::Result<Vec<Option<Arc<Room>>>> {
        let mut found: Vec<_> = ids.iter().map(|id| self.0.rooms.get(id)).collect();
        let unknown = ids.iter().zip(&found).filter(|(_, room)| room.is_none());
        let unknown = unknown.map(|(id, _)| self.storage().room_hash(id));
        let unknown: Vec<_> = unknown.collect();
        if unknown.is_empty() {
            return Ok(found);
        }
        let rows = snapshot.multi_get(&schema::ROOM_BY_NAME, &unknown).await?;
        let shorts: Vec<_> = rows.iter().flatten().map(|row| row.value).collect();
        let mut rooms = self.by_short(snapshot, &shorts).await?.into_iter();
        let places = found.iter_mut().filter(|room| room.is_none());
        for (place, _) in places.zip(rows).filter(|(_, row)| row.is_some()) {
            *place = rooms.next();
        }
        for room in found.iter().flatten() {
            let id = room.room_id.clone();
            self.0.rooms.insert(id, Arc::clone(room));
        }
        Ok(found)
    }

    /// The rooms with these short ids, in their order. From memory, or in one round trip.
    ///
    /// # Errors
    ///
    /// Internal, if one of them is not there.
    pub async fn by_short(
        &self,
        snapshot: &Snapshot,
        shorts: &[ShortRoomId],
    ) -> error::Result<Vec<Arc<Room>>> {
        let unknown: Vec<_> = shorts
            .iter()
            .copied()
            .filter(|short| self.0.rooms_by_short.get(short).is_none())
            .collect();
        let rows = if unknown.is_empty() {
            Vec::new()
        } else {
            let rows = snapshot.multi_get(&schema::ROOM_BY_SHORT_ID, &unknown);
            rows.await?
        };
        let mut read = HashMap::new();
        for (short, row) in unknown.into_iter().zip(rows) {
            let row = row.ok_or_else(|| error::internal("a room is named that is not there"))?;
            let room = Arc::new(Room::from_row(self.storage(), short, &row.value)?);
            self.0.rooms_by_short.insert(short, Arc::clone(&room));
            read.insert(short, room);
        }
        shorts
            .iter()
            .map(|short| {
                read.get(short)
                    .cloned()
                    .or_else(|| self.0.rooms_by_short.get(short))
                    .ok_or_else(|| error::internal("more rooms at once than are remembered"))
            })
            .collect()
    }

    /// The same, for those who may still name rooms that are gone.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn find_by_short(
        &self,
        snapshot: &Snapshot,
        shorts: &[ShortRoomId],
    ) -> error::Result<Vec<Option<Arc<Room>>>> {
        let mut found: Vec<_> = shorts
            .iter()
            .map(|short| self.0.rooms_by_short.get(short))
            .collect();
        let unknown = shorts.iter().zip(&found);
        let unknown = unknown.filter(|(_, room)| room.is_none());
        let unknown: Vec<_> = unknown.map(|(short, _)| *short).collect();
        if unknown.is_empty() {
            return Ok(found);
        }
        let rows = snapshot.multi_get(&schema::ROOM_BY_SHORT_ID, &unknown);
        let mut rows = unknown.iter().zip(rows.await?);
        for place in found.iter_mut().filter(|room| room.is_none()) {
            if let Some((short, Some(row))) = rows.next() {
                let room = Arc::new(Room::from_row(self.storage(), *short, &row.value)?);
                self.0.rooms_by_short.insert(*short, Arc::clone(&room));
                *place = Some(room);
            }
        }
        Ok(found)
    }

    /// The room of a short id, if it is not gone.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub(crate) async fn find_short(&self, short: ShortRoomId) -> error::Result<Option<Arc<Room>>> {
        let snapshot = self.snapshot().await?;
        let found = self.find_by_short(&snapshot, &[short]).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// The room of that id.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if this server does not know it: whether a room exists is not told to those
    /// who are not in it.
    pub async fn room(&self, room_id: &RoomId) -> error::Result<Arc<Room>> {
        self.find_room(room_id)
            .await?
            .ok_or_else(|| error::forbidden("You are not in this room, or it does not exist"))
    }

    /// Reads anew what is remembered of a room.
    fn forget_cached(&self, room_id: &RoomId) {
        if let Some((_, room)) = self.0.rooms.remove(room_id) {
            self.forget_cached_by_short(room.short);
        }
    }

    fn forget_cached_by_short(&self, short: ShortRoomId) {
        self.0.rooms_by_short.remove(&short);
        self.0.writers.remove(&short);
    }

    fn writer(&self, room: &Arc<Room>) -> Arc<RoomWriter> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::new(RoomWriter::new(Arc::clone(room))));
        match self.0.writers.get_or_insert_with(&room.short, new) {
            Ok(writer) => writer,
            Err(never) => match never {},
        }
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rooms({})", self.server_name())
    }
}
