//! Many events of another server at once, which are only the state of a room and the auth events of that:
//! what a server gets that comes into a room.
//!
//! They are judged by their auth events, in memory, and written as outliers in as many commits as it takes,
//! under numbers that were reserved for them before. Nobody sees them until an event of the timeline has
//! them in its state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use pdu::{
    AuthChain, AuthSetHash, EventNumber, Pdu, check_auth, check_auth_without_state,
    tree::{self, StateKeyHash},
};
use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType},
};
use storage::{
    Batch, CommitError, NameHash, Raw,
    schema::{self, EventHeader, Outcome, Standing, Verdict, Visibility},
};

use crate::{Room, Rooms, StoredEvent, accept};

/// Events whose rows are looked up together.
const LOOKED_UP_AT_ONCE: usize = 2_000;
/// What is written in one commit, well below what a batch may hold: events, and bytes.
const EVENTS_AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 400_000;
/// Tries, while others write some of the same events.
const TRIES_MAX: usize = 10;

/// An event that lies there.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    pub(crate) event: Arc<StoredEvent>,
    pub(crate) rejected: bool,
    chain: Arc<AuthChain>,
}

/// The events that lie there, by their ids.
type AllLaid = HashMap<OwnedEventId, Laid>;

/// Stores events of a room as outliers, each after its auth events. Those that are here already are left as
/// they are; those of which an auth event is neither among them nor here are left out.
///
/// # Errors
///
/// Storage fails.
pub(crate) async fn lay_down(
    rooms: &Rooms,
    room: &Room,
    events: &[Arc<Pdu>],
) -> error::Result<AllLaid> {
    for _ in 0..TRIES_MAX {
        let known = known(rooms, room, events).await?;
        let order = in_order(room, events, &known);
        let mut laying = Laying {
            rooms,
            room,
            next: reserve(rooms, room, order.len()).await?,
            laid: known,
            chains: HashMap::new(),
            batch: Batch::new(),
            rows: 0,
            bytes: 0,
        };
        if laying.all(&order).await? {
            return Ok(laying.laid);
        }
    }
    Err(error::internal("others write the same events all the time"))
}

/// The ids of the events that must be known before an event can be judged.
pub(crate) fn auth_ids(room: &Room, pdu: &Pdu) -> Vec<OwnedEventId> {
    let mut ids = pdu.auth_events().to_vec();
    if *pdu.event_type() != TimelineEventType::RoomCreate {
        ids.extend(room.rules.implied_create_event(pdu.room_id()));
    }
    ids
}

/// Those of some events, and of their auth events, that are here.
async fn known(rooms: &Rooms, room: &Room, events: &[Arc<Pdu>]) -> error::Result<AllLaid> {
    let mut ids: BTreeSet<OwnedEventId> = BTreeSet::new();
    for pdu in events {
        ids.insert(pdu.event_id().to_owned());
        ids.extend(auth_ids(room, pdu));
    }
    let ids: Vec<_> = ids.into_iter().collect();
    let mut known = HashMap::new();
    for ids in ids.chunks(LOOKED_UP_AT_ONCE) {
        let snapshot = rooms.snapshot().await?;
        let names: Vec<_> = ids
            .iter()
            .map(|id| rooms.storage().event_hash(id))
            .collect();
        let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names).await?;
        let here = rows.into_iter().flatten().map(|row| row.value);
        let numbers: Vec<_> = here
            .filter(|here| here.room == room.short)
            .filter_map(|here| here.number)
            .collect();
        let stored = room.stored_events(&snapshot, &numbers).await?;
        let sets = stored.iter().map(|event| event.header.chain);
        let chains = room.chains(&snapshot, sets).await?;
        for event in stored {
            let chain = chains.get(&event.header.chain).cloned().unwrap_or_default();
            let laid = Laid {
                rejected: event.pdu.rejected(),
                chain,
                event,
            };
            known.insert(laid.event.pdu.event_id().to_owned(), laid);
        }
    }
    Ok(known)
}

