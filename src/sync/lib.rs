//! What changed for a device since it last asked, for `/sync` and sliding sync to encode.
//!
//! [`Syncs::sync`] finds out in which of the device's rooms something happened ([`changes`]), reads what
//! that was ([`joined`], [`left`], all from one view), and waits if it was nothing. The result is
//! [`Update`], which knows nothing of how it is going to be written; [`v3`] writes it for `/sync`.

mod changes;
mod fields;
mod joined;
mod left;
mod live;
mod state;
mod summary;
mod token;
mod update;
mod v3;

use std::{sync::Arc, time::Duration};

use rooms::{Rooms, Viewer};
use ruma::api::client::{filter::FilterDefinition, sync::sync_events};
use storage::{Position, Snapshot, Storage};
use users::Users;

use self::live::{Live, Lives};
pub use self::{
    token::{EphemeralCursor, NoToken, Token},
    update::{Invited, Joined, Left, Timeline, Update},
};

/// The longest wait of one poll.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// What devices are told; clones share what is known of them.
#[derive(Clone, Debug)]
pub struct Syncs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Storage,
    users: Users,
    rooms: Rooms,
    lives: Lives,
}

/// What a device asks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub viewer: Viewer,
    /// What it knows; nothing at first.
    pub since: Option<Token>,
    /// What it wants.
    pub filter: FilterDefinition,
    /// Whether it wants the whole state of all rooms, whatever it knows.
    pub full_state: bool,
    /// Whether it wants the state after the timeline instead of the state before it (MSC4222).
    pub state_after: bool,
    /// How long to wait for something to happen.
    pub timeout: Duration,
}

impl Syncs {
    /// The syncs of these people and rooms.
    pub fn new(storage: &Storage, users: &Users, rooms: &Rooms) -> Self {
        Self(Arc::new(Inner {
            storage: storage.clone(),
            users: users.clone(),
            rooms: rooms.clone(),
            lives: Lives::default(),
        }))
    }

    /// What changed since the device's token, as soon as something did: at the latest after the time it
    /// gave, or when `stop` is done.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn sync(
        &self,
        request: &Request,
        stop: impl Future<Output = ()>,
    ) -> error::Result<sync_events::v3::Response> {
        let mut request = request.clone();
        // A token of another history (a restored backup) is of no use: the device starts anew.
        let epoch = self.0.storage.epoch();
        request.since = request
            .since
            .filter(|since| since.position.epoch() == epoch);
        let (user, device) = (request.viewer.short, request.viewer.device);
        let mut live = self.0.lives.take(&self.0.storage, user, device);
        let answer = self.poll(&request, &mut live, stop).await;
        self.0.lives.put_back(user, device, live);
        let (update, token) = answer?;
        Ok(v3::encode(&request, update, token))
    }

    async fn poll(
        &self,
        request: &Request,
        live: &mut Live,
        stop: impl Future<Output = ()>,
    ) -> error::Result<(Update, Token)> {
        let end = tokio::time::sleep(request.timeout.min(LONGEST_WAIT));
        tokio::pin!(end, stop);
        if let Some(since) = &request.since {
            live.begin(since.position);
        }
        loop {
            let (update, token) = self.look(request, live).await?;
            let since = match &request.since {
                Some(since) if update.is_empty() && !request.full_state => since,
                _ => {
                    live.told(token.position);
                    return Ok((update, token));
                }
            };
            live.nothing_new(since.position);
            tokio::select! {
                () = live.wait() => {}
                () = &mut end => {
                    live.told(token.position);
                    return Ok((update, token));
                }
                () = &mut stop => {
                    live.told(token.position);
                    return Ok((update, token));
                }
            }
        }
    }

    /// Everything that changed, as of now.
    async fn look(&self, request: &Request, live: &mut Live) -> error::Result<(Update, Token)> {
        let ephemeral = EphemeralCursor {
            run: self.0.rooms.run(),
            serial: self.0.rooms.serials().latest(),
        };
        let (snapshot, changes) = self.changes(request, live).await?;
        let reading = Reading {
            syncs: self,
            request,
            snapshot: &snapshot,
        };
        let token = Token {
            position: snapshot.position(),
            to_device: snapshot.position(),
            ephemeral,
        };
        Ok((reading.update(changes).await?, token))
    }
}

/// One look at everything, from one view.
struct Reading<'a> {
    syncs: &'a Syncs,
    request: &'a Request,
    snapshot: &'a Snapshot,
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
        self.request.since.map(|since| since.position)
    }

    async fn update(&self, changes: changes::Changes) -> error::Result<Update> {
        Ok(Update {
            joined: self.joined(&changes).await?,
            left: self.left(&changes).await?,
            invited: self.invited(&changes).await?,
            knocked: self.knocked(&changes).await?,
            account_data: self.global_account_data(&changes).await?,
        })
    }
}
