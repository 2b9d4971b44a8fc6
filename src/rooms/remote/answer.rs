//! What a server says of a room into which it has let somebody of ours: to be believed as far as it proves
//! itself.

use std::{collections::HashSet, sync::Arc};

use pdu::{EventNumber, Pdu, RoomRules, canonical, tree::StateKeyHash};
use ruma::{
    OwnedServerName, RoomId, UserId, api::federation::membership::create_join_event,
    events::StateEventType,
};
use serde_json::value::RawValue;

use crate::{
    Room, Rooms,
    writer::{lay_down, lay_state},
};

/// The most events that the answer may hold, in a room of whatever size.
const EVENTS_MAX: usize = 1_000_000;
/// The most servers that it may name.
const SERVERS_MAX: usize = 100_000;

/// What the answer holds.
pub(super) type RoomState = create_join_event::v2::RoomState;

/// What of the answer has proven itself.
#[derive(Debug)]
pub(super) struct Proven {
    /// The join, with the signature of who vouches for it.
    pub(super) join: Arc<Pdu>,
    /// The state before it.
    pub(super) state: ProvenState,
    /// Members were left out; the servers that are in the room.
    pub(super) omitted: Option<Vec<OwnedServerName>>,
}

/// A state of a room, as far as its events are properly signed.
#[derive(Debug)]
pub(crate) struct ProvenState {
    state: Vec<Arc<Pdu>>,
    /// What allows these.
    auth_chain: Vec<Arc<Pdu>>,
}

impl Rooms {
    /// Looks at an answer to a `send_join`. What is not properly signed, or of another room, is left out; the
    /// rest must hold the room's first event.
    ///
    /// # Errors
    ///
    /// Storage fails. The inner error says why it cannot be an answer.
    pub(super) async fn prove_answer(
        &self,
        rules: &'static RoomRules,
        room_id: &RoomId,
        join: Pdu,
        answer: RoomState,
    ) -> error::Result<Result<Proven, String>> {
        let join = match self
            .prove_join(rules, join, answer.event.as_deref())
            .await?
        {
            Ok(join) => Arc::new(join),
            Err(fault) => return Ok(Err(fault)),
        };
        let omitted = answer.members_omitted.then(|| {
            let servers = answer.servers_in_room.unwrap_or_default().into_iter();
            let servers = servers.filter_map(|name| OwnedServerName::try_from(name).ok());
            servers.take(SERVERS_MAX).collect()
        });
        let state = self.prove_state(rules, room_id, answer.state, answer.auth_chain);
        Ok(state.await?.map(|state| Proven {
            join,
            state,
            omitted,
        }))
    }

    /// Looks at the state of a room, and what allows it, as another server tells them.
    ///
    /// # Errors
    ///
    /// As [`Rooms::prove_answer`].
    pub(crate) async fn prove_state(
        &self,
        rules: &'static RoomRules,
        room_id: &RoomId,
        state: Vec<Box<RawValue>>,
        auth_chain: Vec<Box<RawValue>>,
    ) -> error::Result<Result<ProvenState, String>> {
        if state.len().saturating_add(auth_chain.len()) > EVENTS_MAX {
            return Ok(Err(format!("there are more than {EVENTS_MAX} events")));
        }
        let state = self.prove_events(rules, room_id, state).await?;
        let known: HashSet<_> = state.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let mut auth_chain = self.prove_events(rules, room_id, auth_chain).await?;
        auth_chain.retain(|pdu| !known.contains(pdu.event_id()));
        let mut creates = state
            .iter()
            .filter(|pdu| pdu.is_state(&"m.room.create".into(), ""));
        let (Some(create), None) = (creates.next(), creates.next()) else {
            return Ok(Err(
                "the state does not hold the room's create event".to_owned()
            ));
        };
        if version_of(create).as_deref() != Some(rules.version()) {
            return Ok(Err("the room has another version than was said".to_owned()));
        }
        Ok(Ok(ProvenState { state, auth_chain }))
    }

