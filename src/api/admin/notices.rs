//! What the server has to say to people ([Synapse's documentation]): each has a room for it, in which the
//! user of the setting `server_notices.user` speaks.
//!
//! [Synapse's documentation]: https://element-hq.github.io/synapse/latest/admin_api/server_notices.html

use std::sync::Arc;

use error::Result;
use http::StatusCode;
use rooms::{Draft, Group, NewRoomRequest, Preset, Room, Said};
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde_json::{Map, Value, json, value::to_raw_value};
use storage::{OnceKey, schema::Membership};
use users::{Account, NewAccount};

use super::check_local;
use crate::{
    Call, Server,
    client::{add_tag, transaction},
};

/// The tag of such a room ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-notices
const TAG: &str = "m.server_notice";

/// `POST /_synapse/admin/v1/send_server_notice`.
pub mod send_server_notice {
    use ruma::{
        OwnedEventId, OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };
    use serde_json::{Map, Value};

    metadata! {
        method: POST,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/send_server_notice",
    }

    /// What, and to whom.
    #[request]
    pub struct Request {
        /// To whom.
        pub user_id: OwnedUserId,
        /// The type of the event; `m.room.message` where none is said.
        #[serde(rename = "type")]
        pub event_type: Option<String>,
        /// The state key, for an event that is state.
        pub state_key: Option<String>,
        /// The content of the event.
        pub content: Map<String, Value>,
    }

    /// What was sent.
    #[response]
    pub struct Response {
        /// The event.
        pub event_id: OwnedEventId,
    }
}

/// `PUT /_synapse/admin/v1/send_server_notice/{txnId}`.
pub mod send_server_notice_once {
    use ruma::{
        OwnedEventId, OwnedTransactionId, OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };
    use serde_json::{Map, Value};

    metadata! {
        method: PUT,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/send_server_notice/{txn_id}",
    }

    /// What, and to whom.
    #[request]
    pub struct Request {
        /// The transaction id: the same one sends nothing twice.
        #[ruma_api(path)]
        pub txn_id: OwnedTransactionId,
        /// To whom.
        pub user_id: OwnedUserId,
        /// The type of the event; `m.room.message` where none is said.
        #[serde(rename = "type")]
        pub event_type: Option<String>,
        /// The state key, for an event that is state.
        pub state_key: Option<String>,
        /// The content of the event.
        pub content: Map<String, Value>,
    }

    /// What was sent.
    #[response]
    pub struct Response {
        /// The event.
        pub event_id: OwnedEventId,
    }
}

/// What is to be said.
struct Notice {
    user_id: OwnedUserId,
    event_type: Option<String>,
    state_key: Option<String>,
    content: Map<String, Value>,
    once: Option<OnceKey>,
}

pub(super) async fn send_server_notice(
    server: Server,
    call: Call<send_server_notice::Request>,
) -> Result<send_server_notice::Response> {
    let request = call.request;
    let notice = Notice {
        user_id: request.user_id,
        event_type: request.event_type,
        state_key: request.state_key,
        content: request.content,
        once: None,
    };
    let event_id = send(&server, notice).await?;
    Ok(send_server_notice::Response { event_id })
}

pub(super) async fn send_server_notice_once(
    server: Server,
    call: Call<send_server_notice_once::Request>,
) -> Result<send_server_notice_once::Response> {
    let request = call.request;
    let action = ["send_server_notice"];
    let (once, _) = transaction(&server, &call.caller, &action, &request.txn_id)?;
    let notice = Notice {
        user_id: request.user_id,
        event_type: request.event_type,
        state_key: request.state_key,
        content: request.content,
        once: Some(once),
    };
    let event_id = send(&server, notice).await?;
    Ok(send_server_notice_once::Response { event_id })
}

async fn send(server: &Server, notice: Notice) -> Result<OwnedEventId> {
    let speaker = server.rooms.notices_user().ok_or_else(|| {
        error::unknown(
            StatusCode::BAD_REQUEST,
            "This server says nothing to people: its operator has not set `server_notices.user`",
        )
    })?;
    check_local(server, &notice.user_id)?;
    let account = server.users.find_account(&notice.user_id).await?;
    let account = account
        .filter(|account| !account.deactivated && *account.user_id != *speaker)
        .ok_or_else(|| error::not_found("There is no such user on this server"))?;
    let room = room_with(server, speaker, &account).await?;
    let content = to_raw_value(&notice.content).map_err(error::internal)?;
    let event_type = notice.event_type.as_deref().unwrap_or("m.room.message");
    let mut draft = Draft::message(speaker.to_owned(), event_type, content);
    draft.state_key = notice.state_key;
    let mut group = Group::one(draft);
    group.once = notice.once;
    let sent = server.rooms.send(&room, group).await?.into_iter().next();
    sent.ok_or_else(|| error::internal("a notice became no event"))
}

/// The room in which the server talks to somebody, who is in it or invited to it.
async fn room_with(server: &Server, speaker: &UserId, account: &Account) -> Result<Arc<Room>> {
    // One after another: two first notices make one room.
    let _alone = server.making_notices_room.lock().await;
    let Some(room) = server.rooms.find_notices_room(account.user).await? else {
        return make_room(server, speaker, account).await;
    };
    let snapshot = server.rooms.snapshot().await?;
    let user_id = &account.user_id;
    match room.membership(&server.rooms, &snapshot, user_id).await? {
        Some(Membership::Join | Membership::Invite) => {}
        _ => {
            let said = Said::default();
            server.rooms.invite(&room, speaker, user_id, said).await?;
        }
    }
    Ok(room)
}

async fn make_room(server: &Server, speaker: &UserId, account: &Account) -> Result<Arc<Room>> {
    make_speaker(server, speaker).await?;
    let levels = json!({ "users_default": -10 });
    let new = NewRoomRequest {
        creator: speaker.to_owned(),
        version: server.config.server.default_room_version.clone(),
        creation_content: Map::new(),
        preset: Preset::PrivateChat,
        public: false,
        initial_state: Vec::new(),
        invite: vec![account.user_id.clone()],
        is_direct: false,
        name: Some(server.config.server_notices.room_name.clone()),
        topic: None,
        alias: None,
        power_level_content_override: levels.as_object().cloned(),
        notices_of: Some(account.user),
    };
    let room_id = server.rooms.create(new).await?;
    let room = server.rooms.room(&room_id).await?;
    add_tag(server, account.user, room.short, TAG).await?;
    Ok(room)
}

/// The account of who talks for the server, which nobody can log in to.
async fn make_speaker(server: &Server, speaker: &UserId) -> Result<()> {
    if server.users.find_short_id(speaker).await?.is_some() {
        return Ok(());
    }
    let new = NewAccount {
        username: speaker.localpart(),
        ..NewAccount::default()
    };
    let account = server.users.create(new).await?;
    let name = json!(server.config.server_notices.display_name);
    let users = &server.users;
    users
        .set_profile_field(account.user, "displayname", name)
        .await
}
