//! Random events of several servers against a naive model: forks, bans, power fights, rejected and
//! soft-failed events, outliers, late history, redactions before their targets; between them drafts of
//! our own.

mod cases;
mod cost;
mod ends;
mod explained;
mod many;
mod told;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use pdu::{
    AuthChain, EventNumber, Pdu, RoomRules, SigningKey, check_auth, check_auth_without_state,
    resolve::{Loaded, StateKey, StateMap, resolve_maps},
};
use proptest::prelude::*;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomVersionId, UInt,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, json, value::to_raw_value};
use storage::{
    Faults, Options, Range, Storage,
    schema::{self, Membership},
};

use super::{alice, public_room, rooms, text};
use crate::{Group, Incoming, Received, Room, Rooms, Standing, event::MemberContent};

/// What the model knows of an event; its number in the model is its index.
struct Known {
    pdu: Arc<Pdu>,
    auth: Vec<EventNumber>,
    chain: Arc<AuthChain>,
    after: StateMap<EventNumber>,
    accepted: bool,
}

/// A room as a naive server keeps it: whole maps, nothing shared.
struct Model {
    rules: &'static RoomRules,
    events: Vec<Known>,
    by_id: BTreeMap<OwnedEventId, EventNumber>,
    extremities: Vec<EventNumber>,
    current: StateMap<EventNumber>,
    timeline: Vec<OwnedEventId>,
}

impl Model {
    fn known(&self, number: EventNumber) -> &Known {
        &self.events[number.0 as usize]
    }

    fn resolve(&self, states: &[StateMap<EventNumber>]) -> StateMap<EventNumber> {
        let load = |number: EventNumber| {
            let known = self.events.get(number.0 as usize)?;
            Some(Loaded {
                pdu: Arc::clone(&known.pdu),
                auth_events: known.auth.iter().copied().collect(),
                chain: Arc::clone(&known.chain),
            })
        };
        resolve_maps(self.rules, EventNumber(1), states, load)
            .unwrap()
            .0
    }

    fn before(&self, pdu: &Pdu) -> StateMap<EventNumber> {
        let prev = pdu.prev_events().iter();
        let mut states: Vec<_> = prev
            .map(|id| self.known(self.by_id[id]).after.clone())
            .collect();
        states.dedup();
        self.resolve(&states)
    }

    /// What an event follows: its prev events, and what those follow that were not accepted.
    fn followed(&self, pdu: &Pdu) -> BTreeSet<EventNumber> {
        let mut next = pdu.prev_events().to_vec();
        let mut all = BTreeSet::new();
        while let Some(id) = next.pop() {
            let number = self.by_id[&id];
            let known = self.known(number);
            if all.insert(number) && !known.accepted {
                next.extend(known.pdu.prev_events().iter().cloned());
            }
        }
        all
    }

    fn check(&self, pdu: &Pdu, state: &StateMap<EventNumber>) -> bool {
        let create = (StateEventType::RoomCreate, String::new());
        let Some(create) = state.get(&create) else {
            return *pdu.event_type() == TimelineEventType::RoomCreate;
        };
        let entry = |event_type: &StateEventType, state_key: &str| {
            let number = state.get(&(event_type.clone(), state_key.to_owned()))?;
            Some(Arc::clone(&self.known(*number).pdu))
        };
        check_auth(pdu, self.rules, &self.known(*create).pdu, entry).is_ok()
    }

