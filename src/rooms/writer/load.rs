//! Loading: what judging needs to know, in one round trip for a warm room.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use pdu::{AuthChain, AuthSetHash, EventNumber, RoomRules, tree::NodeHash};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId};
use smallvec::SmallVec;
use storage::{
    Found, NameHash, Reads, ShortUserId, Slot, Snapshot, Stamped, Storage,
    schema::{self, Head, OnceRow, Outcome, ServerRow, Totals, Visibility},
};

use super::{
    graph::{AskedEvents, AskedNumbers},
    judge::Lack,
    needs::Needs,
    working::{LocalUser, Working},
};
use crate::{Group, Room, Rooms, StateKey, StoredEvent, directory::Listing};

/// Everything that is needed to judge these groups, from what the last batch left and from storage: one
/// round trip for a warm room, two for a cold one.
pub(super) async fn working(
    rooms: &Rooms,
    room: &Arc<Room>,
    groups: &[&Group],
    warm: Option<Box<Working>>,
) -> error::Result<Box<Working>> {
    let own = || rooms.server_name().to_owned();
    let needs = Needs::of(room.rules, rooms.server_name(), groups);
    let snapshot = rooms.snapshot().await?;
    if let Some(create) = groups.iter().find_map(|group| group.create.as_ref()) {
        debug_assert_eq!(create.short, room.short);
        let mut working = Box::new(Working::new(
            Arc::clone(room),
            own(),
            head_without_events(create.rules),
            None,
        ));
        First::rest(rooms.storage(), &snapshot, &mut working, &needs).await?;
        working.listing = Some(Listing::of_new_room(create.public));
        return Ok(working);
    }
    with_needs(rooms, room, &snapshot, &needs, warm).await
}

/// The same for needs that are known, from a view.
pub(super) async fn with_needs(
    rooms: &Rooms,
    room: &Arc<Room>,
    snapshot: &Snapshot,
    needs: &Needs,
    warm: Option<Box<Working>>,
) -> error::Result<Box<Working>> {
    let mut working = warm.unwrap_or_else(|| cold(rooms, room));
    refresh(rooms, room, snapshot, needs, &mut working).await?;
    Ok(working)
}

/// A room of which nothing is known.
pub(super) fn cold(rooms: &Rooms, room: &Arc<Room>) -> Box<Working> {
    // Hardly any room ever leaves the first generation of its flat tables: read as if, then look.
    let head = (empty_head(), Some(Bytes::new()));
    let own = rooms.server_name().to_owned();
    Box::new(Working::new(Arc::clone(room), own, head.0, head.1))
}

/// Loads what is needed besides what is known; all of it anew if the room changed since.
pub(super) async fn refresh(
    rooms: &Rooms,
    room: &Arc<Room>,
    snapshot: &Snapshot,
    needs: &Needs,
    working: &mut Working,
) -> error::Result<()> {
    let own = || rooms.server_name().to_owned();
    loop {
        let mut first = First::read(rooms.storage(), snapshot, working, needs).await?;
        let head = first
            .head
            .take()
            .ok_or_else(|| error::not_found("This room is gone"))?;
        if working.head_raw.as_ref() != Some(&head.raw) {
            rooms.check_version(room, &head.value)?;
            let known = working.head_raw.as_ref().is_some_and(|raw| !raw.is_empty());
            let same_tables = working.head.generation == head.value.generation;
            working.head = head.value;
            working.head_raw = Some(head.raw);
            if known || !same_tables {
                let (head, raw) = (working.head.clone(), working.head_raw.take());
                *working = Working::new(Arc::clone(room), own(), head, raw);
                continue;
            }
        }
        if !needs.incoming.is_empty() {
            // It may stand beside them.
            let extremities = working.head.extremities.iter();
            let numbers = extremities.map(|extremity| extremity.number).collect();
            room.read_events_ahead(snapshot, &numbers);
        }
        second(rooms, snapshot, working, needs, first).await?;
        return policy_server(rooms, snapshot, working).await;
    }
}

