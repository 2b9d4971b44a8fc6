//! What those who administer the server do about people ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-administration

use error::Result;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::client::admin::{
        get_user_info::{self, v3::ConnectionInfo, v3::DeviceInfo, v3::SessionInfo},
        is_user_locked, is_user_suspended, lock_user, suspend_user,
    },
};
use users::{Account, Requester};

use crate::{
    Call, Server,
    admin::{check_admin, check_local},
};

/// [`GET /admin/whois/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid).
pub(super) async fn get_user_info(
    server: Server,
    call: Call<get_user_info::v3::Request>,
) -> Result<get_user_info::v3::Response> {
    if call.caller.user_id != call.user_id {
        check_admin(&call.caller)?;
    }
    check_local(&server, &call.user_id)?;
    let user = server.users.find_short_id(&call.user_id).await?;
    let user = user.ok_or_else(nobody)?;
    let mut response = get_user_info::v3::Response::new();
    for device in server.users.devices(user).await? {
        let mut connection = ConnectionInfo::new();
        connection.ip = device.last_seen_ip;
        connection.last_seen = device
            .last_seen_ts
            .map(|ts| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ts)));
        connection.user_agent = device.last_seen_user_agent;
        let mut session = SessionInfo::new();
        session.connections = vec![connection];
        let mut info = DeviceInfo::new();
        info.sessions = vec![session];
        response.devices.insert(device.device_id.to_string(), info);
    }
    response.user_id = Some(call.request.user_id);
    Ok(response)
}

/// [`GET /admin/lock/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminlockuserid).
pub(super) async fn is_user_locked(
    server: Server,
    call: Call<is_user_locked::v1::Request>,
) -> Result<is_user_locked::v1::Response> {
    let account = moderated(&server, &call.caller, &call.user_id).await?;
    Ok(is_user_locked::v1::Response::new(account.locked))
}

/// [`PUT /admin/lock/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminlockuserid).
pub(super) async fn lock_user(
    server: Server,
    call: Call<lock_user::v1::Request>,
) -> Result<lock_user::v1::Response> {
    let (user_id, locked) = (&call.user_id, call.locked);
    check_other(&call.caller, user_id)?;
    moderated(&server, &call.caller, user_id).await?;
    server.users.set_locked(user_id, locked).await?;
    Ok(lock_user::v1::Response::new(locked))
}

/// [`GET /admin/suspend/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1adminsuspenduserid).
pub(super) async fn is_user_suspended(
    server: Server,
    call: Call<is_user_suspended::v1::Request>,
) -> Result<is_user_suspended::v1::Response> {
    let account = moderated(&server, &call.caller, &call.user_id).await?;
    Ok(is_user_suspended::v1::Response::new(account.suspended))
}

/// [`PUT /admin/suspend/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv1adminsuspenduserid).
pub(super) async fn suspend_user(
    server: Server,
    call: Call<suspend_user::v1::Request>,
) -> Result<suspend_user::v1::Response> {
    let (user_id, suspended) = (&call.user_id, call.suspended);
    check_other(&call.caller, user_id)?;
    moderated(&server, &call.caller, user_id).await?;
    server.users.set_suspended(user_id, suspended).await?;
    Ok(suspend_user::v1::Response::new(suspended))
}

/// The account that an administrator asks about. Whether there is one is told to nobody else.
///
/// # Errors
///
/// 403 `M_FORBIDDEN` if the requester is no administrator or the other one is, 400 `M_INVALID_PARAM` for a
/// user of another server, 404 `M_NOT_FOUND`.
async fn moderated(server: &Server, requester: &Requester, user_id: &UserId) -> Result<Account> {
    check_admin(requester)?;
    check_local(server, user_id)?;
    let account = server.users.find_account(user_id).await?;
    let account = account.filter(|account| !account.deactivated);
    let account = account.ok_or_else(nobody)?;
    if account.admin && account.user != requester.user {
        return Err(error::forbidden("This is another administrator"));
    }
    Ok(account)
}

/// Nobody locks or suspends themselves.
fn check_other(requester: &Requester, user_id: &UserId) -> Result<()> {
    match requester.user_id == user_id {
        true => Err(error::forbidden("This is your own account")),
        false => Ok(()),
    }
}

fn nobody() -> error::Error {
    error::not_found("There is no such user on this server")
}