    /// Takes an event in, by the words of the specification.
    fn receive(&mut self, pdu: &Arc<Pdu>) -> &'static str {
        if self.by_id.contains_key(pdu.event_id()) {
            return "known";
        }
        let mut auth: Vec<_> = pdu.auth_events().iter().map(|id| self.by_id[id]).collect();
        let is_create = *pdu.event_type() == TimelineEventType::RoomCreate;
        if self.rules.room_id_is_create_event_id() && !is_create {
            auth.push(EventNumber(1));
        }
        let by_id = |id: &ruma::EventId| Some(Arc::clone(&self.known(*self.by_id.get(id)?).pdu));
        let auth_state: StateMap<_> = auth
            .iter()
            .filter_map(|number| {
                let (kind, key) = self.known(*number).pdu.state_slot()?;
                Some(((kind, key.to_owned()), *number))
            })
            .collect();
        let before = self.before(pdu);
        let allowed = check_auth_without_state(pdu, self.rules, by_id).is_ok()
            && self.check(pdu, &auth_state)
            && self.check(pdu, &before);
        let soft_failed = allowed && !self.check(pdu, &self.current);
        let number = EventNumber(self.events.len() as u32);
        let mut after = before;
        if allowed && let Some((kind, key)) = pdu.state_slot() {
            after.insert((kind, key.to_owned()), number);
        }
        let chain = AuthChain::of(auth.iter().map(|one| (*one, &*self.known(*one).chain)));
        let stored = Pdu::from_stored(
            pdu.event_id().to_owned(),
            pdu.json().clone(),
            self.rules,
            !allowed,
        );
        self.events.push(Known {
            pdu: Arc::new(stored.unwrap()),
            auth,
            chain: Arc::new(chain),
            after,
            accepted: allowed && !soft_failed,
        });
        self.by_id.insert(pdu.event_id().to_owned(), number);
        if !allowed {
            return "rejected";
        }
        if soft_failed {
            return "soft-failed";
        }
        let followed = self.followed(pdu);
        let mut extremities = self.extremities.clone();
        extremities.retain(|one| !followed.contains(one));
        extremities.push(number);
        self.extremities = extremities;
        let states: Vec<_> = self
            .extremities
            .iter()
            .map(|one| self.known(*one).after.clone())
            .collect();
        self.current = self.resolve(&states);
        self.timeline.push(pdu.event_id().to_owned());
        "accepted"
    }
}

/// A server under test and the model beside it.
struct World {
    rooms: Rooms,
    room: Arc<Room>,
    model: Model,
    key: SigningKey,
    time: u64,
}

/// One step: what is sent, by whom, after which events.
#[derive(Clone, Debug)]
struct Step {
    sender: u8,
    action: u8,
    target: u8,
    /// How far back its prev events lie.
    back: (u8, u8),
    local: bool,
    /// It comes with the next one.
    together: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (
        0..4_u8,
        0..12_u8,
        0..4_u8,
        (0..4_u8, 0..4_u8),
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
        .prop_map(|(sender, action, target, back, local, together)| Step {
            sender,
            action,
            target,
            back,
            local,
            together,
        })
}

fn person(n: u8) -> OwnedUserId {
    match n {
        0 => alice(),
        n => format!("@p{n}:far{n}.org").try_into().unwrap(),
    }
}

impl World {
    async fn new(storage: Storage, version: &RoomVersionId) -> Self {
        Self::on(rooms(storage), version).await
    }

    /// One more room of these.
    async fn on(rooms: Rooms, version: &RoomVersionId) -> Self {
        let room_id = public_room(&rooms, version).await;
        let room = rooms.room(&room_id).await.unwrap();
        let mut world = Self {
            model: Model {
                rules: room.rules,
                // Numbers begin with 1.
                events: Vec::new(),
                by_id: BTreeMap::new(),
                extremities: Vec::new(),
                current: StateMap::new(),
                timeline: Vec::new(),
            },
            rooms,
            room,
            key: SigningKey::from_seed(&[2; 32], "far").unwrap(),
            time: 1_700_000_000_000,
        };
        let first = world.timeline().await;
        let placeholder = Arc::clone(&first[0]);
        world.model.events.push(Known {
            pdu: placeholder,
            auth: Vec::new(),
            chain: Arc::default(),
            after: StateMap::new(),
            accepted: true,
        });
        for pdu in first {
            assert_eq!(world.model.receive(&pdu), "accepted");
        }
        world
    }

    /// The events of the timeline, in its order.
    async fn timeline(&self) -> Vec<Arc<Pdu>> {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let range = Range::prefix(&(self.room.short,));
        let rows = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await
            .unwrap()
            .remove(0);
        let numbers: Vec<_> = rows.iter().map(|(_, row)| row.value.number).collect();
        let events = self.room.stored_events(&snapshot, &numbers).await.unwrap();
        events.iter().map(|event| Arc::clone(&event.pdu)).collect()
    }

    /// Makes an event of somebody, after some of the latest ones.
    fn event(&mut self, step: &Step) -> Arc<Pdu> {
        // Number 0 is none.
        let latest = self.model.events.len() - 1;
        let back = |back: &u8| latest.saturating_sub(usize::from(*back)).max(1);
        let back = [step.back.0, step.back.1]
            .iter()
            .map(back)
            .collect::<BTreeSet<_>>();
        let prev = back
            .into_iter()
            .map(|one| self.model.events[one].pdu.event_id().to_owned());
        let prev: Vec<_> = prev.collect();
        let (event_type, state_key, content) = content(step);
        self.make(step.sender, event_type, state_key, &content, prev, None)
    }

