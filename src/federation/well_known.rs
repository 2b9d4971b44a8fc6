//! Which host answers for a server, as it says itself
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver)).

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use storage::Clock;

use crate::places::literal;

/// How many servers' answers are kept.
const KEPT: usize = 20_000;

/// How long an answer is kept that does not say for how long it is good
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names), as the limits below).
const KEPT_BY_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time for which an answer is kept.
const KEPT_AT_MOST: Duration = Duration::from_secs(48 * 60 * 60);

/// The shortest time for which an answer is kept, whatever it says.
const KEPT_AT_LEAST: Duration = Duration::from_secs(5 * 60);

/// How long it is remembered that there was no answer, the first time; each time twice as long.
const FIRST_FAILURE: Duration = Duration::from_secs(60);

/// The longest time for which that is remembered.
const LONGEST_FAILURE: Duration = Duration::from_secs(60 * 60);

/// Who gives up after so long gave up because there was no answer.
const LONG: Duration = Duration::from_secs(3);

/// How long looking may take: much less than whoever wants something of the server has patience for, so that there
/// is time left to ask it where it is without an answer.
pub(crate) const TIME: Duration = Duration::from_secs(6);

/// The longest answer, in bytes.
pub(crate) const MAX_BYTES: usize = 50 << 10;

/// The path that is asked for.
pub(crate) const PATH: &str = "/.well-known/matrix/server";

/// What servers said, as long as it is good.
pub(crate) struct WellKnown {
    clock: Clock,
    kept: Cache<OwnedServerName, Arc<tokio::sync::Mutex<Option<Kept>>>>,
}

#[derive(Clone, Debug)]
struct Kept {
    /// Who answers for it; itself if none.
    delegate: Option<OwnedServerName>,
    /// Until when this is good, on the clock's elapsed time.
    until: Duration,
    /// Until when a delegate that was named counts on, though nothing new is heard.
    trusted_until: Duration,
    /// How often in a row there was no answer.
    failures: u32,
}

impl WellKnown {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            kept: Cache::new(KEPT),
        }
    }

    /// The host that answers for a server, which `fetch` asks if nothing good is remembered. Who comes
    /// meanwhile for the same server waits for that.
    pub(crate) async fn host_of<F>(
        &self,
        server: &ServerName,
        fetch: impl FnOnce() -> F,
    ) -> OwnedServerName
    where
        F: Future<Output = Option<Response<Bytes>>>,
    {
        // An address, or a port, says where the server is.
        if server.port().is_some() || literal(server.host()).is_some() {
            return server.to_owned();
        }
        let place = self.place(server);
        let mut kept = place.lock().await;
        let now = self.clock.elapsed();
        if kept.as_ref().is_none_or(|kept| kept.until <= now) {
            let looking = Looking {
                kept: &mut kept,
                clock: &self.clock,
                began: now,
                ended: false,
            };
            let answer = fetch().await;
            looking.found(answer.as_ref());
        }
        let delegate = kept.as_ref().and_then(|kept| kept.delegate.clone());
        delegate.unwrap_or_else(|| server.to_owned())
    }

    fn place(&self, server: &ServerName) -> Arc<tokio::sync::Mutex<Option<Kept>>> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        match self.kept.get_or_insert_with(server, new) {
            Ok(place) => place,
            Err(never) => match never {},
        }
    }
}

/// Looking for who answers for a server. Whoever waits for it may give up before it ends: what was known stays known,
/// and if it took long by then, it counts as no answer, so that those who come next do not all wait as long.
struct Looking<'a> {
    kept: &'a mut Option<Kept>,
    clock: &'a Clock,
    began: Duration,
    ended: bool,
}

impl Looking<'_> {
    fn found(mut self, answer: Option<&Response<Bytes>>) {
        self.ended = true;
        self.keep(answer);
    }

    fn keep(&mut self, answer: Option<&Response<Bytes>>) {
        let fresh = next(self.kept.take(), answer, self.clock.elapsed());
        *self.kept = Some(fresh);
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let took = self.clock.elapsed().saturating_sub(self.began);
        if !self.ended && took >= LONG {
            self.keep(None);
        }
    }
}

impl fmt::Debug for WellKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WellKnown({})", self.kept.len())
    }
}

/// What is known after an answer, or none, by what was known before.
fn next(old: Option<Kept>, answer: Option<&Response<Bytes>>, now: Duration) -> Kept {
    if let Some((delegate, good_for)) = answer.and_then(read) {
        return Kept {
            delegate: Some(delegate),
            until: now + good_for,
            trusted_until: now + KEPT_AT_MOST,
            failures: 0,
        };
    }
    let failures = old.as_ref().map_or(0, |old| old.failures);
    let factor = 2_u32.saturating_pow(failures.min(16));
    let wait = FIRST_FAILURE.saturating_mul(factor).min(LONGEST_FAILURE);
    let trusted_until = old.as_ref().map_or(now, |old| old.trusted_until);
    Kept {
        // A web server that is down for a while does not move the Matrix server.
        delegate: old
            .and_then(|old| old.delegate)
            .filter(|_| trusted_until > now),
        until: now + wait,
        trusted_until,
        failures: failures.saturating_add(1),
    }
}

/// Who an answer names, and for how long it is good.
fn read(answer: &Response<Bytes>) -> Option<(OwnedServerName, Duration)> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "m.server")]
        server: OwnedServerName,
    }

    if answer.status() != http::StatusCode::OK {
        return None;
    }
    let body: Body = serde_json::from_slice(answer.body()).ok()?;
    Some((body.server, good_for(answer.headers())))
}

