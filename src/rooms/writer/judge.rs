//! Judging: a draft becomes a signed event that the rules of its room allow.

use std::{collections::HashMap, sync::Arc};

use pdu::{
    AuthChain, AuthSetHash, EventNumber, NamedLevel, Pdu, PowerLevels, Step,
    tree::{self, NodeHash},
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt,
    events::{StateEventType, TimelineEventType, room::history_visibility::HistoryVisibility},
};
use smallvec::SmallVec;
use storage::{
    NameHash,
    schema::{EventHeader, EventRoots, Extremity, Head, Place, Standing, Verdict, Visibility},
};

use super::{
    generation::Written,
    load,
    needs::{auth_types, redacts_in_content},
    working::Working,
};
use crate::{Draft, Group, Parts, Room, Rooms, StateKey, StoredEvent, event::Mentions};

/// An event that passed all checks, and everything that follows from it but its rows.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) event: Arc<StoredEvent>,
    /// The state around it; none for an outlier.
    pub(crate) roots: Option<EventRoots>,
    /// None: live and accepted.
    pub(crate) verdict: Option<Verdict>,
    /// The new nodes of the state after it, and of the current state.
    pub(crate) nodes: Vec<(NodeHash, Vec<u8>)>,
    /// What it changes in the current state.
    pub(crate) change: CurrentChange,
    /// The forward extremities after it.
    pub(crate) extremities: SmallVec<[Extremity; 1]>,
    pub(crate) mentions: Mentions,
    /// Made by us.
    pub(crate) local: bool,
}

impl Judged {
    /// Whether it was found after what came later.
    pub(crate) fn is_historic(&self) -> bool {
        let verdict = self.verdict.as_ref();
        verdict.is_some_and(|verdict| verdict.standing == Standing::Historic)
    }
}

/// What an event changes in the room's current state.
#[derive(Debug)]
pub(crate) struct CurrentChange {
    pub(crate) root: [u8; 16],
    /// What changes; only what concerns people of ours if the flat tables are written already.
    pub(crate) entries: Vec<Entry>,
    /// The flat tables, if they were written as a new generation.
    pub(crate) written: Option<Written>,
}

/// One changed entry of the current state.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: StateKey,
    pub(crate) before: Option<Arc<StoredEvent>>,
    pub(crate) after: Option<Arc<StoredEvent>>,
}

/// What became of a draft.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) event_id: OwnedEventId,
    /// None: the draft says what the current state says already.
    pub(crate) new: Option<Judged>,
}

/// What judging lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// A node of a state tree.
    Node(NodeHash),
    /// A stored auth set.
    AuthSet(NameHash),
}

impl Working {
    /// Judges the drafts of a group one after the other, each on the state that those before it make.
    /// Empty if the group was sent before.
    pub(super) async fn judge_group(
        &mut self,
        rooms: &Rooms,
        group: &Group,
    ) -> error::Result<Vec<Outcome>> {
        if self.was_sent(group) {
            return Ok(Vec::new());
        }
        let mut trial = Trial::new(self);
        for draft in &group.drafts {
            let outcome = match trial.make(rooms.parts(), draft)? {
                Made::SaidAlready(outcome) => outcome,
                Made::Event(made) => loop {
                    match trial.grow(rooms.parts(), &made)? {
                        Step::Done(grown) => break trial.place(rooms.parts(), draft, made, grown),
                        Step::Need(lacks) => load::lacking(rooms, trial.working, &lacks).await?,
                    }
                },
            };
            trial.outcomes.push(outcome);
        }
        let outcomes = trial.finish();
        // A draft before it, in the same batch, may have named another one.
        if self.unknown_policy_server().is_some() {
            load::policy_server(rooms, &rooms.snapshot().await?, self).await?;
        }
        Ok(outcomes)
    }
}

/// What a draft becomes.
enum Made {
    /// The current state says so already.
    SaidAlready(Outcome),
    Event(NewEvent),
}

