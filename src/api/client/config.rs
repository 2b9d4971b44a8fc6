//! Account data: what a client keeps with the server for its user.

use error::Result;
use ruma::{
    RoomId,
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data,
        set_room_account_data,
    },
    serde::Raw,
};

use storage::ShortRoomId;
use users::Requester;

use super::check_own;
use crate::{Call, Server};

/// [`GET /user/{userId}/account_data/{type}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype).
pub(super) async fn get_global_account_data(
    server: Server,
    call: Call<get_global_account_data::v3::Request>,
) -> Result<get_global_account_data::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let event_type = call.event_type.to_string();
    let found = server
        .users
        .find_account_data(call.caller.user, None, &event_type)
        .await?;
    let data = found.ok_or_else(nothing)?;
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(
        data.content,
    )))
}

/// [`PUT /user/{userId}/account_data/{type}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype).
pub(super) async fn set_global_account_data(
    server: Server,
    call: Call<set_global_account_data::v3::Request>,
) -> Result<set_global_account_data::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let event_type = call.event_type.to_string();
    let content = call.data.json();
    server
        .users
        .set_account_data(call.caller.user, None, &event_type, content)
        .await?;
    Ok(set_global_account_data::v3::Response::new())
}

/// [`GET /user/{userId}/rooms/{roomId}/account_data/{type}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidaccount_datatype).
pub(super) async fn get_room_account_data(
    server: Server,
    call: Call<get_room_account_data::v3::Request>,
) -> Result<get_room_account_data::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let room = own_room(&server, &call.caller, &call.room_id).await?;
    let event_type = call.event_type.to_string();
    let users = &server.users;
    let found = users
        .find_account_data(call.caller.user, Some(room), &event_type)
        .await?;
    let data = found.ok_or_else(nothing)?;
    let content = Raw::from_json(data.content);
    Ok(get_room_account_data::v3::Response::new(content))
}

/// [`PUT /user/{userId}/rooms/{roomId}/account_data/{type}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidaccount_datatype).
pub(super) async fn set_room_account_data(
    server: Server,
    call: Call<set_room_account_data::v3::Request>,
) -> Result<set_room_account_data::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let room = own_room(&server, &call.caller, &call.room_id).await?;
    let event_type = call.event_type.to_string();
    let content = call.data.json();
    let users = &server.users;
    users
        .set_account_data(call.caller.user, Some(room), &event_type, content)
        .await?;
    Ok(set_room_account_data::v3::Response::new())
}

/// One may write something down about a room that one has had to do with. What other rooms there are is
/// not told.
///
/// # Errors
///
/// 404 `M_NOT_FOUND` for any other room.
pub(super) async fn own_room(
    server: &Server,
    requester: &Requester,
    room_id: &RoomId,
) -> Result<ShortRoomId> {
    let room = server.rooms.find_own_room(requester.user, room_id).await?;
    let room = room.ok_or_else(|| error::not_found("You have never been in such a room"))?;
    Ok(room.short)
}

fn nothing() -> error::Error {
    error::not_found("There is no account data of this type")
}
