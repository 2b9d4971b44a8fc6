//! Transaction ids: what a client sends twice is done once ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers

use error::Result;
use ruma::TransactionId;
use storage::{OnceKey, schema::Sent};
use users::Requester;

use crate::Server;

/// The longest transaction id, in bytes ([opaque identifiers]).
///
/// [opaque identifiers]: https://spec.matrix.org/v1.19/appendices/#opaque-identifiers
const LONGEST: usize = 255;

/// The key under which an action is done once, by this device, and the mark by which the device knows
/// the event as its own. `action` is the endpoint and what its path names, whatever its version.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM` for an empty or endless id.
pub(crate) fn transaction(
    server: &Server,
    requester: &Requester,
    action: &[&str],
    transaction_id: &TransactionId,
) -> Result<(OnceKey, Sent)> {
    let id = transaction_id.as_str();
    if id.is_empty() || id.len() > LONGEST {
        return Err(error::invalid_param(format!(
            "A transaction id has 1 to {LONGEST} bytes"
        )));
    }
    let (user, device) = (requester.user_id.as_str(), requester.device_name());
    // None of these holds a zero byte but the last, so that no two lists read the same.
    let name = [&[user, device], action, &[id]].concat().join("\0");
    let once = OnceKey {
        day: OnceKey::day_of(server.clock.now().get().into()),
        name: server.storage.hash("action", name),
    };
    let sent = Sent {
        device: server.storage.user_device_hash(user, device),
        transaction_id: id.to_owned(),
    };
    Ok((once, sent))
}