/// An event of ours that the rules allow.
struct NewEvent {
    pdu: Pdu,
    auth_events: Vec<Arc<StoredEvent>>,
    /// What it sets in the state, and what stands there.
    key: Option<StateKey>,
    replaced: Option<Arc<StoredEvent>>,
    number: EventNumber,
    /// The number of the event after it.
    next: EventNumber,
}

/// What an event adds to what is stored.
struct Grown {
    chain: NameHash,
    roots: EventRoots,
    /// The new nodes of the state after it.
    nodes: Vec<(NodeHash, Vec<u8>)>,
}

/// A room's state while a group is judged: the writer's, and over it what the group has done so far.
struct Trial<'a> {
    working: &'a mut Working,
    head: Head,
    state: HashMap<StateKey, Arc<StoredEvent>>,
    /// The auth sets of its events. Their numbers are another group's if this one is refused.
    auth_sets: HashMap<NameHash, Arc<AuthChain>>,
    room: Arc<Room>,
    outcomes: Vec<Outcome>,
}

impl<'a> Trial<'a> {
    fn new(working: &'a mut Working) -> Self {
        let (head, room) = (working.head.clone(), Arc::clone(&working.room));
        Self {
            working,
            head,
            state: HashMap::new(),
            auth_sets: HashMap::new(),
            room,
            outcomes: Vec::new(),
        }
    }

    /// All of the group is allowed.
    fn finish(self) -> Vec<Outcome> {
        let new = self.auth_sets.into_iter();
        let new = new.map(|(hash, set)| (hash, (set, false)));
        self.working.auth_sets.extend(new);
        self.outcomes
    }

    fn current(&self, event_type: &StateEventType, state_key: &str) -> Option<Arc<StoredEvent>> {
        let key = (event_type.clone(), state_key.to_owned());
        self.state
            .get(&key)
            .or_else(|| self.working.state.get(&key)?.as_ref())
            .map(Arc::clone)
    }

    fn current_pdu(&self, event_type: &StateEventType, state_key: &str) -> Option<Arc<Pdu>> {
        self.current(event_type, state_key)
            .map(|event| Arc::clone(&event.pdu))
    }

    /// Signs the event of a draft, and holds it against the rules.
    fn make(&self, parts: &Parts, draft: &Draft) -> error::Result<Made> {
        let key = draft.state_key.as_ref().map(|state_key| {
            (
                StateEventType::from(draft.event_type.to_string()),
                state_key.clone(),
            )
        });
        let replaced = key.as_ref().and_then(|(t, k)| self.current(t, k));
        // For people of other servers we only make templates.
        let ours = draft.sender.server_name() == parts.server_name;
        if let Some(replaced) = &replaced
            && ours
            && says_the_same(draft, replaced)
        {
            let event_id = replaced.pdu.event_id().to_owned();
            return Ok(Made::SaidAlready(Outcome {
                event_id,
                new: None,
            }));
        }
        let auth_events = self.auth_events(draft);
        let pdu = self.sign(parts, draft, &auth_events)?;
        self.check(&pdu, draft)?;
        let number = self.head.next_number;
        let Some(next) = number.next() else {
            return Err(error::forbidden(
                "This room has had too many events; upgrade it",
            ));
        };
        Ok(Made::Event(NewEvent {
            pdu,
            auth_events,
            key,
            replaced,
            number,
            next,
        }))
    }

    /// The auth set of an event, and the state after it.
    fn grow(&mut self, parts: &Parts, made: &NewEvent) -> error::Result<Step<Grown, Lack>> {
        let chain = match self.auth_set(parts, &made.auth_events) {
            Step::Done(hash) => hash,
            Step::Need(lacks) => return Ok(Step::Need(lacks)),
        };
        let before = self.head.root;
        let (after, nodes) = match &made.key {
            None => (before, Vec::new()),
            Some((event_type, state_key)) => {
                let change = (self.room.tree_key(event_type, state_key), Some(made.number));
                let update = tree::update(
                    NodeHash(before),
                    &[change],
                    &self.working.nodes,
                    &self.room.tree_key,
                );
                match update.map_err(error::internal)? {
                    Step::Done(update) => (update.root.0, update.nodes),
                    Step::Need(nodes) => {
                        return Ok(Step::Need(nodes.into_iter().map(Lack::Node).collect()));
                    }
                }
            }
        };
        for (hash, bytes) in &nodes {
            self.working
                .nodes
                .insert(*hash, bytes)
                .map_err(error::internal)?;
        }
        let roots = EventRoots { before, after };
        Ok(Step::Done(Grown {
            chain,
            roots,
            nodes,
        }))
    }

