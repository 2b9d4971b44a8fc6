//! The word that the server is about to stop.

use tokio::sync::watch;

/// Tells everybody who waits for something that the server is about to stop: listeners accept no
/// more, long polls answer at once, followers save their place. Clones share the word; it is given
/// once and not taken back.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shutdown {
    /// Begins it.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns as soon as it has begun. A long poll awaits this beside what it waits for.
    pub async fn begun(&self) {
        // Fails only when the sender is gone, and `self` is one.
        let _ = self.0.subscribe().wait_for(|begun| *begun).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn wakes_those_who_wait_and_does_not_hold_those_who_come_late() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.has_begun());
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.begun().await }
        });
        shutdown.begin();
        waiting.await.unwrap();
        shutdown.begun().await;
        assert!(shutdown.has_begun());
    }
}
