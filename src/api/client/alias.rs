//! Room aliases.

use error::Result;
use federation::Patience;
use ruma::{
    OwnedServerName, RoomAliasId, RoomId,
    api::{
        client::alias::{create_alias, delete_alias, get_alias},
        federation::query::get_room_information,
    },
};

use super::joined_room;
use crate::{Call, Server, elsewhere::error_of};

/// The longest alias, in bytes ([room aliases](https://spec.matrix.org/v1.19/appendices/#room-aliases)).
const LONGEST: usize = 255;

/// The most servers that are taken over from what another one says of its alias.
const MOST_SERVERS: usize = 50;

/// [`PUT /directory/room/{roomAlias}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias).
pub(super) async fn create_alias(
    server: Server,
    call: Call<create_alias::v3::Request>,
) -> Result<create_alias::v3::Response> {
    let alias = &call.room_alias;
    check_local(&server, alias)?;
    if alias.as_str().len() > LONGEST {
        return Err(error::invalid_param(format!(
            "A room alias has at most {LONGEST} bytes"
        )));
    }
    server.users.check_alias(&call.caller, alias)?;
    let creator = &call.caller.user_id;
    let room = joined_room(&server, &call.room_id, creator).await?;
    server.rooms.create_alias(alias, &room, creator).await?;
    Ok(create_alias::v3::Response::new())
}

/// [`GET /directory/room/{roomAlias}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias).
pub(super) async fn get_alias(
    server: Server,
    call: Call<get_alias::v3::Request>,
) -> Result<get_alias::v3::Response> {
    let alias = &call.room_alias;
    let elsewhere = alias.server_name();
    if elsewhere != server.rooms.server_name() {
        let question = get_room_information::v1::Request::new(alias.clone());
        let asked = server.federation.ask(elsewhere, question, Patience::SHORT);
        let mut answer = asked
            .await
            .map_err(|failure| error_of(elsewhere, failure))?;
        answer.servers.truncate(MOST_SERVERS);
        let (room_id, servers) = (answer.room_id, answer.servers);
        return Ok(get_alias::v3::Response::new(room_id, servers));
    }
    let row = server.rooms.find_alias(alias).await?;
    let row = row.ok_or_else(|| error::not_found(format!("There is no room alias {alias}")))?;
    let room_id = RoomId::parse(row.room_id).map_err(error::internal)?;
    let servers = servers_of(&server, &room_id).await?;
    Ok(get_alias::v3::Response::new(room_id, servers))
}

/// Servers by which one comes into a room: this one if it is in it, then those with the most people there, as far
/// as we know when we are not.
pub(crate) async fn servers_of(server: &Server, room_id: &RoomId) -> Result<Vec<OwnedServerName>> {
    let own = server.rooms.server_name();
    let Some(room) = server.rooms.find_room(room_id).await? else {
        return Ok(vec![own.to_owned()]);
    };
    let snapshot = server.rooms.snapshot().await?;
    let there = room.servers(&server.rooms, &snapshot, MOST_SERVERS).await?;
    let there = there.into_iter().map(|row| row.name);
    let others = there.filter_map(|name| OwnedServerName::try_from(name).ok());
    let others = others.filter(|server| server != own);
    let mut servers: Vec<_> = others.collect();
    if servers.is_empty() || room.is_ours(&server.rooms, &snapshot).await? {
        servers.insert(0, own.to_owned());
    }
    Ok(servers)
}

/// [`DELETE /directory/room/{roomAlias}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias).
pub(super) async fn delete_alias(
    server: Server,
    call: Call<delete_alias::v3::Request>,
) -> Result<delete_alias::v3::Response> {
    let caller = &call.caller;
    check_local(&server, &call.room_alias)?;
    let of_service = server.users.check_alias(caller, &call.room_alias)?;
    server
        .rooms
        .delete_alias(
            &call.room_alias,
            &caller.user_id,
            caller.admin || of_service,
        )
        .await?;
    Ok(delete_alias::v3::Response::new())
}

/// Other servers' aliases are not ours to change.
fn check_local(server: &Server, alias: &RoomAliasId) -> Result<()> {
    if alias.server_name() == server.rooms.server_name() {
        Ok(())
    } else {
        Err(error::invalid_param("This alias belongs to another server"))
    }
}
