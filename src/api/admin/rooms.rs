//! Shutting rooms down, removing them, and keeping people out of them ([Synapse's documentation]).
//!
//! [Synapse's documentation]: https://element-hq.github.io/synapse/latest/admin_api/rooms.html

use std::{sync::Arc, time::Duration};

use error::Result;
use rooms::{Kicked, Replacement, Room, ShutDown};
use ruma::{OwnedUserId, RoomId, UserId};
use tokio::time::timeout;

use super::check_local;
use crate::{Call, Server};

/// How long other servers may take to hear who left, before what they are to be told is gone.
const TELLING: Duration = Duration::from_secs(10);

/// How long who asks waits until all is removed. It goes on after that.
const REMOVING: Duration = Duration::from_secs(60);

/// `DELETE /_synapse/admin/v1/rooms/{roomId}`.
pub mod delete_room {
    use ruma::{
        OwnedRoomId, OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };

    metadata! {
        method: DELETE,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/rooms/{room_id}",
    }

    /// Which room, and what is to become of those who are in it.
    #[request]
    pub struct Request {
        /// The room.
        #[ruma_api(path)]
        pub room_id: OwnedRoomId,
        /// Who makes a room in its place, into which the others are put.
        pub new_room_user_id: Option<OwnedUserId>,
        /// What the new room is called.
        pub room_name: Option<String>,
        /// What is said in the new room.
        pub message: Option<String>,
        /// Whether nobody of this server may come into the old one again.
        #[serde(default)]
        pub block: bool,
        /// Whether all that this server holds of the old one is removed.
        #[serde(default = "yes")]
        pub purge: bool,
        /// Whether it is removed even if somebody could not be put out of it.
        #[serde(default)]
        pub force_purge: bool,
    }

    fn yes() -> bool {
        true
    }

    /// What was done.
    #[response]
    pub struct Response {
        /// Who is out of the room.
        pub kicked_users: Vec<OwnedUserId>,
        /// Who could not be put out of it.
        pub failed_to_kick_users: Vec<OwnedUserId>,
        /// Aliases that lead to the new room.
        pub local_aliases: Vec<String>,
        /// The new room.
        pub new_room_id: Option<OwnedRoomId>,
    }
}

/// `GET /_synapse/admin/v1/rooms/{roomId}/block`.
pub mod get_block {
    use ruma::{
        OwnedRoomId, OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };

    metadata! {
        method: GET,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/rooms/{room_id}/block",
    }

    /// Which room.
    #[request]
    pub struct Request {
        /// The room, known here or not.
        #[ruma_api(path)]
        pub room_id: OwnedRoomId,
    }

    /// Whether it is blocked.
    #[response]
    pub struct Response {
        /// Whether nobody of this server may come into it.
        pub block: bool,
        /// Who has blocked it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub user_id: Option<OwnedUserId>,
    }
}

/// `PUT /_synapse/admin/v1/rooms/{roomId}/block`.
pub mod set_block {
    use ruma::{
        OwnedRoomId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };

    metadata! {
        method: PUT,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/rooms/{room_id}/block",
    }

    /// Which room, and what is to hold.
    #[request]
    pub struct Request {
        /// The room, known here or not.
        #[ruma_api(path)]
        pub room_id: OwnedRoomId,
        /// Whether nobody of this server may come into it.
        pub block: bool,
    }

    /// What holds now.
    #[response]
    pub struct Response {
        /// Whether nobody of this server may come into it.
        pub block: bool,
    }
}

/// Whether a room is blocked, and by whom.
pub(super) async fn get_block(
    server: Server,
    call: Call<get_block::Request>,
) -> Result<get_block::Response> {
    let row = server.rooms.find_block(&call.request.room_id).await?;
    let by = row.as_ref().map(|row| UserId::parse(&row.by));
    Ok(get_block::Response {
        block: row.is_some(),
        user_id: by.transpose().map_err(error::internal)?,
    })
}

/// Keeps people of this server out of a room, or lets them in again. Who is in it stays.
pub(super) async fn set_block(
    server: Server,
    call: Call<set_block::Request>,
) -> Result<set_block::Response> {
    let set_block::Request { room_id, block } = call.request;
    match block {
        true => server.rooms.block(&room_id, &call.caller.user_id).await?,
        false => server.rooms.unblock(&room_id).await?,
    }
    Ok(set_block::Response { block })
}

/// Shuts a room down, blocks it and removes it, as far as that is asked.
pub(super) async fn delete_room(
    server: Server,
    call: Call<delete_room::Request>,
) -> Result<delete_room::Response> {
    let request = call.request;
    let rooms = &server.rooms;
    let replacement = match request.new_room_user_id {
        Some(creator) => {
            check_local(&server, &creator)?;
            Some(Replacement {
                creator,
                version: server.config.server.default_room_version.clone(),
                name: request.room_name,
                message: request.message,
            })
        }
        None => None,
    };
    let room = rooms.find_room(&request.room_id).await?;
    let going = rooms.is_being_purged(&request.room_id).await?;
    if room.is_none() && !request.block && !going {
        return Err(error::not_found("This server knows no such room"));
    }
    if request.block {
        let by = &call.caller.user_id;
        rooms.block(&request.room_id, by).await?;
    }
    let mut done = ShutDown::default();
    if let Some(room) = room {
        done = rooms.shut_down(&room, replacement).await?;
        if request.purge {
            purge(&server, &room, request.force_purge).await?;
        }
    }
    if request.purge {
        await_purged(&server, &request.room_id).await?;
    }
    let ids = |people: Vec<Kicked>| -> Vec<OwnedUserId> {
        people.into_iter().map(|person| person.user_id).collect()
    };
    Ok(delete_room::Response {
        kicked_users: ids(done.kicked),
        failed_to_kick_users: ids(done.failed),
        local_aliases: done.aliases,
        new_room_id: done.new_room,
    })
}

/// Removes a room, once other servers were told who left it, or do not answer.
async fn purge(server: &Server, room: &Arc<Room>, force: bool) -> Result<()> {
    if server.rooms.is_shared(room).await? {
        let until = server.rooms.snapshot().await?.position();
        // Whoever does not hear of it in time will be told that we are not there when they speak to us.
        if timeout(TELLING, server.outbox.has_told(until))
            .await
            .is_err()
        {
            tracing::warn!(room = %room.room_id, "a room is removed before all its servers were told that we left");
        }
    }
    server.rooms.purge_shut_down(room, force).await
}

async fn await_purged(server: &Server, room_id: &RoomId) -> Result<()> {
    match timeout(REMOVING, server.rooms.await_purged(room_id)).await {
        Ok(done) => done,
        Err(_) => Ok(()),
    }
}
