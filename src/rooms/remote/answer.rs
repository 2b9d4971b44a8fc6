//! What a server says of a room into which it has let somebody of ours: to be believed as far as it proves
//! itself.

use std::{collections::HashSet, sync::Arc, time::Duration};

use federation::{EventLists, Failure, Patience};
use pdu::{EventNumber, Pdu, PolicyServer, RoomRules, canonical, tree::StateKeyHash};
use ruma::{
    EventId, OwnedServerName, RoomId, ServerName, UserId,
    api::federation::{event::get_room_state, membership::create_join_event},
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::RawValue;

use super::{Asking, made::Made};
use crate::{
    Room, Rooms,
    writer::{lay_down, lay_state},
};

/// The most events that an answer may hold, in a room of whatever size.
const EVENTS_MAX: usize = 1_000_000;
/// The lists of events in an answer to a `send_join`, and in one about the state of a room.
const OF_JOIN: [&str; 2] = ["state", "auth_chain"];
const OF_STATE: [&str; 2] = ["pdus", "auth_chain"];
/// The most servers that it may name.
const SERVERS_MAX: usize = 100_000;

/// How long one waits for what allows some of the state and was not told with it.
const PATIENCE_FOR_AUTH: Duration = Duration::from_secs(30);

/// What an answer to a `send_join` holds: all but the events of the state, and these with what allows them.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) answer: create_join_event::v2::RoomState,
    pub(super) events: [Vec<Pdu>; 2],
}

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
    rules: &'static RoomRules,
    state: Vec<Arc<Pdu>>,
    /// What allows these.
    auth_chain: Vec<Arc<Pdu>>,
}

impl ProvenState {
    /// The join with the signature of the room's policy server, if the event that was told has it: whom we tell of
    /// the join need not ask for it.
    fn signed_by_policy(&self, join: &Pdu, told: &RawValue) -> Option<Pdu> {
        let policy = TimelineEventType::from("m.room.policy");
        let named = self.state.iter().find(|pdu| pdu.is_state(&policy, ""))?;
        let policy = PolicyServer::of(named.content_bytes())?;
        let told = Pdu::parse(told.get().as_bytes(), self.rules).ok()?;
        let signature = policy.signature_of(&told)?;
        let signed = join.with_policy_signature(self.rules, &policy.via, &signature);
        let signed = signed.ok()?;
        policy.has_signed(&signed, self.rules).then_some(signed)
    }
}

impl Proven {
    /// The rules of the room.
    pub(super) fn rules(&self) -> &'static RoomRules {
        self.state.rules
    }
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
        made: Made,
        room_id: &RoomId,
        told: Told,
    ) -> error::Result<Result<Proven, String>> {
        let (join, rules) = (made.pdu, made.rules);
        let answer = told.answer;
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
        let versions: &[&str] = match made.version_said {
            true => &[rules.version()],
            false => &["1", "2"],
        };
        let state = self.prove_versions(rules, versions, room_id, told.events);
        Ok(state.await?.map(|state| {
            let told = answer.event.as_deref();
            let signed = told.and_then(|told| state.signed_by_policy(&join, told));
            Proven {
                join: signed.map_or(join, Arc::new),
                state,
                omitted,
            }
        }))
    }

    /// Asks a server for the state before an event, and what allows it, and looks at what it tells.
    ///
    /// # Errors
    ///
    /// As [`Rooms::prove_answer`].
    pub(crate) async fn ask_for_state(
        &self,
        room: &Room,
        event_id: &EventId,
        server: &ServerName,
        patience: Patience,
    ) -> error::Result<Result<ProvenState, String>> {
        let room_id = &room.room_id;
        let question = get_room_state::v1::Request::new(event_id.to_owned(), room_id.clone());
        let lists = event_lists(OF_STATE, room.rules);
        let asked = self
            .federation()
            .ask_for_events(server, question, lists, patience);
        let (_, events) = match asked.await {
            Ok(told) => told,
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        let versions = [room.rules.version()];
        self.prove_versions(room.rules, &versions, room_id, events)
            .await
    }

    /// Gives a join to a server that is in the room.
    pub(super) async fn send_join(
        &self,
        server: &ServerName,
        made: &Made,
    ) -> error::Result<Result<Told, Failure>> {
        let join = &made.pdu;
        let event = String::from_utf8_lossy(join.json()).into_owned();
        let event = RawValue::from_string(event).map_err(error::internal)?;
        let room_id = join.room_id().to_owned();
        let event_id = join.event_id().to_owned();
        let mut question = create_join_event::v2::Request::new(room_id, event_id, event);
        // MSC3706: members can come later, so that the room can be used sooner.
        question.omit_members = true;
        let lists = event_lists(OF_JOIN, made.rules);
        let told = self
            .federation()
            .ask_for_events(server, question, lists, Patience::STATE);
        Ok(told.await.map(|(answer, events)| Told {
            answer: answer.room_state,
            events,
        }))
    }

    /// The same for a room of one of several versions, the events of which are alike; these are the rules of one of
    /// them.
    async fn prove_versions(
        &self,
        rules: &'static RoomRules,
        versions: &[&str],
        room_id: &RoomId,
        [state, auth_chain]: [Vec<Pdu>; 2],
    ) -> error::Result<Result<ProvenState, String>> {
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
        let version = version_of(create);
        let version = version.filter(|version| versions.contains(&version.as_str()));
        let Some(rules) = version.and_then(|version| RoomRules::named(&version)) else {
            return Ok(Err("the room has another version than was said".to_owned()));
        };
        Ok(Ok(ProvenState {
            rules,
            state,
            auth_chain,
        }))
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
        events: Vec<Pdu>,
    ) -> error::Result<Vec<Arc<Pdu>>> {
        let mut seen = HashSet::new();
        let mut proven = Vec::with_capacity(events.len());
        let mut dropped: usize = 0;
        for checked in self.federation().verify_pdus(rules, events).await? {
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

    /// Stores the state, and what allows it; the root of its tree. What allows some of it and was not told is
    /// fetched from the server that told the rest, as far as that goes. What the auth rules refuse, or of which
    /// something that allows it is still missing, is no part of it.
    ///
    /// # Errors
    ///
    /// Storage fails. The inner error says why the room cannot be entered by it.
    pub(crate) async fn lay_down_state(
        &self,
        room: &Arc<Room>,
        proven: &ProvenState,
        server: &ServerName,
    ) -> error::Result<Result<[u8; 16], String>> {
        let events = [proven.state.as_slice(), &proven.auth_chain].concat();
        let mut laid = lay_down(self, room, &events).await?;
        let is_left = |pdu: &Arc<Pdu>| !laid.contains_key(pdu.event_id());
        let left: Vec<_> = events.into_iter().filter(is_left).collect();
        if !left.is_empty() {
            tracing::info!(room = %room.room_id, %server, left = left.len(), "a room's state lacks what allows some of it");
            let asking = Asking::about(self, room, &[server]).await?;
            let fetched = asking.lay_down_with_auth(left);
            if let Ok(fetched) = tokio::time::timeout(PATIENCE_FOR_AUTH, fetched).await {
                laid.extend(fetched?);
            }
        }
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

fn event_lists<const N: usize>(
    names: [&'static str; N],
    rules: &'static RoomRules,
) -> EventLists<N> {
    EventLists {
        names,
        rules,
        most: EVENTS_MAX,
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