/// Looks whether somebody of the policy server that the room names is joined. Nothing where it names none, or that
/// is known; else one round trip.
pub(super) async fn policy_server(
    rooms: &Rooms,
    snapshot: &Snapshot,
    working: &mut Working,
) -> error::Result<()> {
    let Some(via) = working.unknown_policy_server() else {
        return Ok(());
    };
    let (short, generation) = (working.room.short, working.head.generation);
    let key = [(short, generation, rooms.storage().server_hash(&via))];
    let rows = snapshot.multi_get(&schema::SERVER_BY_ROOM, &key).await?;
    working.take_servers(vec![via], rows);
    Ok(())
}

/// What is needed besides of a room that was looked at in the same view.
pub(super) async fn more(
    rooms: &Rooms,
    snapshot: &Snapshot,
    working: &mut Working,
    needs: &Needs,
) -> error::Result<()> {
    let first = First::rest(rooms.storage(), snapshot, working, needs).await?;
    second(rooms, snapshot, working, needs, first).await
}

fn empty_head() -> Head {
    Head {
        version: String::new(),
        extremities: SmallVec::new(),
        next_slot: 1,
        next_number: EventNumber(1),
        root: pdu::tree::EMPTY_ROOT.0,
        generation: 0,
        totals: Totals::default(),
        joined: 0,
        invited: 0,
        visibility: Visibility::Shared,
        partial: false,
    }
}

/// The head of a room in which nothing has happened yet, as far as we know.
pub(crate) fn head_without_events(rules: &RoomRules) -> Head {
    Head {
        version: rules.version().to_owned(),
        ..empty_head()
    }
}

/// What the first round trip brings.
struct First {
    head: Option<Found<Head>>,
    /// Entries of the current state whose events are still to be read.
    numbers: Vec<(StateKey, EventNumber)>,
    /// Named events that are in this room.
    events: Vec<(OwnedEventId, EventNumber)>,
    /// Events of the graph that are in this room.
    graph: Vec<(OwnedEventId, EventNumber)>,
}

impl First {
    async fn read(
        storage: &Storage,
        snapshot: &Snapshot,
        working: &mut Working,
        needs: &Needs,
    ) -> error::Result<Self> {
        Self::ask(storage, snapshot, working, needs, true).await
    }

    /// All but the head, which is known.
    async fn rest(
        storage: &Storage,
        snapshot: &Snapshot,
        working: &mut Working,
        needs: &Needs,
    ) -> error::Result<Self> {
        Self::ask(storage, snapshot, working, needs, false).await
    }

