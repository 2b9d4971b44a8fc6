//! The one value that everything hangs off.

use std::{fmt, ops::Deref, sync::Arc};

use config::Config;
use error::Result;
use federation::{Federation, Transport};
use media::Media;
use outbox::Outbox;
use rooms::Rooms;
use ruma::{UserId, server_name};
use search::Search;
use storage::{Clock, Random, Storage};
use sync::Syncs;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use users::Users;

use crate::{
    Shutdown, federation::Turns, rate_limit::RateLimits, remote_devices::RESYNCS_MAX,
    router::Router,
};

/// A server: its settings, its storage, its people and rooms, its clock. There is no other global
/// state, so several live in one process and do not know of each other. Clones are the same server.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

/// What a server is put together from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What the operator has set.
    pub config: Config,
    /// Where everything is stored.
    pub storage: Storage,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// The way to other servers.
    pub transport: Arc<dyn Transport>,
}

/// What one finds by looking at a [`Server`].
pub struct Inner {
    parts: Parts,
    /// The people.
    pub users: Users,
    /// The rooms.
    pub rooms: Rooms,
    /// The files that people upload.
    pub media: Media,
    /// What devices are told.
    pub syncs: Syncs,
    /// What can be searched.
    pub search: Search,
    /// What other servers are still to be told.
    pub outbox: Outbox,
    /// What it has to do with other servers.
    pub federation: Federation,
    /// The word that the server is about to stop.
    pub shutdown: Shutdown,
    pub(crate) router: Router,
    /// Whose turn it is to send transactions.
    pub(crate) transaction_turns: Turns,
    pub(crate) rate_limits: RateLimits,
    /// Held by who makes a room in which the server talks to somebody.
    pub(crate) making_notices_room: tokio::sync::Mutex<()>,
    /// Held by those who ask for the devices of somebody elsewhere anew.
    pub(crate) resyncs: Arc<Semaphore>,
    /// Requests that change something and go on even when the client has gone away.
    pub(crate) tasks: TaskTracker,
    /// What goes on beside all requests, until the server stops.
    pub(crate) workers: TaskTracker,
}

impl Server {
    /// Puts a server together: opens its people and rooms on its storage.
    ///
    /// # Errors
    ///
    /// Storage fails, or what was set or stored cannot be worked with.
    pub async fn open(parts: Parts) -> Result<Self> {
        let server_name = match &parts.config.server.name {
            Some(name) => name.clone(),
            None => server_name!("localhost").to_owned(),
        };
        let federation = Federation::open(federation::Parts {
            storage: parts.storage.clone(),
            server_name: server_name.clone(),
            clock: parts.clock.clone(),
            random: parts.random.clone(),
            settings: parts.config.federation.clone(),
            transport: Arc::clone(&parts.transport),
        })
        .await?;
        let settings = users::Settings {
            registration: parts.config.registration.clone(),
            passwords: parts.config.passwords.clone(),
            logins: parts.config.logins.clone(),
            rate_limits: parts.config.rate_limits.clone(),
            support: parts.config.support.clone(),
            limits: parts.config.limits.clone(),
            server_notices: parts.config.server_notices.clone(),
            application_services: parts.config.application_services.clone(),
        };
        let users = Users::open(
            &parts.storage,
            &federation,
            &parts.clock,
            &parts.random,
            settings,
        )
        .await?;
        let media = Media::open(media::Parts {
            storage: parts.storage.clone(),
            server_name: server_name.clone(),
            federation: federation.clone(),
            clock: parts.clock.clone(),
            random: parts.random.clone(),
            folder: parts.config.storage.data.join(media::FOLDER),
            sync: parts.config.storage.sync,
            settings: parts.config.media.clone(),
        })
        .await?;
        let rooms = Rooms::new(rooms::Parts {
            storage: parts.storage.clone(),
            server_name,
            federation: federation.clone(),
            clock: parts.clock.clone(),
            random: parts.random.clone(),
        });
        rooms.set_presence_enabled(parts.config.presence.enabled);
        rooms.set_policy_server(&parts.config.policy_server);
        let speaker = parts.config.server_notices.user.as_str();
        if !speaker.is_empty() {
            let speaker = format!("@{speaker}:{}", rooms.server_name());
            rooms.set_notices_user(UserId::parse(speaker).map_err(error::internal)?);
        }
        let search = Search::new(search::Parts {
            storage: parts.storage.clone(),
            users: users.clone(),
            rooms: rooms.clone(),
            folder: parts.config.storage.data.join("search"),
        });
        let outbox = Outbox::new(outbox::Parts {
            storage: parts.storage.clone(),
            users: users.clone(),
            rooms: rooms.clone(),
            federation: federation.clone(),
            clock: parts.clock.clone(),
            random: parts.random.clone(),
        });
        let storage = parts.storage.clone();
        let server = Self(Arc::new(Inner {
            parts,
            syncs: Syncs::new(&storage, &users, &rooms),
            users,
            rooms,
            media,
            search,
            outbox,
            federation,
            shutdown: Shutdown::default(),
            router: Router::new(crate::routes()).map_err(error::internal)?,
            transaction_turns: Turns::default(),
            rate_limits: RateLimits::default(),
            making_notices_room: tokio::sync::Mutex::default(),
            resyncs: Arc::new(Semaphore::new(RESYNCS_MAX)),
            tasks: TaskTracker::new(),
            workers: TaskTracker::new(),
        }));
        server.rooms.resume_waiting().await?;
        let (rooms, shutdown) = (server.rooms.clone(), server.shutdown.clone());
        server
            .workers
            .spawn(async move { rooms.work_off_jobs(shutdown.begun()).await });
        Ok(server)
    }

    /// Begins what only a server that serves has to do beside its requests: the index of the search follows
    /// the stream, events that are due later are sent, other servers are told. All of it writes by itself, which
    /// a command beside a server that is down has no use for.
    pub fn begin_work(&self) {
        let (search, shutdown) = (self.search.clone(), self.shutdown.clone());
        self.workers
            .spawn(async move { search.follow(shutdown.begun()).await });
        let (rooms, shutdown) = (self.rooms.clone(), self.shutdown.clone());
        self.workers
            .spawn(async move { rooms.send_delayed_events(shutdown.begun()).await });
        let (outbox, shutdown) = (self.outbox.clone(), self.shutdown.clone());
        self.workers
            .spawn(async move { outbox.work(shutdown.begun()).await });
    }
}

impl Deref for Server {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