    /// Makes an event in the state that its prev events leave behind; unknown ones leave that of the
    /// last one known.
    fn make(
        &mut self,
        sender: u8,
        event_type: &str,
        state_key: Option<String>,
        content: &Value,
        prev: Vec<OwnedEventId>,
        redacts: Option<OwnedEventId>,
    ) -> Arc<Pdu> {
        let known = prev.iter().filter_map(|id| self.model.by_id.get(id));
        let known: Vec<_> = known.map(|number| self.model.known(*number)).collect();
        let mut states: Vec<_> = known.iter().map(|known| known.after.clone()).collect();
        if states.is_empty() {
            states.push(self.model.current.clone());
        }
        let depth = known.iter().map(|known| known.pdu.depth()).max();
        let before = self.model.resolve(&states);
        let sender = person(sender);
        let content = to_raw_value(content).unwrap();
        let kind: TimelineEventType = event_type.into();
        let types = pdu::auth_types(
            &kind,
            &sender,
            state_key.as_deref(),
            &content,
            self.room.rules,
        );
        let auth_events: Vec<_> = types
            .iter()
            .filter_map(|key: &StateKey| before.get(key))
            .map(|number| self.model.known(*number).pdu.event_id().to_owned())
            .collect();
        self.time += 1;
        let draft = pdu::Draft {
            room_id: Some(self.room.room_id.clone()),
            event_type: kind,
            state_key,
            content,
            prev_events: prev,
            auth_events,
            depth: depth.unwrap_or(0) + 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.time)),
            redacts,
            reference_hashes: BTreeMap::new(),
            sender: sender.clone(),
        };
        let pdu = draft.sign(self.room.rules, &self.key, sender.server_name());
        Arc::new(pdu.unwrap())
    }

    /// Somebody of afar joins.
    async fn join(&mut self, person: u8) {
        let join = Step {
            sender: person,
            action: 0,
            target: 0,
            back: (0, 0),
            local: false,
            together: false,
        };
        let join = self.event(&join);
        self.receive(join).await;
    }

    fn latest(&self) -> OwnedEventId {
        self.model.timeline.last().unwrap().clone()
    }

    async fn take(&self, pdu: &Arc<Pdu>, standing: Standing) -> Received {
        let pdu = Arc::clone(pdu);
        let incoming = Incoming { pdu, standing };
        self.rooms.receive(&self.room, incoming).await.unwrap()
    }

    /// The ids of the current state, as another server would tell them.
    fn state_ids(&self) -> Vec<OwnedEventId> {
        let numbers = self.model.current.values();
        numbers
            .map(|number| self.model.known(*number).pdu.event_id().to_owned())
            .collect()
    }
}

impl World {
    async fn receive(&mut self, pdu: Arc<Pdu>) {
        let expected = self.model.receive(&pdu);
        self.receive_all(&[(pdu, expected)]).await;
    }

    /// Receives events that came together, of which the model has its opinion already.
    async fn receive_all(&self, events: &[(Arc<Pdu>, &str)]) {
        let incoming = events.iter();
        let incoming = incoming.map(|(pdu, _)| Incoming::live(Arc::clone(pdu)));
        let incoming: Vec<_> = incoming.collect();
        let (rooms, room) = (&self.rooms, &self.room);
        let received = rooms.receive_all(room, incoming.clone()).await.unwrap();
        for ((_, expected), received) in events.iter().zip(received) {
            let received = match received {
                Received::Accepted => "accepted",
                Received::SoftFailed(_) => "soft-failed",
                Received::Rejected(_) => "rejected",
                Received::Known => "known",
                Received::Missing { .. } => "missing",
                Received::ToSign(_) => "to be signed",
            };
            // A reply that was lost: the second try finds it there.
            assert!(
                received == *expected || received == "known",
                "{received}, not {expected}"
            );
        }
        let again = rooms.receive_all(room, incoming).await.unwrap();
        assert!(again.iter().all(|again| *again == Received::Known));
    }

    /// Sends a message of our own, on whatever extremities there are.
    async fn send(&mut self) {
        let sent = self
            .rooms
            .send(&self.room, Group::one(text(&alice(), "from here")))
            .await;
        let Ok(sent) = sent else { return };
        let timeline = self.timeline().await;
        let own = timeline
            .iter()
            .find(|pdu| pdu.event_id() == sent[0])
            .unwrap();
        assert_eq!(self.model.receive(own), "accepted");
    }