    async fn ask(
        storage: &Storage,
        snapshot: &Snapshot,
        working: &mut Working,
        needs: &Needs,
        with_head: bool,
    ) -> error::Result<Self> {
        let short = working.room.short;
        let generation = working.head.generation;
        let mut reads = Reads::new();
        let head = with_head.then_some(short);
        let head = reads.get_all(&schema::HEAD_BY_ROOM, &head);
        let unlisted = working.listing.is_none().then_some(short);
        let listing = reads.get_all(&schema::DIRECTORY_BY_ROOM, &unlisted);
        let once: Vec<_> = needs
            .once
            .iter()
            .map(|once| (once.name, once.keys()))
            .collect();
        let once_slot = reads.get_all(
            &schema::ONCE_BY_DAY,
            once.iter().flat_map(|(_, keys)| keys.iter()),
        );
        let state: Vec<_> = needs
            .state
            .iter()
            .filter(|key| !working.state.contains_key(*key))
            .collect();
        let state_keys: Vec<_> = state
            .iter()
            .map(|(t, k)| flat_key(storage, short, generation, &t.to_string(), k))
            .collect();
        let state_slot = reads.get_all(&schema::STATE_BY_ROOM, &state_keys);
        let events: Vec<_> = needs
            .events
            .iter()
            .filter(|id| !working.events.contains_key(*id))
            .collect();
        let event_keys: Vec<_> = events.iter().map(|id| storage.event_hash(id)).collect();
        let event_slot = reads.get_all(&schema::NUMBER_BY_EVENT, &event_keys);
        let users: Vec<_> = needs
            .users
            .iter()
            .filter(|user| !working.users.contains_key(*user))
            .cloned()
            .collect();
        let user_keys: Vec<_> = users.iter().map(|user| storage.user_hash(user)).collect();
        let user_slot = reads.get_all(&schema::USER_BY_NAME, &user_keys);
        let servers = working.unknown_servers(needs);
        let server_keys: Vec<_> = servers
            .iter()
            .map(|name| (short, generation, storage.server_hash(name)))
            .collect();
        let server_slot = reads.get_all(&schema::SERVER_BY_ROOM, &server_keys);
        let graph_slot = AskedNumbers::ask(storage, short, &mut reads, needs);

        let answers = snapshot.read(&reads).await?;
        working.take_once(&once, &answers.all(&once_slot)?)?;
        let mut numbers = Vec::new();
        for (key, row) in state.into_iter().zip(answers.all(&state_slot)?) {
            match row {
                Some(row) => numbers.push((key.clone(), row.value)),
                None => {
                    working.state.insert(key.clone(), None);
                }
            }
        }
        let mut found = Vec::new();
        for (id, row) in events.into_iter().zip(answers.all(&event_slot)?) {
            match row
                .filter(|row| row.value.room == short)
                .and_then(|row| row.value.number)
            {
                Some(number) => found.push((id.clone(), number)),
                None => {
                    working.events.insert(id.clone(), None);
                }
            }
        }
        working.take_users(&users, answers.all(&user_slot)?);
        working.take_servers(servers, answers.all(&server_slot)?);
        let graph = graph_slot.take(&answers, needs, working)?;
        for row in answers.all(&listing)? {
            working.listing = Some(Listing::found(row));
        }
        let head = answers.all(&head)?;
        Ok(Self {
            head: head.into_iter().flatten().next(),
            numbers,
            events: found,
            graph,
        })
    }
}

impl Working {
    /// The servers of the members named, of which nothing is known yet.
    fn unknown_servers(&self, needs: &Needs) -> Vec<OwnedServerName> {
        let servers: BTreeSet<_> = needs
            .members
            .iter()
            .map(|member| member.server_name().to_owned())
            .collect();
        servers
            .into_iter()
            .filter(|name| !self.servers.contains_key(name))
            .collect()
    }

    /// Remembers what was answered to those of these once keys that were used before.
    fn take_once(
        &mut self,
        keys: &[(NameHash, [(u32, NameHash); 2])],
        rows: &[Option<Found<Stamped<OnceRow>>>],
    ) -> error::Result<()> {
        for ((name, _), rows) in keys.iter().zip(rows.chunks(2)) {
            if let Some(row) = rows.iter().flatten().next() {
                let answer = read_answer(&row.value.value.answer)?;
                self.once.insert(*name, answer);
            }
        }
        Ok(())
    }

    /// Remembers who of these people has an account here.
    fn take_users(&mut self, users: &[OwnedUserId], rows: Vec<Option<Found<ShortUserId>>>) {
        for (user, row) in users.iter().zip(rows) {
            let local = row.map(|row| LocalUser { short: row.value });
            self.users.insert(user.clone(), local);
        }
    }

    /// Remembers how many people of these servers are joined.
    fn take_servers(&mut self, servers: Vec<OwnedServerName>, rows: Vec<Option<Found<ServerRow>>>) {
        for (server, row) in servers.into_iter().zip(rows) {
            let none = || ServerRow {
                name: server.to_string(),
                joined: 0,
            };
            let row = row.map_or_else(none, |row| row.value);
            self.servers.insert(server, row);
        }
    }
}

