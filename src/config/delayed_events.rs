//! Section `delayed_events`.

use std::time::Duration;

section! {
    /// Events that clients leave with the server to be sent later (MSC4140): without them, calls of Element
    /// Call do not notice who has lost their connection.
    pub struct DelayedEvents {
        /// By how much an event may be delayed; none may be if this is zero.
        max_delay: Duration = Duration::from_secs(24 * 60 * 60),

        /// How many events of one person may wait at a time.
        max_scheduled: u32 = 100,
    }
}