    /// The join; where somebody of another server vouches for it, with that server's signature.
    async fn prove_join(
        &self,
        rules: &'static RoomRules,
        join: Pdu,
        signed: Option<&RawValue>,
    ) -> error::Result<Result<Pdu, String>> {
        let Some(voucher) = voucher_of(&join, rules) else {
            return Ok(Ok(join));
        };
        let Some(signed) = signed else {
            return Ok(Err(format!("{voucher} has not signed the join")));
        };
        let join = match join.with_signatures_from(rules, &voucher, signed.get().as_bytes()) {
            Ok(join) => join,
            Err(fault) => return Ok(Err(fault.to_string())),
        };
        let raw = String::from_utf8_lossy(join.json()).into_owned();
        let raw = RawValue::from_string(raw).map_err(error::internal)?;
        let checked = self.federation().check_pdus(rules, vec![raw]).await?;
        let checked = checked.into_iter().next();
        let checked = checked.ok_or_else(|| error::internal("an event was not checked"))?;
        Ok(checked.map_err(|fault| fault.to_string()))
    }

    /// The events that are of the room and properly signed, each once.
    async fn prove_events(
        &self,
        rules: &'static RoomRules,
        room_id: &RoomId,
        events: Vec<Box<RawValue>>,
    ) -> error::Result<Vec<Arc<Pdu>>> {
        let mut seen = HashSet::new();
        let mut proven = Vec::with_capacity(events.len());
        let mut dropped: usize = 0;
        for checked in self.federation().check_pdus(rules, events).await? {
            match checked {
                Ok(pdu) if pdu.room_id() == room_id => {
                    if seen.insert(pdu.event_id().to_owned()) {
                        proven.push(Arc::new(pdu));
                    }
                }
                Ok(_) => dropped += 1,
                Err(fault) => {
                    tracing::debug!(%room_id, %fault, "an event of a room's state is left out");
                    dropped += 1;
                }
            }
        }
        if dropped > 0 {
            tracing::warn!(%room_id, dropped, "events of a room's state are left out");
        }
        Ok(proven)
    }

    /// Stores the state, and what allows it; the root of its tree. What the auth rules refuse, or of which
    /// something that allows it is missing, is no part of it.
    ///
    /// # Errors
    ///
    /// Storage fails. The inner error says why the room cannot be entered by it.
    pub(crate) async fn lay_down_state(
        &self,
        room: &Room,
        proven: &ProvenState,
    ) -> error::Result<Result<[u8; 16], String>> {
        let events = [proven.state.as_slice(), &proven.auth_chain].concat();
        let laid = lay_down(self, room, &events).await?;
        let mut entries: Vec<(StateKeyHash, EventNumber)> = Vec::with_capacity(proven.state.len());
        let mut has_create = false;
        for pdu in &proven.state {
            let Some((event_type, state_key)) = pdu.state_slot() else {
                continue;
            };
            let Some(laid) = laid.get(pdu.event_id()).filter(|laid| !laid.rejected) else {
                tracing::debug!(event = %pdu.event_id(), "an event of a room's state is not allowed");
                continue;
            };
            has_create |= event_type == StateEventType::RoomCreate && state_key.is_empty();
            entries.push((room.tree_key(&event_type, state_key), laid.event.number));
        }
        if !has_create {
            return Ok(Err(
                "the rules do not allow the room's create event".to_owned()
            ));
        }
        lay_state(self, room, entries).await.map(Ok)
    }
}

/// The version that a create event says its room has.
fn version_of(create: &Pdu) -> Option<String> {
    match canonical::member(create.content_bytes(), "room_version") {
        Some(version) => canonical::string(version).map(|version| version.into_owned()),
        None => Some("1".to_owned()),
    }
}

/// The server that must sign a join besides that of who joins.
fn voucher_of(join: &Pdu, rules: &RoomRules) -> Option<OwnedServerName> {
    if !rules.signatures.check_join_authorised_via_users_server {
        return None;
    }
    let key = "join_authorised_via_users_server";
    let user = canonical::string(canonical::member(join.content_bytes(), key)?)?;
    let user = UserId::parse(user.as_ref()).ok()?;
    Some(user.server_name().to_owned())
}
