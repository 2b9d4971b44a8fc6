//! Aliases of other servers.

use federation::{Failure, Patience};
use http::StatusCode;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, api::federation::query::get_room_information,
};

use crate::Rooms;

/// Servers that are remembered of an answer.
const SERVERS_MAX: usize = 50;

impl Rooms {
    /// What an alias of another server points to, and the servers that are said to be in that room
    /// ([`query/directory`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory)).
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if there is no such alias, 502 `M_UNKNOWN` if its server cannot be asked.
    pub async fn fetch_alias(
        &self,
        alias: &RoomAliasId,
    ) -> error::Result<(OwnedRoomId, Vec<OwnedServerName>)> {
        let question = get_room_information::v1::Request::new(alias.to_owned());
        let server = alias.server_name();
        match self
            .federation()
            .ask(server, question, Patience::SHORT)
            .await
        {
            Ok(answer) => {
                let mut servers = answer.servers;
                servers.truncate(SERVERS_MAX);
                if !servers.iter().any(|one| one == server) {
                    servers.push(server.to_owned());
                }
                Ok((answer.room_id, servers))
            }
            Err(Failure::Refused(refusal)) if refusal.status == StatusCode::NOT_FOUND => {
                Err(error::not_found(format!("There is no room alias {alias}")))
            }
            Err(failure) => {
                tracing::info!(%alias, %failure, "an alias could not be looked up");
                Err(error::unknown(
                    StatusCode::BAD_GATEWAY,
                    "The server of this alias could not be asked",
                ))
            }
        }
    }
}
