//! The state of a room.

use std::collections::{BTreeMap, BTreeSet};

use error::Result;
use pdu::EventNumber;
use rooms::{Draft, Group, Room, StateKey};
use ruma::{
    RoomAliasId,
    api::client::state::{
        get_state_event_for_key::{self, v3::StateEventFormat},
        get_state_events, send_state_event,
    },
    events::{AnyStateEvent, StateEventType},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{appservice::chosen_time, membership::check_rejects, reading::Reading, the_event};
use crate::{Call, Server};

/// [`PUT /rooms/{roomId}/state/{eventType}/{stateKey}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey).
pub(super) async fn send_state_event(
    server: Server,
    call: Call<send_state_event::v3::Request>,
) -> Result<send_state_event::v3::Response> {
    let request = call.request;
    let room = server.rooms.room(&request.room_id).await?;
    if request.event_type == StateEventType::RoomMember
        && request.state_key == call.caller.user_id.as_str()
        && leaves(request.body.json().get())
    {
        check_rejects(&server, &call.caller, &room).await?;
    }
    if request.event_type == StateEventType::RoomCanonicalAlias {
        check_aliases(&server, &room, request.body.json().get()).await?;
    }
    let content = request.body.into_json();
    let content = match request.event_type {
        StateEventType::RoomMember => without_voucher(content)?,
        _ => content,
    };
    let draft = Draft {
        origin_server_ts: chosen_time(&call.caller, request.timestamp),
        ..Draft::state(
            call.caller.user_id.clone(),
            request.event_type,
            request.state_key,
            content,
        )
    };
    let event_id = the_event(server.rooms.send(&room, Group::one(draft)).await?)?;
    Ok(send_state_event::v3::Response::new(event_id))
}

/// The content of a member event without what is for the server to say: who vouches for a join.
fn without_voucher(content: Box<RawValue>) -> Result<Box<RawValue>> {
    const KEY: &str = "join_authorised_via_users_server";
    let invalid = |fault: serde_json::Error| error::bad_json(fault.to_string());
    let mut members: BTreeMap<String, &RawValue> =
        serde_json::from_str(content.get()).map_err(invalid)?;
    if members.remove(KEY).is_none() {
        return Ok(content);
    }
    to_raw_value(&members).map_err(invalid)
}

/// Whether the content of a member event says that somebody leaves.
fn leaves(content: &str) -> bool {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    serde_json::from_str::<Content>(content).is_ok_and(|content| content.membership == "leave")
}

/// The aliases that `m.room.canonical_alias` names and did not name before must lead to the room.
///
/// # Errors
///
/// 400 `M_BAD_ALIAS` if one leads nowhere or elsewhere, 400 `M_INVALID_PARAM` if one is no alias.
pub(super) async fn check_aliases(server: &Server, room: &Room, content: &str) -> Result<()> {
    #[derive(Default, Deserialize)]
    struct Content {
        alias: Option<String>,
        #[serde(default)]
        alt_aliases: Vec<String>,
    }
    impl Content {
        fn names(self) -> BTreeSet<String> {
            let canonical = self.alias.filter(|alias| !alias.is_empty());
            canonical.into_iter().chain(self.alt_aliases).collect()
        }
    }
    let new: Content = serde_json::from_str(content)
        .map_err(|_| error::bad_json("alias is a string, alt_aliases a list of strings"))?;
    let old = server
        .rooms
        .current_content(room, &StateEventType::RoomCanonicalAlias, "")
        .await?;
    let old = old.and_then(|old| serde_json::from_slice::<Content>(&old).ok());
    let old = old.unwrap_or_default().names();
    for name in new.names().difference(&old) {
        let alias = RoomAliasId::parse(name)
            .map_err(|_| error::invalid_param(format!("{name} is no room alias")))?;
        let row = server.rooms.find_alias(&alias).await?;
        if row.is_none_or(|row| row.room_id != room.room_id.as_str()) {
            return Err(error::bad_alias(format!(
                "The alias {name} does not lead to this room"
            )));
        }
    }
    Ok(())
}

/// [`GET /rooms/{roomId}/state`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate).
pub(super) async fn get_state_events(
    server: Server,
    call: Call<get_state_events::v3::Request>,
) -> Result<get_state_events::v3::Response> {
    // Who has nothing to do with the room is told so at once.
    Reading::begin(&server, &call.caller, &call.room_id).await?;
    server.rooms.await_whole_state(&call.room_id).await?;
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let root = reading.look.root()?;
    let numbers = reading.state_numbers(root).await?;
    Ok(get_state_events::v3::Response::new(
        reading.state_of(&numbers, |_| true).await?,
    ))
}

/// [`GET /rooms/{roomId}/state/{eventType}/{stateKey}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey).
pub(super) async fn get_state_event_for_key(
    server: Server,
    call: Call<get_state_event_for_key::v3::Request>,
) -> Result<get_state_event_for_key::v3::Response> {
    let key = (call.event_type.clone(), call.state_key.clone());
    let mut reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let mut numbers = numbers_at(&reading, &key).await?;
    if numbers.is_empty() && key.0 == StateEventType::RoomMember {
        // It may be one of those members who are not known yet.
        server.rooms.await_whole_state(&call.room_id).await?;
        reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
        numbers = numbers_at(&reading, &key).await?;
    }
    let events = reading.room.read_state(&reading.snapshot, &numbers).await?;
    let event = events
        .into_iter()
        .flatten()
        .next()
        .ok_or_else(|| error::not_found("There is no such state in this room"))?;
    let json = match call.format {
        StateEventFormat::Event => {
            let events: Vec<Raw<AnyStateEvent>> = reading.state(&[event]).await?;
            let event = events.into_iter().next();
            event
                .ok_or_else(|| error::internal("an event was not written"))?
                .into_json()
        }
        _ => {
            let content = std::str::from_utf8(event.content()).map_err(error::internal)?;
            RawValue::from_string(content.to_owned()).map_err(error::internal)?
        }
    };
    Ok(get_state_event_for_key::v3::Response::new(json))
}

/// What stands under a key in the state that somebody may see.
async fn numbers_at(reading: &Reading, key: &StateKey) -> Result<Vec<EventNumber>> {
    let roots = [reading.look.root()?];
    let keys = std::slice::from_ref(key);
    let found = reading.room.find_state(&reading.snapshot, &roots, keys);
    Ok(found.await?.into_values().collect())
}
