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

/// MSC3391: taking global account data back.
pub(super) mod delete_global_account_data {
    pub(crate) mod unstable {
        use ruma::{
            OwnedUserId,
            api::{auth_scheme::AccessToken, request, response},
            metadata,
        };

        metadata! {
            method: DELETE,
            rate_limited: true,
            authentication: AccessToken,
            path: "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}",
        }

        /// Whose, and of which type.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(path)]
            pub(crate) user_id: OwnedUserId,
            #[ruma_api(path)]
            pub(crate) event_type: String,
        }

        /// Nothing to say.
        #[response]
        pub(crate) struct Response {}
    }
}

/// MSC3391: taking account data of a room back.
pub(super) mod delete_room_account_data {
    pub(crate) mod unstable {
        use ruma::{
            OwnedRoomId, OwnedUserId,
            api::{auth_scheme::AccessToken, request, response},
            metadata,
        };

        metadata! {
            method: DELETE,
            rate_limited: true,
            authentication: AccessToken,
            path: "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{event_type}",
        }

        /// Whose, of which room and of which type.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(path)]
            pub(crate) user_id: OwnedUserId,
            #[ruma_api(path)]
            pub(crate) room_id: OwnedRoomId,
            #[ruma_api(path)]
            pub(crate) event_type: String,
        }

        /// Nothing to say.
        #[response]
        pub(crate) struct Response {}
    }
}

/// `DELETE /user/{userId}/account_data/{type}` of MSC3391.
pub(super) async fn delete_global_account_data(
    server: Server,
    call: Call<delete_global_account_data::unstable::Request>,
) -> Result<delete_global_account_data::unstable::Response> {
    check_own(&call.caller, &call.user_id)?;
    let users = &server.users;
    users
        .delete_account_data(call.caller.user, None, &call.event_type)
        .await?;
    Ok(delete_global_account_data::unstable::Response {})
}

/// `DELETE /user/{userId}/rooms/{roomId}/account_data/{type}` of MSC3391.
pub(super) async fn delete_room_account_data(
    server: Server,
    call: Call<delete_room_account_data::unstable::Request>,
) -> Result<delete_room_account_data::unstable::Response> {
    check_own(&call.caller, &call.user_id)?;
    let room = own_room(&server, &call.caller, &call.room_id).await?;
    let users = &server.users;
    users
        .delete_account_data(call.caller.user, Some(room), &call.event_type)
        .await?;
    Ok(delete_room_account_data::unstable::Response {})
}

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