/// The events that are new, each after its auth events; without those that have no place in such an order.
fn in_order<'a>(room: &Room, events: &'a [Arc<Pdu>], known: &AllLaid) -> Vec<&'a Arc<Pdu>> {
    let mut new: BTreeMap<_, &Arc<Pdu>> = BTreeMap::new();
    for pdu in events.iter().filter(|pdu| pdu.room_id() == room.room_id) {
        if !known.contains_key(pdu.event_id()) {
            new.insert(pdu.event_id().to_owned(), pdu);
        }
    }
    let mut waits: HashMap<OwnedEventId, usize> = HashMap::new();
    let mut followers: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
    let mut ready = VecDeque::new();
    for (id, pdu) in &new {
        let auth: HashSet<_> = auth_ids(room, pdu).into_iter().collect();
        let lacking: Vec<_> = auth.iter().filter(|id| !known.contains_key(*id)).collect();
        if lacking.is_empty() {
            ready.push_back(id.clone());
        }
        waits.insert(id.clone(), lacking.len());
        for one in lacking {
            followers.entry(one.clone()).or_default().push(id.clone());
        }
    }
    let mut order = Vec::new();
    while let Some(id) = ready.pop_front() {
        order.extend(new.get(&id));
        for follower in followers.remove(&id).unwrap_or_default() {
            if let Some(left) = waits.get_mut(&follower) {
                *left -= 1;
                if *left == 0 {
                    ready.push_back(follower);
                }
            }
        }
    }
    order
}