    /// Moves the trial's head past an event, and says what follows from it.
    fn place(&mut self, parts: &Parts, draft: &Draft, made: NewEvent, grown: Grown) -> Outcome {
        let NewEvent {
            pdu,
            auth_events,
            key,
            replaced,
            number,
            next,
        } = made;
        let Grown {
            chain,
            roots,
            nodes,
        } = grown;
        let header = EventHeader {
            event_id: pdu.event_id().to_string(),
            place: Some(Place::live(self.head.next_slot)),
            sender: pdu.sender().to_string(),
            event_type: pdu.event_type().to_string(),
            state_key: draft.state_key.clone(),
            origin_server_ts: pdu.origin_server_ts().get().into(),
            received_ts: parts.clock.now().get().into(),
            depth: pdu.depth(),
            content: pdu.content_span(),
            auth_events: auth_events.iter().map(|event| event.number).collect(),
            chain,
            replaces_state: replaced.as_ref().map(|event| event.number),
            visibility: self.head.visibility,
            thread: None,
            sent: draft.sent.clone(),
            redacts: pdu.redacts().map(ToString::to_string),
            redacted_because: None,
        };
        let event = Arc::new(StoredEvent {
            number,
            header,
            pdu: Arc::new(pdu),
        });
        self.head.next_number = next;
        self.follow(event, roots, nodes, key, replaced)
    }

    /// What the trial knows of the room after an event.
    fn follow(
        &mut self,
        event: Arc<StoredEvent>,
        roots: EventRoots,
        nodes: Vec<(NodeHash, Vec<u8>)>,
        key: Option<StateKey>,
        replaced: Option<Arc<StoredEvent>>,
    ) -> Outcome {
        let extremity = Extremity {
            number: event.number,
            event_id: event.header.event_id.clone(),
            depth: event.header.depth,
        };
        let followed: Vec<_> = event
            .pdu
            .prev_events()
            .iter()
            .map(|id| id.as_str())
            .collect();
        self.head
            .extremities
            .retain(|old| !followed.contains(&old.event_id.as_str()));
        self.head.extremities.push(extremity);
        self.head.next_slot += 1;
        self.head.root = roots.after;
        let mut entries = Vec::new();
        if let Some(key) = key {
            if key == (StateEventType::RoomHistoryVisibility, String::new()) {
                self.head.visibility = visibility_of(Some(&event.pdu));
            }
            self.state.insert(key.clone(), Arc::clone(&event));
            entries.push(Entry {
                key,
                before: replaced,
                after: Some(Arc::clone(&event)),
            });
        }
        let event_id = event.pdu.event_id().to_owned();
        let judged = Judged {
            mentions: Mentions::of(&event.pdu),
            event,
            roots: Some(roots),
            verdict: None,
            nodes,
            change: CurrentChange {
                root: roots.after,
                entries,
                written: None,
            },
            extremities: self.head.extremities.clone(),
            local: true,
        };
        Outcome {
            event_id,
            new: Some(judged),
        }
    }

    /// The events of the current state that allow a draft, since version 12 with `m.room.create`.
    fn auth_events(&self, draft: &Draft) -> Vec<Arc<StoredEvent>> {
        let types = auth_types(draft, self.room.rules);
        types
            .iter()
            .filter_map(|(t, k)| self.current(t, k))
            .collect()
    }

