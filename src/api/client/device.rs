//! A user's own devices.

use bytes::Bytes;
use error::Result;
use http::{HeaderValue, Response, StatusCode, header};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{
        Device, delete_device, delete_devices, get_device, get_devices, update_device,
    },
};

use crate::{Call, Content, Server};

/// The most devices deleted by one request.
const DELETED: usize = 1_000;

/// [`GET /devices`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices).
pub(super) async fn get_devices(
    server: Server,
    call: Call<get_devices::v3::Request>,
) -> Result<get_devices::v3::Response> {
    let devices = server.users.devices(call.caller.user).await?;
    let devices = devices.into_iter().map(shown).collect();
    Ok(get_devices::v3::Response::new(devices))
}

/// [`GET /devices/{deviceId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid).
pub(super) async fn get_device(
    server: Server,
    call: Call<get_device::v3::Request>,
) -> Result<get_device::v3::Response> {
    let found = server
        .users
        .find_device(call.caller.user, &call.device_id)
        .await?;
    let device = found.ok_or_else(|| error::not_found("You have no such device"))?;
    Ok(get_device::v3::Response::new(shown(device)))
}

/// [`PUT /devices/{deviceId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid).
/// Application services make devices with it too, which Ruma's response cannot say.
pub(super) async fn update_device(
    server: Server,
    call: Call<update_device::v3::Request>,
) -> Result<Response<Content>> {
    let (user, name) = (call.caller.user, call.display_name.as_deref());
    let users = &server.users;
    let made = if call.caller.service.is_some() {
        users.put_device(user, &call.device_id, name).await?
    } else {
        users.rename_device(user, &call.device_id, name).await?;
        false
    };
    let mut response = Response::new(Content::Whole(Bytes::from_static(b"{}")));
    if made {
        *response.status_mut() = StatusCode::CREATED;
    }
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// [`DELETE /devices/{deviceId}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid).
pub(super) async fn delete_device(
    server: Server,
    call: Call<delete_device::v3::Request>,
) -> Result<delete_device::v3::Response> {
    let purpose = format!("delete_device {}", call.device_id);
    let auth = call.auth.as_ref();
    server
        .users
        .prove_again_or_serve(&call.caller, &purpose, auth)
        .await?;
    server
        .users
        .delete_devices(call.caller.user, &[&call.device_id])
        .await?;
    Ok(delete_device::v3::Response::new())
}

/// [`POST /delete_devices`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices).
pub(super) async fn delete_devices(
    server: Server,
    call: Call<delete_devices::v3::Request>,
) -> Result<delete_devices::v3::Response> {
    if call.devices.len() > DELETED {
        return Err(error::invalid_param(format!(
            "At most {DELETED} devices can be deleted at once"
        )));
    }
    // The same devices in another order are the same request.
    let mut devices: Vec<_> = call.devices.iter().map(AsRef::as_ref).collect();
    devices.sort_unstable();
    devices.dedup();
    let purpose = format!("delete_devices {devices:?}");
    let auth = call.auth.as_ref();
    server
        .users
        .prove_again_or_serve(&call.caller, &purpose, auth)
        .await?;
    server
        .users
        .delete_devices(call.caller.user, &devices)
        .await?;
    Ok(delete_devices::v3::Response::new())
}

fn shown(device: users::Device) -> Device {
    let mut shown = Device::new(device.device_id);
    shown.display_name = device.display_name;
    shown.last_seen_ip = device.last_seen_ip;
    shown.last_seen_ts = device
        .last_seen_ts
        .map(|ts| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ts)));
    shown
}