    /// The server's room is the model's.
    async fn compare(&self) {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let head = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[self.room.short])
            .await
            .unwrap()
            .remove(0)
            .unwrap()
            .value;
        let mut expected: Vec<_> = self
            .model
            .current
            .values()
            .map(|number| self.model.known(*number).pdu.event_id().to_owned())
            .collect();
        expected.sort();
        let ids = async |numbers: Vec<EventNumber>| {
            let events = self.room.stored_events(&snapshot, &numbers).await.unwrap();
            let mut ids: Vec<_> = events
                .iter()
                .map(|event| event.pdu.event_id().to_owned())
                .collect();
            ids.sort();
            ids
        };
        let tree = self.room.whole_state(&snapshot, head.root).await.unwrap();
        assert_eq!(ids(tree).await, expected, "the tree of the current state");
        let range = Range::prefix(&(self.room.short, head.generation));
        let flat = snapshot
            .multi_range(&schema::STATE_BY_ROOM, &[range])
            .await
            .unwrap()
            .remove(0);
        let flat = flat.into_iter().map(|(_, row)| row.value).collect();
        assert_eq!(
            ids(flat).await,
            expected,
            "the flat table of the current state"
        );
        let joined = self.model.current.iter().filter(|((kind, _), number)| {
            *kind == StateEventType::RoomMember
                && MemberContent::of(&self.model.known(**number).pdu).membership
                    == Some(Membership::Join)
        });
        assert_eq!(head.joined, joined.count() as u64);
        let timeline = self.timeline().await;
        let timeline: Vec<_> = timeline.iter().map(|pdu| pdu.event_id()).collect();
        assert_eq!(timeline, self.model.timeline);
        let mut extremities: Vec<_> = head
            .extremities
            .iter()
            .map(|one| one.event_id.clone())
            .collect();
        extremities.sort();
        let mut expected: Vec<_> = self
            .model
            .extremities
            .iter()
            .map(|one| self.model.known(*one).pdu.event_id().to_string())
            .collect();
        expected.sort();
        assert_eq!(extremities, expected);
    }
}

fn content(step: &Step) -> (&'static str, Option<String>, Value) {
    let target = person(step.target).to_string();
    let own = person(step.sender).to_string();
    let member = |key: String, membership: &str| {
        (
            "m.room.member",
            Some(key),
            json!({ "membership": membership }),
        )
    };
    match step.action {
        0 | 1 => member(own, "join"),
        2 => member(own, "leave"),
        3 => member(target, "ban"),
        4 => member(target, "leave"),
        5 => member(target, "invite"),
        6 => (
            "m.room.power_levels",
            Some(String::new()),
            json!({ "users": { alice().as_str(): 100, target: 50 } }),
        ),
        7 => (
            "m.room.join_rules",
            Some(String::new()),
            json!({ "join_rule": if step.target.is_multiple_of(2) { "public" } else { "invite" } }),
        ),
        8 => (
            "m.room.topic",
            Some(String::new()),
            json!({ "topic": step.target.to_string() }),
        ),
        _ => (
            "m.room.message",
            None,
            json!({ "msgtype": "m.text", "body": "from afar" }),
        ),
    }
}

async fn run(storage: Storage, version: &RoomVersionId, steps: &[Step]) {
    let mut world = World::new(storage, version).await;
    for person in 1..4 {
        world.join(person).await;
    }
    let mut together = Vec::new();
    for step in steps {
        if !step.local {
            let pdu = world.event(step);
            let expected = world.model.receive(&pdu);
            together.push((pdu, expected));
            if step.together {
                continue;
            }
        }
        world.receive_all(&std::mem::take(&mut together)).await;
        world.compare().await;
        if step.local {
            world.send().await;
            world.compare().await;
        }
    }
    world.receive_all(&together).await;
    world.compare().await;
}

const VERSIONS: [RoomVersionId; 4] = [
    RoomVersionId::V1,
    RoomVersionId::V6,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_events_of_several_servers_make_the_room_of_a_naive_model(
        version in 0..VERSIONS.len(),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let faults = Faults {
            seed,
            conflicts: 100,
            lost_replies: 50,
            lost_batches: 50,
            read_takes: Duration::from_millis(600),
            ..Faults::NONE
        };
        runtime.block_on(async {
            run(Storage::model_with(faults), &VERSIONS[version], &steps).await;
            let folder = tempfile::tempdir().unwrap();
            let options = Options { sync: false, ..Options::default() };
            let storage = Storage::open(folder.path(), &options).unwrap();
            run(storage, &VERSIONS[version], &steps).await;
        });
    }
}