/// The second round trip: what the first one named.
async fn second(
    rooms: &Rooms,
    snapshot: &Snapshot,
    working: &mut Working,
    needs: &Needs,
    first: First,
) -> error::Result<()> {
    let First {
        numbers,
        events,
        graph,
        ..
    } = first;
    let short = working.room.short;
    let mut reads = Reads::new();
    let graph = AskedEvents::ask(short, &mut reads, graph);
    let keys: Vec<_> = numbers.iter().map(|(_, number)| (short, *number)).collect();
    let state_slot = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
    let keys: Vec<_> = events.iter().map(|(_, number)| (short, *number)).collect();
    let event_slot = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
    let verdict_slot = reads.get_all(&schema::VERDICT_BY_EVENT, &keys);
    let unknown_threads: Vec<_> = keys
        .iter()
        .filter(|(_, number)| !working.threads.contains_key(number))
        .copied()
        .collect();
    let thread_slot = reads.get_all(&schema::THREAD_BY_ROOT, &unknown_threads);
    let sets = expected_sets(rooms.storage(), &mut reads, working, needs, &numbers);
    if reads.is_empty() {
        return Ok(());
    }
    let answers = snapshot.read(&reads).await?;
    graph.take(&answers, working)?;
    let rules = working.room.rules;
    let missing = || error::internal("an event that a table names is missing");
    for ((key, number), row) in numbers.into_iter().zip(answers.all(&state_slot)?) {
        let row = row.ok_or_else(missing)?;
        let event = StoredEvent::from_row(number, row.value, rules, false)?;
        working.state.insert(key, Some(Arc::new(event)));
    }
    let verdicts = answers.all(&verdict_slot)?;
    let rows = answers.all(&event_slot)?;
    for (((id, number), row), verdict) in events.into_iter().zip(rows).zip(verdicts) {
        let row = row.ok_or_else(missing)?;
        let accepted = verdict.is_none_or(|verdict| verdict.value.outcome == Outcome::Accepted);
        let event = StoredEvent::from_row(number, row.value, rules, !accepted)?;
        working.events.insert(id, accepted.then(|| Arc::new(event)));
    }
    for ((_, number), row) in unknown_threads.into_iter().zip(answers.all(&thread_slot)?) {
        working
            .threads
            .insert(number, row.map(|row| row.value).unwrap_or_default());
    }
    for (hash, row) in sets.0.into_iter().zip(answers.all(&sets.1)?) {
        if let Some(row) = row {
            let set = AuthChain::from_bytes(&row.value.0).map_err(error::internal)?;
            working.auth_sets.insert(hash, (Arc::new(set), true));
        }
    }
    threads(snapshot, working).await
}

/// The threads that events belong to which relate to events of theirs: read only if somebody reacts to,
/// replies to or edits an event of a thread that was not spoken of lately.
async fn threads(snapshot: &Snapshot, working: &mut Working) -> error::Result<()> {
    let roots: BTreeSet<_> = working
        .events
        .values()
        .flatten()
        .filter_map(|event| event.header.thread)
        .filter(|root| !working.threads.contains_key(root))
        .collect();
    if roots.is_empty() {
        return Ok(());
    }
    let short = working.room.short;
    let keys: Vec<_> = roots.iter().map(|root| (short, *root)).collect();
    let rows = snapshot.multi_get(&schema::THREAD_BY_ROOT, &keys).await?;
    for (root, row) in roots.into_iter().zip(rows) {
        let row = row.map(|row| row.value).unwrap_or_default();
        working.threads.insert(root, row);
    }
    Ok(())
}

type Sets = Slot<Vec<Option<Found<storage::Raw>>>>;

