//! Servers that did not answer, which are left alone for a while: the longer, the more often it happened.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use error::Result;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use storage::{
    Batch, CommitError, Position, Random, Range, Storage,
    schema::{BACK_OFF_BY_SERVER, BackOffRow},
};

use crate::Federation;

/// How long a server is left alone after its first failure.
const FIRST: Duration = Duration::from_secs(2);

/// From how long on it is worth remembering across a restart.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How many servers are remembered. Of more the one is forgotten that may be asked soonest.
const MAX_SERVERS: usize = if cfg!(test) { 50 } else { 50_000 };

/// Rows that are read together.
const READ_AT_ONCE: usize = if cfg!(test) { 20 } else { 1_000 };

/// The servers that did not answer lately.
pub(crate) struct BackOff {
    storage: Storage,
    random: Random,
    longest: Duration,
    servers: Mutex<Servers>,
}

#[derive(Default)]
struct Servers {
    states: HashMap<OwnedServerName, State>,
    /// Those that may be asked soonest come first.
    by_until: BTreeSet<(u64, OwnedServerName)>,
}

impl Servers {
    fn insert(&mut self, server: OwnedServerName, state: State) {
        self.remove(&server);
        self.by_until.insert((state.until_ts, server.clone()));
        self.states.insert(server, state);
    }

    fn remove(&mut self, server: &ServerName) -> Option<State> {
        let (server, state) = self.states.remove_entry(server)?;
        self.by_until.remove(&(state.until_ts, server));
        Some(state)
    }

    /// Forgets those that may be asked soonest, so that there is room for one more: those of which there are rows.
    fn make_room(&mut self) -> Vec<OwnedServerName> {
        let mut stored = Vec::new();
        while self.states.len() >= MAX_SERVERS
            && let Some((_, server)) = self.by_until.pop_first()
        {
            if self
                .states
                .remove(&server)
                .is_some_and(|state| state.stored)
            {
                stored.push(server);
            }
        }
        stored
    }
}

/// What is to be written of servers: nothing any more of those that have no state.
type Changes = Vec<(OwnedServerName, Option<State>)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// How often in a row it failed.
    failures: u32,
    /// When it last failed, in milliseconds since 1970.
    failed_ts: u64,
    /// Until when it is left alone.
    until_ts: u64,
    /// Whether there is a row of it.
    stored: bool,
}

impl BackOff {
    /// What was remembered.
    pub(crate) async fn open(
        storage: &Storage,
        random: &Random,
        longest: Duration,
    ) -> Result<Self> {
        let mut servers = Servers::default();
        let mut range = Range::prefix(&()).limit(READ_AT_ONCE);
        while servers.states.len() < MAX_SERVERS {
            let snapshot = storage.snapshot(Position::START).await?;
            let rows = snapshot.multi_range(&BACK_OFF_BY_SERVER, &[range]).await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let Some((last, _)) = rows.last() else {
                break;
            };
            range = Range::prefix(&()).after(last).limit(READ_AT_ONCE);
            let left = MAX_SERVERS - servers.states.len();
            for row in rows.into_iter().take(left).map(|(_, found)| found.value) {
                let state = State {
                    failures: row.failures,
                    failed_ts: row.failed_ts,
                    until_ts: row.until_ts,
                    stored: true,
                };
                if let Ok(server) = ServerName::parse(row.server) {
                    servers.insert(server, state);
                }
            }
        }
        Ok(Self {
            storage: storage.clone(),
            random: random.clone(),
            longest,
            servers: Mutex::new(servers),
        })
    }

    /// Until when a server is left alone; none if it may be asked.
    fn until(&self, server: &ServerName, now: u64) -> Option<u64> {
        let until = self.servers.lock().states.get(server)?.until_ts;
        (until > now).then_some(until)
    }

    /// Notes that a server did not answer what it was asked at `began`: what is to be written. Requests that went
    /// out together count once.
    fn note(&self, server: &ServerName, began: u64, now: u64) -> Changes {
        let mut servers = self.servers.lock();
        let before = servers.states.get(server).copied();
        if before.is_some_and(|before| began < before.failed_ts) {
            return Changes::new();
        }
        let forgotten = match before {
            Some(_) => Vec::new(),
            None => servers.make_room(),
        };
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(30));
        let wait = FIRST.saturating_mul(factor).min(self.longest);
        // Some spread, so that what failed together is not tried together for ever.
        let mut spread = [0];
        self.random.fill(&mut spread);
        let spread = wait.saturating_mul(spread[0].into()) / 1024;
        let state = State {
            failures,
            failed_ts: now,
            until_ts: now.saturating_add(milliseconds(wait + spread)),
            stored: wait >= REMEMBERED || before.is_some_and(|before| before.stored),
        };
        servers.insert(server.to_owned(), state);
        let changed = state.stored.then(|| (server.to_owned(), Some(state)));
        let forgotten = forgotten.into_iter().map(|server| (server, None));
        forgotten.chain(changed).collect()
    }

    /// Forgets a server; whether there was a row of it.
    fn clear(&self, server: &ServerName) -> bool {
        let mut servers = self.servers.lock();
        servers.remove(server).is_some_and(|state| state.stored)
    }

    /// Writes what is remembered of servers. What is lost of it is no harm.
    async fn store(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        for (server, state) in changes {
            let key = self.storage.hash("server", &server);
            match state {
                Some(state) => {
                    let row = BackOffRow {
                        server: server.to_string(),
                        failures: state.failures,
                        failed_ts: state.failed_ts,
                        until_ts: state.until_ts,
                    };
                    batch.put(&BACK_OFF_BY_SERVER, &key, &row);
                }
                None => batch.delete(&BACK_OFF_BY_SERVER, &key),
            }
        }
        match self.storage.commit(batch).await {
            Ok(_) | Err(CommitError::Unknown) => {}
            Err(error) => {
                tracing::warn!(%error, "whether servers answer could not be written down");
            }
        }
    }
}