    fn sign(
        &self,
        parts: &Parts,
        draft: &Draft,
        auth_events: &[Arc<StoredEvent>],
    ) -> error::Result<Pdu> {
        let rules = self.room.rules;
        let is_create = draft.event_type == TimelineEventType::RoomCreate;
        let listed = |event: &&Arc<StoredEvent>| {
            !rules.room_id_is_create_event_id()
                || *event.pdu.event_type() != TimelineEventType::RoomCreate
        };
        let time = draft
            .origin_server_ts
            .unwrap_or_else(|| parts.clock.now().get().into());
        let depth = self
            .head
            .extremities
            .iter()
            .map(|extremity| extremity.depth)
            .max();
        let prev_events = self.head.extremities.iter().take(pdu::MAX_PREV_EVENTS);
        let mut reference_hashes = std::collections::BTreeMap::new();
        if rules.has_event_id_field() {
            reference_hashes.extend(auth_events.iter().map(|event| {
                (
                    event.pdu.event_id().to_owned(),
                    event.pdu.reference_hash(rules),
                )
            }));
        }
        let draft = pdu::Draft {
            room_id: self.room_id(is_create).map(ToOwned::to_owned),
            sender: draft.sender.clone(),
            event_type: draft.event_type.clone(),
            state_key: draft.state_key.clone(),
            content: draft.content.clone(),
            prev_events: prev_events
                .map(|extremity| EventId::parse(&extremity.event_id))
                .collect::<Result<_, _>>()
                .map_err(error::internal)?,
            auth_events: auth_events
                .iter()
                .filter(listed)
                .map(|event| event.pdu.event_id().to_owned())
                .collect(),
            depth: depth
                .map_or(1, |depth| depth.saturating_add(1))
                .min(MAX_DEPTH),
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(time)),
            redacts: draft.redacts.clone().or_else(|| {
                (draft.event_type == TimelineEventType::RoomRedaction)
                    .then(|| redacts_in_content(draft.content.get()))?
            }),
            reference_hashes,
        };
        draft
            .sign(
                rules,
                &parts.federation.signing_keys().current(),
                &parts.server_name,
            )
            .map_err(refused)
    }

    /// The room's id; none for the create event of a version whose rooms are named by it.
    fn room_id(&self, is_create: bool) -> Option<&RoomId> {
        if !self.room.rules.room_id_is_create_event_id() {
            return Some(&self.room.room_id);
        }
        if is_create {
            return None;
        }
        let first = self
            .outcomes
            .first()
            .and_then(|outcome| outcome.new.as_ref());
        match first {
            Some(first) if *first.event.pdu.event_type() == TimelineEventType::RoomCreate => {
                Some(first.event.pdu.room_id())
            }
            _ => Some(&self.room.room_id),
        }
    }

    /// The authorisation rules, and what the client-server API asks besides.
    fn check(&self, pdu: &Pdu, draft: &Draft) -> error::Result<()> {
        let rules = self.room.rules;
        if *pdu.event_type() == TimelineEventType::RoomCreate {
            if !self.head.extremities.is_empty() {
                return Err(error::invalid_param("A room is created only once"));
            }
            return pdu::check_auth_without_state(pdu, rules, |_| None::<Arc<Pdu>>)
                .map_err(|reason| refusal(&reason));
        }
        // Without one, this is a room into which nobody of ours has come yet.
        let create = self
            .current_pdu(&StateEventType::RoomCreate, "")
            .ok_or_else(|| error::forbidden("You are not in this room"))?;
        pdu::check_auth(pdu, rules, &create, |event_type, state_key| {
            self.current_pdu(event_type, state_key)
        })
        .map_err(|reason| refusal(&reason))?;
        if *pdu.event_type() == TimelineEventType::RoomPowerLevels {
            pdu::check_own_power_levels(pdu.content_bytes()).map_err(|reason| refusal(&reason))?;
        }
        if *pdu.event_type() == TimelineEventType::RoomRedaction {
            self.check_redaction(pdu, draft, &create)?;
        }
        Ok(())
    }

    /// Client-server API, *Redactions*: one's own events, or any with the power for it.
    fn check_redaction(&self, pdu: &Pdu, draft: &Draft, create: &Pdu) -> error::Result<()> {
        let target = pdu
            .redacts()
            .and_then(|id| self.working.events.get(id)?.as_ref());
        if target.is_some_and(|target| target.pdu.sender() == draft.sender) {
            return Ok(());
        }
        let power_levels = self.current_pdu(&StateEventType::RoomPowerLevels, "");
        let power = PowerLevels::new(self.room.rules, create, power_levels.as_deref());
        match power.has(&draft.sender, NamedLevel::Redact) {
            // It may be one that is not here yet, or that other servers only have.
            Ok(true) => Ok(()),
            _ if target.is_none() => {
                Err(error::not_found("The event to redact is not in this room"))
            }
            _ => Err(error::forbidden(
                "You do not have the power to redact this event",
            )),
        }
    }

    /// The hash of the set of these auth events; the set itself is known to the trial afterwards.
    fn auth_set(
        &mut self,
        parts: &Parts,
        auth_events: &[Arc<StoredEvent>],
    ) -> Step<NameHash, Lack> {
        if auth_events.is_empty() {
            return Step::Done(NameHash::NONE);
        }
        let numbers = auth_events.iter().map(|event| event.number);
        let hash = AuthSetHash::of(parts.storage.hash_key(), numbers);
        let hash = NameHash(hash.0);
        if self.known_set(hash).is_some() {
            return Step::Done(hash);
        }
        let empty = Arc::new(AuthChain::default());
        let mut sets = Vec::new();
        let mut lacks = Vec::new();
        for event in auth_events {
            match self.known_set(event.header.chain) {
                _ if event.header.chain == NameHash::NONE => {
                    sets.push((event.number, Arc::clone(&empty)));
                }
                Some(set) => sets.push((event.number, Arc::clone(set))),
                None => lacks.push(Lack::AuthSet(event.header.chain)),
            }
        }
        if !lacks.is_empty() {
            return Step::Need(lacks);
        }
        let set = AuthChain::of(sets.iter().map(|(number, set)| (*number, set.as_ref())));
        self.auth_sets.insert(hash, Arc::new(set));
        Step::Done(hash)
    }

    fn known_set(&self, hash: NameHash) -> Option<&Arc<AuthChain>> {
        let stored = || self.working.auth_sets.get(&hash).map(|(set, _)| set);
        self.auth_sets.get(&hash).or_else(stored)
    }
}