/// Takes numbers out of the room's row of them.
async fn reserve(rooms: &Rooms, room: &Room, count: usize) -> error::Result<EventNumber> {
    let count = u32::try_from(count).map_err(error::internal)?;
    for _ in 0..TRIES_MAX {
        let snapshot = rooms.snapshot().await?;
        let mut heads = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
            .await?;
        let gone = || error::not_found("This room is gone");
        let head = heads.pop().flatten().ok_or_else(gone)?;
        rooms.check_version(room, &head.value)?;
        let first = head.value.next_number;
        if count == 0 {
            return Ok(first);
        }
        let next = first.0.checked_add(count).map(EventNumber);
        let next = next.ok_or_else(|| error::forbidden("This room has had too many events"))?;
        let mut batch = Batch::new();
        batch.expect_equals(&schema::HEAD_BY_ROOM, &room.short, &head.raw);
        let reserved = schema::Head {
            next_number: next,
            ..head.value
        };
        batch.put(&schema::HEAD_BY_ROOM, &room.short, &reserved);
        match rooms.storage().commit(batch).await {
            Ok(_) => return Ok(first),
            // Numbers may be lost by it: holes are allowed.
            Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(error::internal("the room changes too fast to be written"))
}

/// Events on their way into storage.
struct Laying<'a> {
    rooms: &'a Rooms,
    room: &'a Room,
    next: EventNumber,
    laid: AllLaid,
    chains: HashMap<NameHash, Arc<AuthChain>>,
    batch: Batch,
    rows: usize,
    bytes: usize,
}

impl Laying<'_> {
    /// Whether all were written; not if others have written one of them meanwhile.
    async fn all(&mut self, order: &[&Arc<Pdu>]) -> error::Result<bool> {
        for pdu in order {
            self.one(pdu)?;
            if (self.rows >= EVENTS_AT_ONCE || self.bytes >= BYTES_AT_ONCE)
                && !self.commit().await?
            {
                return Ok(false);
            }
        }
        self.commit().await
    }

    fn one(&mut self, pdu: &Arc<Pdu>) -> error::Result<()> {
        let number = self.next;
        let used_up = || error::forbidden("This room has had too many events");
        self.next = number.next().ok_or_else(used_up)?;
        let auth: Vec<_> = auth_ids(self.room, pdu)
            .iter()
            .filter_map(|id| self.laid.get(id).cloned())
            .collect();
        let reason = check(self.room, pdu, &auth).err();
        let (set, chain) = self.chain(&auth);
        let stored = Pdu::from_stored(
            pdu.event_id().to_owned(),
            pdu.json().clone(),
            self.room.rules,
            reason.is_some(),
        );
        let event = Arc::new(StoredEvent {
            number,
            header: self.header(pdu, &auth, set),
            pdu: Arc::new(stored.map_err(error::internal)?),
        });
        let verdict = Verdict {
            standing: Standing::Outlier,
            outcome: match &reason {
                Some(_) => Outcome::Rejected,
                None => Outcome::Accepted,
            },
            partial: false,
            reason: reason.clone(),
        };
        let storage = self.rooms.storage();
        let short = self.room.short;
        accept::lay_down(storage, &mut self.batch, short, &event, &verdict);
        self.rows += 1;
        self.bytes += pdu.json().len();
        if set != NameHash::NONE && !self.chains.contains_key(&set) {
            let bytes = chain.to_bytes();
            self.bytes += bytes.len();
            let row = Raw(bytes.into());
            self.batch.put(&schema::CHAIN_BY_SET, &(short, set), &row);
            self.chains.insert(set, Arc::clone(&chain));
        }
        let laid = Laid {
            rejected: reason.is_some(),
            chain,
            event,
        };
        self.laid.insert(pdu.event_id().to_owned(), laid);
        Ok(())
    }

    /// The auth chain of an event with these auth events, and what names it.
    fn chain(&self, auth: &[Laid]) -> (NameHash, Arc<AuthChain>) {
        if auth.is_empty() {
            return (NameHash::NONE, Arc::default());
        }
        let numbers = auth.iter().map(|one| one.event.number);
        let set = NameHash(AuthSetHash::of(self.rooms.storage().hash_key(), numbers).0);
        if let Some(chain) = self.chains.get(&set) {
            return (set, Arc::clone(chain));
        }
        let chains = auth.iter().map(|one| (one.event.number, &*one.chain));
        (set, Arc::new(AuthChain::of(chains)))
    }

    fn header(&self, pdu: &Pdu, auth: &[Laid], chain: NameHash) -> EventHeader {
        let auth_events: BTreeSet<_> = auth.iter().map(|one| one.event.number).collect();
        EventHeader {
            event_id: pdu.event_id().to_string(),
            place: None,
            sender: pdu.sender().to_string(),
            event_type: pdu.event_type().to_string(),
            state_key: pdu.state_key().map(ToOwned::to_owned),
            origin_server_ts: pdu.origin_server_ts().get().into(),
            received_ts: self.rooms.now(),
            depth: pdu.depth(),
            content: pdu.content_span(),
            auth_events: auth_events.into_iter().collect(),
            chain,
            replaces_state: None,
            visibility: Visibility::Shared,
            thread: None,
            sent: None,
            redacts: pdu.redacts().map(ToString::to_string),
            redacted_because: None,
        }
    }

    async fn commit(&mut self) -> error::Result<bool> {
        (self.rows, self.bytes) = (0, 0);
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(true);
        }
        match self.rooms.storage().commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Check 4 on receipt of a PDU: by the event's own auth events.
fn check(room: &Room, pdu: &Pdu, auth: &[Laid]) -> Result<(), String> {
    let by_id = |id: &ruma::EventId| {
        let found = auth.iter().find(|one| one.event.pdu.event_id() == id);
        found.map(|one| Arc::clone(&one.event.pdu))
    };
    check_auth_without_state(pdu, room.rules, by_id).map_err(|reason| reason.to_string())?;
    let entry = |event_type: &StateEventType, state_key: &str| {
        let found = auth.iter().find(|one| {
            let slot = one.event.pdu.state_slot();
            slot.is_some_and(|(kind, key)| kind == *event_type && key == state_key)
        });
        found.map(|one| Arc::clone(&one.event.pdu))
    };
    let Some(create) = entry(&StateEventType::RoomCreate, "") else {
        return Ok(());
    };
    check_auth(pdu, room.rules, &create, entry).map_err(|reason| reason.to_string())
}

/// Stores the tree of a state of which all events lie there, in as many commits as it takes; its root.
///
/// # Errors
///
/// Storage fails.
pub(crate) async fn lay_state(
    rooms: &Rooms,
    room: &Room,
    entries: Vec<(StateKeyHash, EventNumber)>,
) -> error::Result<[u8; 16]> {
    let built = tree::build(entries, &room.tree_key).map_err(error::internal)?;
    for nodes in built.nodes.chunks(EVENTS_AT_ONCE) {
        let mut batch = Batch::new();
        for (hash, bytes) in nodes {
            let row = Raw(bytes.clone().into());
            batch.put(&schema::NODE_BY_HASH, &(room.short, hash.0), &row);
        }
        rooms.storage().commit(batch).await?;
    }
    Ok(built.root.0)
}
