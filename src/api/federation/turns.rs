//! The transactions of one server are taken in one after the other, and not many of them wait.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use error::Result;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::OwnedMutexGuard;

/// Transactions of one server that wait for their turn, at most. A server sends the next one when it was
/// answered: more are repetitions, of a server that has lost its patience.
const WAITING_MAX: usize = 4;
/// When to ask again whose turn it is.
const SOON: Duration = Duration::from_secs(1);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<OwnedServerName, Arc<Turn>>>);

#[derive(Debug, Default)]
struct Turn {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Those who have it or wait for it.
    wanted: AtomicUsize,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    _waited: Wanted<'a>,
    _lock: OwnedMutexGuard<()>,
}

/// Somebody who has a turn or waits for it.
#[derive(Debug)]
struct Wanted<'a> {
    turns: &'a Turns,
    server: &'a ServerName,
    turn: Arc<Turn>,
}

impl Turns {
    /// Waits for the turn of a server.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` if too many wait.
    pub(crate) async fn take<'a>(&'a self, server: &'a ServerName) -> Result<Taken<'a>> {
        let wanted = self.want(server)?;
        let lock = Arc::clone(&wanted.turn.lock).lock_owned().await;
        Ok(Taken {
            _waited: wanted,
            _lock: lock,
        })
    }

    fn want<'a>(&'a self, server: &'a ServerName) -> Result<Wanted<'a>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(turns.entry(server.to_owned()).or_default());
        if turn.wanted.load(Ordering::Relaxed) > WAITING_MAX {
            return Err(error::limit_exceeded(
                Some(SOON),
                "Earlier transactions of your server are not done with yet",
            ));
        }
        turn.wanted.fetch_add(1, Ordering::Relaxed);
        Ok(Wanted {
            turns: self,
            server,
            turn,
        })
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turn.wanted.fetch_sub(1, Ordering::Relaxed) == 1 {
            turns.remove(self.server);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ruma::server_name;

    use super::*;

    #[tokio::test]
    async fn few_wait_and_nobody_is_remembered() {
        let turns = Turns::default();
        let (one, other) = (server_name!("one.org"), server_name!("other.org"));
        let first = turns.take(one).await.unwrap();
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| turns.want(one).unwrap()).collect();
        assert_eq!(turns.take(one).await.unwrap_err().status(), 429);
        drop(turns.take(other).await.unwrap());
        drop(first);
        drop(waiting);
        drop(turns.take(one).await.unwrap());
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
