//! The devices of people of this server, for other servers.

use error::Result;
use ruma::{
    UInt,
    api::federation::device::get_devices::{self, v1::UserDevice},
    serde::Raw,
};

use crate::{Call, Server};

/// [`GET /user/devices/{userId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid).
pub(super) async fn get_devices(
    server: Server,
    call: Call<get_devices::v1::Request>,
) -> Result<get_devices::v1::Response> {
    let found = server.users.published_devices(&call.user_id).await?;
    let found = found.ok_or_else(|| error::not_found("There is no such user on this server"))?;
    let stream_id = UInt::new_saturating(found.stream_id);
    let mut response = get_devices::v1::Response::new(call.request.user_id, stream_id);
    response.devices = found
        .devices
        .into_iter()
        .map(|(device, keys, name)| {
            let mut device = UserDevice::new(device, Raw::from_json(keys));
            device.device_display_name = name;
            device
        })
        .collect();
    response.master_key = found.master.map(Raw::from_json);
    response.self_signing_key = found.self_signing.map(Raw::from_json);
    Ok(response)
}
