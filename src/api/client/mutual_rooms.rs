//! Rooms that one shares with somebody.

use error::Result;
use ruma::{UInt, UserId};
use storage::ShortRoomId;

use crate::{Call, Server};

/// Rooms on one page.
const PAGE: usize = 500;

/// An endpoint that Ruma has not.
pub(super) mod get_mutual_rooms {
    pub(in crate::client) mod v1 {
        use ruma::{
            OwnedRoomId, UInt,
            api::{auth_scheme::AccessToken, request, response},
            metadata,
        };

        metadata! {
            method: GET,
            rate_limited: true,
            authentication: AccessToken,
            history: {
                unstable("uk.half-shot.msc2666.mutual_rooms") =>
                    "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",
                1.19 => "/_matrix/client/v1/mutual_rooms",
            }
        }

        /// Request of `GET /mutual_rooms`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(query)]
            pub(crate) user_id: String,
            #[ruma_api(query)]
            pub(crate) from: Option<String>,
        }

        /// Response of `GET /mutual_rooms`.
        #[response]
        pub(crate) struct Response {
            pub(crate) joined: Vec<OwnedRoomId>,
            pub(crate) count: UInt,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub(crate) next_batch: Option<String>,
        }
    }
}

/// [`GET /mutual_rooms`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms).
pub(super) async fn get_mutual_rooms(
    server: Server,
    call: Call<get_mutual_rooms::v1::Request>,
) -> Result<get_mutual_rooms::v1::Response> {
    let other = UserId::parse(&call.user_id)
        .map_err(|_| error::invalid_param("`user_id` is not the id of a user"))?;
    if other == call.caller.user_id {
        return Err(error::invalid_param("`user_id` is you"));
    }
    let from = call.from.as_deref().map(room_of).transpose()?;
    let snapshot = server.rooms.snapshot().await?;
    let mut rooms = server
        .rooms
        .mutual_rooms(&snapshot, call.caller.user, &other)
        .await?;
    let count = UInt::new_saturating(rooms.len() as u64);
    rooms.retain(|room| from.is_none_or(|from| *room > from));
    let more = rooms.len() > PAGE;
    rooms.truncate(PAGE);
    let next = rooms.last().filter(|_| more).map(|room| token_of(*room));
    let rooms = server.rooms.by_short(&snapshot, &rooms).await?;
    Ok(get_mutual_rooms::v1::Response {
        joined: rooms.iter().map(|room| room.room_id.clone()).collect(),
        count,
        next_batch: next,
    })
}

/// The token of the page behind a room.
fn token_of(room: ShortRoomId) -> String {
    format!("{:016x}", u64::from_be_bytes(room.0))
}

/// The room that a token names.
fn room_of(token: &str) -> Result<ShortRoomId> {
    u64::from_str_radix(token, 16)
        .map(|room| ShortRoomId(room.to_be_bytes()))
        .map_err(|_| error::invalid_param("`from` is no token that this server gave out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_room() {
        for bytes in [[0; 8], [255; 8], [0, 1, 2, 3, 4, 5, 6, 7]] {
            let room = ShortRoomId(bytes);
            assert_eq!(room_of(&token_of(room)).ok(), Some(room));
        }
        assert!(room_of("x").is_err());
    }
}