/// The greatest depth an event may have: the greatest integer of canonical JSON.
const MAX_DEPTH: u64 = (1 << 53) - 1;

/// The history visibility that an event sets; what is set if there is none, or nothing known in it.
pub(crate) fn visibility_of(event: Option<&Pdu>) -> Visibility {
    match pdu::history_visibility_of(event) {
        HistoryVisibility::WorldReadable => Visibility::WorldReadable,
        HistoryVisibility::Invited => Visibility::Invited,
        HistoryVisibility::Joined => Visibility::Joined,
        _ => Visibility::Shared,
    }
}

/// Whether a state event would be what is there already: from the same sender with the same content.
fn says_the_same(draft: &Draft, current: &StoredEvent) -> bool {
    use serde_json::Value;
    if current.pdu.sender() != draft.sender || current.header.redacted_because.is_some() {
        return false;
    }
    let new = serde_json::from_str::<Value>(draft.content.get());
    let old = serde_json::from_slice::<Value>(current.pdu.content_bytes());
    matches!((new, old), (Ok(new), Ok(old)) if new == old)
}

/// What a client is told whose event the rules refuse.
fn refusal(reason: &pdu::AuthError) -> error::Error {
    if reason.is_malformed() {
        error::bad_json(reason.to_string())
    } else {
        error::forbidden(reason.to_string())
    }
}

/// What a client is told whose event has not the form that the room's version asks for.
fn refused(error: pdu::PduError) -> error::Error {
    match error {
        pdu::PduError::TooLarge(_) | pdu::PduError::TooLong(_) => {
            error::too_large(error.to_string())
        }
        other => error::bad_json(other.to_string()),
    }
}