/// For how long an answer is good, by its `Cache-Control`.
fn good_for(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let directives = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase());
    let mut good = KEPT_BY_DEFAULT;
    for directive in directives {
        if directive == "no-store" || directive == "no-cache" {
            good = Duration::ZERO;
        } else if let Some(age) = directive.strip_prefix("max-age=")
            && let Ok(seconds) = age.trim_matches('"').parse()
        {
            good = Duration::from_secs(seconds);
        }
    }
    good.clamp(KEPT_AT_LEAST, KEPT_AT_MOST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{cell::Cell, future::ready};

    use futures_util::FutureExt as _;
    use ruma::server_name;

    use super::*;

    fn answer(status: u16, control: &str, body: &str) -> Option<Response<Bytes>> {
        let answer = Response::builder().status(status);
        let answer = answer.header("Cache-Control", control);
        let body = Bytes::copy_from_slice(body.as_bytes());
        Some(answer.body(body).unwrap())
    }

    struct World {
        clock: Clock,
        known: WellKnown,
        asked: Cell<u32>,
    }

    impl World {
        fn new() -> Self {
            let clock = Clock::standing_at(1_000);
            Self {
                known: WellKnown::new(&clock),
                clock,
                asked: Cell::new(0),
            }
        }

        async fn host_of(&self, server: &ServerName, answer: Option<Response<Bytes>>) -> String {
            let fetch = || {
                self.asked.set(self.asked.get() + 1);
                ready(answer)
            };
            self.known.host_of(server, fetch).await.to_string()
        }
    }

    const MOVED: &str = r#"{"m.server":"host.example:443"}"#;

    #[tokio::test]
    async fn an_answer_counts_as_long_as_it_says_within_limits() {
        let server = server_name!("a.example");
        for (control, kept) in [
            ("max-age=3600", 3600),
            ("public, max-age=7200", 7200),
            ("max-age=1", 300),
            ("no-store", 300),
            ("max-age=999999999", 48 * 3600),
            ("private", 24 * 3600),
            ("max-age=soon", 24 * 3600),
        ] {
            let world = World::new();
            let moved = || answer(200, control, MOVED);
            assert_eq!(world.host_of(server, moved()).await, "host.example:443");
            world.clock.advance(Duration::from_secs(kept - 1));
            assert_eq!(world.host_of(server, None).await, "host.example:443");
            assert_eq!(world.asked.get(), 1, "{control}");
            world.clock.advance(Duration::from_secs(2));
            assert_eq!(world.host_of(server, moved()).await, "host.example:443");
            assert_eq!(world.asked.get(), 2, "{control}");
        }
    }

    #[tokio::test]
    async fn what_says_where_it_is_is_not_asked() {
        let world = World::new();
        for name in ["a.example:8448", "192.0.2.7", "[2001:db8::1]", "[::1]:1"] {
            let server = ServerName::parse(name).unwrap();
            let host = world.host_of(&server, answer(200, "", MOVED)).await;
            assert_eq!(host, name);
        }
        assert_eq!(world.asked.get(), 0);
    }

    #[tokio::test]
    async fn who_gives_no_good_answer_answers_for_itself_and_is_asked_less_and_less() {
        let server = server_name!("a.example");
        for bad in [
            None,
            answer(404, "", MOVED),
            answer(302, "", MOVED),
            answer(200, "", "no json"),
            answer(200, "", "{}"),
            answer(200, "", r#"{"m.server":7}"#),
            answer(200, "", r#"{"m.server":"https://host.example"}"#),
            answer(200, "", r#"{"m.server":""}"#),
        ] {
            let world = World::new();
            for wait in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
                let before = world.asked.get();
                assert_eq!(world.host_of(server, bad.clone()).await, "a.example");
                world.clock.advance(Duration::from_secs(wait - 1));
                assert_eq!(world.host_of(server, bad.clone()).await, "a.example");
                assert_eq!(world.asked.get(), before + 1);
                world.clock.advance(Duration::from_secs(1));
            }
        }
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_what_is_known_behind() {
        let server = server_name!("a.example");
        let world = World::new();
        world
            .host_of(server, answer(200, "max-age=3600", MOVED))
            .await;
        world.clock.advance(Duration::from_secs(3601));
        let wait = |seconds| {
            let mut waits = Box::pin(world.known.host_of(server, std::future::pending));
            assert!((&mut waits).now_or_never().is_none());
            world.clock.advance(Duration::from_secs(seconds));
        };
        // Somebody who went away soon says nothing about the web server: it is asked again.
        wait(1);
        assert_eq!(world.host_of(server, None).await, "host.example:443");
        assert_eq!(world.asked.get(), 2);
        world.clock.advance(Duration::from_secs(61));
        // After a while it counts as no answer.
        wait(5);
        assert_eq!(world.host_of(server, None).await, "host.example:443");
        assert_eq!(world.asked.get(), 2);
        // So too where nothing was known.
        let other = server_name!("b.example");
        let mut waits = Box::pin(world.known.host_of(other, std::future::pending));
        assert!((&mut waits).now_or_never().is_none());
        world.clock.advance(Duration::from_secs(5));
        drop(waits);
        assert_eq!(world.host_of(other, None).await, "b.example");
        assert_eq!(world.asked.get(), 2);
    }

    #[tokio::test]
    async fn a_web_server_that_is_down_for_a_day_does_not_move_the_server() {
        let server = server_name!("a.example");
        let world = World::new();
        let moved = answer(200, "max-age=3600", MOVED);
        world.host_of(server, moved).await;
        world.clock.advance(Duration::from_secs(24 * 3600));
        assert_eq!(world.host_of(server, None).await, "host.example:443");
        world.clock.advance(Duration::from_secs(25 * 3600));
        assert_eq!(world.host_of(server, None).await, "a.example");
    }
}
