//! Policy servers: who is asked about the events of a room that names one, before people see them ([spec]).
//!
//! What a room names is looked at by its writer, together with everything else: a draft of ours that its policy
//! server has to sign is given back to whoever sends it, an event of another server that it has not signed to
//! whoever received it ([`Received::ToSign`](crate::Received)). They ask outside of the writer (`asking.rs`), and
//! bring the event with what came of it (`sending.rs`, `receiving.rs`), to be judged as of then. What this server
//! answers as one is in `signing.rs`.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#policy-servers

mod asking;
mod receiving;
mod rules;
mod sending;
mod signing;

use std::{convert::Infallible, sync::Arc};

use pdu::{Pdu, PolicyServer};
use ruma::{OwnedServerName, events::StateEventType};
use storage::ShortRoomId;
use tokio::sync::Semaphore;

pub(crate) use self::{asking::Silent, rules::PolicyRules};
use crate::{
    Group, Rooms,
    writer::{Outcome, Working},
};

/// A group that the room's policy server has to sign before it can be sent.
#[derive(Debug)]
pub(crate) struct ToSign {
    /// The group.
    pub(crate) group: Group,
    /// The policy server.
    pub(crate) policy: PolicyServer,
    /// What its drafts would be now. Those that say what is there already are left out.
    pub(crate) events: Vec<Arc<Pdu>>,
}

impl ToSign {
    pub(crate) fn new(group: Group, policy: PolicyServer, events: Vec<Arc<Pdu>>) -> Self {
        Self {
            group,
            policy,
            events,
        }
    }
}

impl Rooms {
    /// The turns in which events of a room are signed.
    fn signing_turns(&self, room: ShortRoomId) -> Arc<Semaphore> {
        let new = || Ok::<_, Infallible>(Arc::new(Semaphore::new(sending::AT_ONCE)));
        match self.0.signing.get_or_insert_with(&room, new) {
            Ok(turns) => turns,
            Err(never) => match never {},
        }
    }

    /// Whether a policy server can be asked at all.
    ///
    /// NOTSPEC: a room may name this server though it is no policy server. Then something else answers for it
    /// under our name, which we cannot ask; everybody else does. Synapse takes it so too.
    pub(crate) fn can_ask(&self, policy: &PolicyServer) -> bool {
        policy.via != self.server_name() || self.policy_rules().is_some()
    }
}

impl Working {
    /// The policy server that the room names in its current state.
    fn named_policy_server(&self) -> Option<PolicyServer> {
        let event = self.current(&StateEventType::RoomPolicy, "")?;
        PolicyServer::of(event.pdu.content_bytes())
    }

    /// The room's policy server: the one that it names, if somebody of it is joined.
    pub(crate) fn policy_server(&self) -> Option<PolicyServer> {
        let named = self.named_policy_server()?;
        let joined = self.servers.get(&named.via).map_or(0, |row| row.joined);
        (joined > 0).then_some(named)
    }

    /// The server that the room names, if it is not known yet whether somebody of it is joined.
    pub(crate) fn unknown_policy_server(&self) -> Option<OwnedServerName> {
        let via = self.named_policy_server()?.via;
        (!self.servers.contains_key(&via)).then_some(via)
    }

    /// Who has to sign what these drafts became, if anybody. The first events of a room are nobody's to sign: it
    /// names nobody before they are there.
    pub(crate) fn policy_server_for(
        &self,
        rooms: &Rooms,
        group: &Group,
        outcomes: &[Outcome],
    ) -> Option<(PolicyServer, Vec<Arc<Pdu>>)> {
        if group.create.is_some() {
            return None;
        }
        let policy = self.policy_server()?;
        let new = outcomes.iter().filter_map(|outcome| outcome.new.as_ref());
        let events: Vec<_> = new.map(|judged| Arc::clone(&judged.event.pdu)).collect();
        let asked = events.iter().any(|pdu| PolicyServer::is_asked_about(pdu));
        (asked && rooms.can_ask(&policy)).then_some((policy, events))
    }
}
