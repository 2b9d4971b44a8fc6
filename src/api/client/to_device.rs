//! Messages from device to device.

use error::Result;
use ruma::api::client::to_device::send_event_to_device;

use super::transaction::transaction;
use crate::{Call, Server};

/// [`PUT /sendToDevice/{eventType}/{txnId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid).
pub(super) async fn send_event_to_device(
    server: Server,
    call: Call<send_event_to_device::v3::Request>,
) -> Result<send_event_to_device::v3::Response> {
    let event_type = call.event_type.to_string();
    let action = ["sendToDevice", &event_type];
    let (once, _) = transaction(&server, &call.caller, &action, &call.txn_id)?;
    server
        .users
        .send_to_devices(&call.caller.user_id, &event_type, &call.messages, once)
        .await?;
    Ok(send_event_to_device::v3::Response::new())
}
