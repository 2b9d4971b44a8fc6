//! What we say of our own keys.

use std::time::Duration;

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

use crate::{Federation, keys_answer};

/// How long others may believe it without asking again.
const VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);

impl Federation {
    /// Our keys as JSON, signed
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#publishing-keys)): the one that signs now and
    /// those that did before.
    pub fn own_keys_answer(&self) -> Vec<u8> {
        let validity = u64::try_from(VALIDITY.as_millis()).unwrap_or(u64::MAX);
        let until = UInt::new_saturating(self.now().saturating_add(validity));
        let keys = self.signing_keys();
        keys_answer::write_own(
            self.server_name(),
            &keys.current(),
            &keys.old(),
            MilliSecondsSinceUnixEpoch(until),
        )
    }
}