impl fmt::Debug for BackOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackOff({})", self.servers.lock().states.len())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Federation {
    /// Until when a server is left alone because it did not answer lately, in milliseconds since 1970; none
    /// if it may be asked.
    pub fn backing_off(&self, server: &ServerName) -> Option<u64> {
        self.0.back_off.until(server, self.now())
    }

    /// A server spoke: whatever was wrong with it may be over, and it is worth asking.
    pub async fn answered(&self, server: &ServerName) {
        if self.0.back_off.clear(server) {
            let forgotten = vec![(server.to_owned(), None)];
            self.0.back_off.store(forgotten).await;
        }
    }

    /// A server did not answer what it was asked at `began`, in milliseconds since 1970.
    pub(crate) async fn failed(&self, server: &ServerName, began: u64) {
        let changes = self.0.back_off.note(server, began, self.now());
        self.0.back_off.store(changes).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use ruma::server_name;

    use super::*;

    async fn open(storage: &Storage) -> BackOff {
        let longest = Duration::from_secs(600);
        BackOff::open(storage, &Random::seeded(1), longest)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_server_that_fails_again_is_left_alone_for_longer_but_not_for_ever() {
        let back_off = open(&Storage::model()).await;
        let server = server_name!("a.example");
        let mut now = 1_000;
        let mut waits = Vec::new();
        for _ in 0..40 {
            assert_eq!(back_off.until(server, now), None);
            back_off.note(server, now, now);
            let until = back_off.until(server, now).unwrap();
            waits.push(until - now);
            now = until;
        }
        assert!(waits[0] >= 2_000 && waits[0] <= 2_500, "{waits:?}");
        assert!(waits[1] >= 4_000 && waits[1] <= 5_000, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 750_000), "{waits:?}");
        assert!(waits[39] >= 600_000);
        assert_eq!(back_off.until(server_name!("b.example"), now), None);
    }

    #[tokio::test]
    async fn what_was_asked_together_fails_once() {
        let back_off = open(&Storage::model()).await;
        let server = server_name!("a.example");
        back_off.note(server, 1_000, 5_000);
        let until = back_off.until(server, 5_000);
        back_off.note(server, 2_000, 5_001);
        assert_eq!(back_off.until(server, 5_000), until);
        back_off.note(server, 5_000, 6_000);
        assert_ne!(back_off.until(server, 6_000), until);
    }

    #[tokio::test]
    async fn dead_servers_are_remembered_across_a_restart_until_they_speak() {
        let storage = Storage::model();
        let server = server_name!("a.example");
        let back_off = open(&storage).await;
        let mut now = 0;
        for _ in 0..8 {
            back_off.store(back_off.note(server, now, now)).await;
            now = back_off.until(server, now).unwrap();
        }
        let again = open(&storage).await;
        assert_eq!(again.until(server, 0), Some(now));
        assert!(again.clear(server));
        again.store(vec![(server.to_owned(), None)]).await;
        assert_eq!(open(&storage).await.until(server, 0), None);
    }

    #[tokio::test]
    async fn of_more_servers_than_are_remembered_nothing_is_left() {
        let storage = Storage::model();
        let back_off = open(&storage).await;
        let rows = async || {
            let snapshot = storage.snapshot(Position::START).await.unwrap();
            let range = [Range::prefix(&())];
            let rows = snapshot.multi_range(&BACK_OFF_BY_SERVER, &range).await;
            rows.unwrap().remove(0).len()
        };
        // Each has failed so often that it is written down, one after the other.
        let server = |number| ServerName::parse(format!("s{number}.example")).unwrap();
        let mut now = 0;
        for number in 0..MAX_SERVERS + 10 {
            for _ in 0..8 {
                now += 1;
                back_off
                    .store(back_off.note(&server(number), now, now))
                    .await;
            }
        }
        assert_eq!(back_off.servers.lock().states.len(), MAX_SERVERS);
        assert_eq!(back_off.servers.lock().by_until.len(), MAX_SERVERS);
        assert_eq!(rows().await, MAX_SERVERS);
        let again = open(&storage).await;
        let mut left_alone = Vec::new();
        for number in 0..MAX_SERVERS + 10 {
            let until = back_off.until(&server(number), now);
            assert_eq!(again.until(&server(number), now), until);
            left_alone.extend(until.map(|_| server(number)));
        }
        assert_eq!(left_alone.len(), MAX_SERVERS);
        // Who answers is out of both.
        assert!(back_off.clear(&left_alone[30]));
        assert_eq!(back_off.servers.lock().by_until.len(), MAX_SERVERS - 1);
    }
}