/// Asks for the auth sets that the drafts will probably have, so that those that are stored need not be
/// put together.
fn expected_sets(
    storage: &Storage,
    reads: &mut Reads,
    working: &Working,
    needs: &Needs,
    numbers: &[(StateKey, EventNumber)],
) -> (Vec<NameHash>, Sets) {
    let number_of = |key: &StateKey| {
        let fresh = numbers
            .iter()
            .find(|(other, _)| other == key)
            .map(|(_, number)| *number);
        fresh.or_else(|| Some(working.state.get(key)?.as_ref()?.number))
    };
    let short = working.room.short;
    let sets: Vec<_> = needs
        .auth
        .iter()
        .filter_map(|keys| {
            let numbers: Vec<_> = keys.iter().filter_map(number_of).collect();
            let hash = AuthSetHash::of(storage.hash_key(), numbers);
            let hash = NameHash(hash.0);
            (!working.auth_sets.contains_key(&hash)).then_some(hash)
        })
        .collect();
    let keys: Vec<_> = sets.iter().map(|hash| (short, *hash)).collect();
    let slot = reads.get_all(&schema::CHAIN_BY_SET, &keys);
    (sets, slot)
}

/// Loads what judging found lacking.
pub(super) async fn lacking(
    rooms: &Rooms,
    working: &mut Working,
    lacks: &[Lack],
) -> error::Result<()> {
    let room = Arc::clone(&working.room);
    let snapshot = rooms.snapshot().await?;
    let (mut nodes, mut sets) = (Vec::new(), Vec::new());
    for lack in lacks {
        match lack {
            Lack::Node(hash) => nodes.push((room.short, hash.0)),
            Lack::AuthSet(hash) => sets.push((room.short, *hash)),
        }
    }
    let mut reads = Reads::new();
    let node_slot = reads.get_all(&schema::NODE_BY_HASH, &nodes);
    let set_slot = reads.get_all(&schema::CHAIN_BY_SET, &sets);
    let answers = snapshot.read(&reads).await?;
    let missing = |what| error::internal(format!("a {what} of {} is missing", room.room_id));
    for ((_, hash), row) in nodes.iter().zip(answers.all(&node_slot)?) {
        let row = row.ok_or_else(|| missing("state node"))?;
        working
            .nodes
            .insert(NodeHash(*hash), &row.value.0)
            .map_err(error::internal)?;
    }
    for ((_, hash), row) in sets.iter().zip(answers.all(&set_slot)?) {
        let row = row.ok_or_else(|| missing("stored auth chain"))?;
        let set = AuthChain::from_bytes(&row.value.0).map_err(error::internal)?;
        working.auth_sets.insert(*hash, (Arc::new(set), true));
    }
    Ok(())
}

/// Whether all these events are stored: what a commit did whose reply was lost.
pub(super) async fn are_stored(rooms: &Rooms, ids: Vec<OwnedEventId>) -> error::Result<bool> {
    let snapshot = rooms.snapshot().await?;
    let keys: Vec<_> = ids
        .iter()
        .map(|id| rooms.storage().event_hash(id))
        .collect();
    let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &keys).await?;
    Ok(rows.iter().all(Option::is_some))
}

/// The key of the flat state table for a state entry.
pub(crate) fn flat_key(
    storage: &Storage,
    room: storage::ShortRoomId,
    generation: schema::Generation,
    event_type: &str,
    state_key: &str,
) -> (storage::ShortRoomId, schema::Generation, [u8; 8], NameHash) {
    let [a, b, c, d, e, f, g, h, ..] = storage.type_hash(event_type).0;
    (
        room,
        generation,
        [a, b, c, d, e, f, g, h],
        storage.state_key_hash(state_key),
    )
}

/// The answer of a group as its once key keeps it: event ids, one a line.
pub(crate) fn write_answer(ids: &[OwnedEventId]) -> Vec<u8> {
    let ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
    ids.join("\n").into_bytes()
}

fn read_answer(answer: &[u8]) -> error::Result<Vec<OwnedEventId>> {
    let text = std::str::from_utf8(answer).map_err(error::internal)?;
    text.lines()
        .map(|id| OwnedEventId::try_from(id).map_err(error::internal))
        .collect()
}
