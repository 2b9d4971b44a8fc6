//! Published rooms.

use error::Result;
use federation::{Failure, Patience, Question};
use rooms::{DirectoryPage, DirectoryQuery, DirectoryToken};
use ruma::{
    RoomAliasId, RoomId, ServerName, UInt,
    api::{
        client::{
            directory::{
                get_public_rooms, get_public_rooms_filtered, get_room_visibility,
                set_room_visibility,
            },
            room::Visibility,
        },
        federation as servers,
    },
    directory::{Filter, RoomNetwork},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::schema::DirectoryRow;

use super::joined_room;
use crate::{Call, Server, elsewhere::error_of, endpoint::Written};

/// The most rooms on a page, and how many there are on one if nobody says.
const MOST: usize = 500;
const PAGE: usize = 100;

/// [`GET /publicRooms`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms).
pub(super) async fn get_public_rooms(
    server: Server,
    call: Call<get_public_rooms::v3::Request>,
) -> Result<Written> {
    if let Some(elsewhere) = elsewhere(&server, call.server.as_deref()) {
        let mut question = servers::directory::get_public_rooms::v1::Request::new();
        question.limit = call.limit;
        question.since = call.since.clone();
        return fetch(&server, elsewhere, question).await;
    }
    let query = query(call.since.as_deref(), call.limit)?;
    written(&server.rooms.public_rooms(&query).await?)
}

/// [`POST /publicRooms`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms).
pub(super) async fn get_public_rooms_filtered(
    server: Server,
    call: Call<get_public_rooms_filtered::v3::Request>,
) -> Result<Written> {
    if let Some(elsewhere) = elsewhere(&server, call.server.as_deref()) {
        let mut question = servers::directory::get_public_rooms_filtered::v1::Request::new();
        question.limit = call.limit;
        question.since = call.since.clone();
        question.filter = call.filter.clone();
        question.room_network = call.room_network.clone();
        return fetch(&server, elsewhere, question).await;
    }
    // No bridges are here whose networks one could ask for.
    if let RoomNetwork::ThirdParty(_) = call.room_network {
        return written(&DirectoryPage::default());
    }
    let query = filtered(query(call.since.as_deref(), call.limit)?, &call.filter);
    written(&server.rooms.public_rooms(&query).await?)
}

/// The server whose rooms are asked for, if that is another one.
fn elsewhere<'a>(server: &Server, asked: Option<&'a ServerName>) -> Option<&'a ServerName> {
    asked.filter(|asked| *asked != server.rooms.server_name())
}

/// What another server publishes, as it says it.
///
/// # Errors
///
/// What it says that refuses, or 502 `M_UNKNOWN`.
async fn fetch<R: Question>(server: &Server, from: &ServerName, question: R) -> Result<Written> {
    #[derive(Deserialize, Serialize)]
    struct Page {
        chunk: Vec<Map<String, Value>>,
        #[serde(flatten)]
        more: Map<String, Value>,
    }
    let asked = server.federation.ask_raw(from, question, Patience::SHORT);
    let answer = asked.await.map_err(|failure| error_of(from, failure))?;
    let page: Page = serde_json::from_slice(answer.body())
        .map_err(|fault| error_of(from, Failure::BadAnswer(fault.to_string())))?;
    let json = serde_json::to_vec(&page).map_err(error::internal)?;
    Ok(Written(json.into()))
}

/// The query, with what a filter wants.
pub(crate) fn filtered(mut query: DirectoryQuery, filter: &Filter) -> DirectoryQuery {
    let types = filter.room_types.iter();
    let types = types.map(|wanted| wanted.as_str().map(ToOwned::to_owned));
    query.search = filter.generic_search_term.clone();
    query.room_types = types.collect();
    query
}

pub(crate) fn query(since: Option<&str>, limit: Option<UInt>) -> Result<DirectoryQuery> {
    let since = since.map(str::parse).transpose().map_err(|_| {
        error::invalid_param("`since` is no token that this server has given out for its directory")
    })?;
    let limit = limit.map_or(PAGE, |limit| {
        usize::try_from(u64::from(limit)).unwrap_or(MOST)
    });
    Ok(DirectoryQuery {
        since,
        limit: limit.clamp(1, MOST),
        ..DirectoryQuery::default()
    })
}

/// A page as clients get it. Ruma's type leaves out the join rule `public`, for which Complement looks.
pub(crate) fn written(page: &DirectoryPage) -> Result<Written> {
    #[derive(Serialize)]
    struct Page<'a> {
        chunk: Vec<Shown<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_batch: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prev_batch: Option<String>,
        total_room_count_estimate: u64,
    }
    let token = |token: &Option<DirectoryToken>| token.as_ref().map(ToString::to_string);
    let page = Page {
        chunk: page
            .rooms
            .iter()
            .map(|(room, row)| shown(&room.room_id, row))
            .collect(),
        next_batch: token(&page.next),
        prev_batch: token(&page.prev),
        total_room_count_estimate: page.total,
    };
    let json = serde_json::to_vec(&page).map_err(error::internal)?;
    Ok(Written(json.into()))
}

/// A room as the directory shows it.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    room_id: &'a RoomId,
    num_joined_members: u64,
    world_readable: bool,
    guest_can_join: bool,
    join_rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    canonical_alias: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_type: Option<&'a str>,
}

pub(crate) fn shown<'a>(room_id: &'a RoomId, row: &'a DirectoryRow) -> Shown<'a> {
    let alias = row.canonical_alias.as_deref();
    Shown {
        room_id,
        num_joined_members: row.joined,
        world_readable: row.world_readable,
        guest_can_join: row.guest_can_join,
        // Without join rules nobody comes in but who is invited.
        join_rule: row.join_rule.as_deref().unwrap_or("invite"),
        canonical_alias: alias.filter(|alias| RoomAliasId::parse(alias).is_ok()),
        name: row.name.as_deref(),
        topic: row.topic.as_deref(),
        avatar_url: row.avatar_url.as_deref(),
        room_type: row.room_type.as_deref(),
    }
}

/// [`GET /directory/list/room/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid).
pub(super) async fn get_room_visibility(
    server: Server,
    call: Call<get_room_visibility::v3::Request>,
) -> Result<get_room_visibility::v3::Response> {
    let room = server.rooms.find_room(&call.room_id).await?;
    let room = room.ok_or_else(|| error::not_found("This server does not know this room"))?;
    let visibility = match server.rooms.is_public(&room).await? {
        true => Visibility::Public,
        false => Visibility::Private,
    };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

/// [`PUT /directory/list/room/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid).
pub(super) async fn set_room_visibility(
    server: Server,
    call: Call<set_room_visibility::v3::Request>,
) -> Result<set_room_visibility::v3::Response> {
    let caller = &call.caller;
    let room = if caller.admin {
        server.rooms.room(&call.room_id).await?
    } else {
        let room = joined_room(&server, &call.room_id, &caller.user_id).await?;
        let may = server
            .rooms
            .may_send_state(&room, &caller.user_id, "m.room.canonical_alias")
            .await?;
        if !may {
            return Err(error::forbidden(
                "You lack the power over the room's aliases, and so over its place in the directory",
            ));
        }
        room
    };
    let public = match call.request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => {
            return Err(error::invalid_param(format!(
                "There is no visibility {other:?}; choose public or private"
            )));
        }
    };
    server.rooms.set_public(&room, public).await?;
    Ok(set_room_visibility::v3::Response::new())
}
