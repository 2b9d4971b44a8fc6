//! Telling a server that lags of its rooms: of each what it was not told of, or where that is much the latest
//! events alone, behind which it finds the rest by itself.

use std::collections::HashMap;

use pdu::EventNumber;
use ruma::{ServerName, UserId};
use storage::{
    Answers, Found, NameHash, Range, Reads, Rows, ShortRoomId, Slot, Snapshot,
    schema::{
        EVENT_BY_NUMBER, EVENT_BY_PLACE, EventRow, Generation, HEAD_BY_ROOM, Head,
        LATE_ROOM_BY_DESTINATION, LateRoomRow, MEMBER_BY_SERVER, Place, PlacedEvent,
        SERVER_BY_ROOM, ServerRow, Visibility,
    },
};

use crate::{
    Outbox,
    lanes::PDUS_MAX,
    transaction::{ToldRoom, Transaction, pdu_of},
};

/// Rooms that are looked at together.
const ROOMS_MAX: usize = 50;
/// So many people of one server in one room are looked at.
const MEMBERS_MAX: usize = 500;
/// A server that lags by so many events of a room, or fewer, is told each of them; one that lags more is told the
/// latest.
const EACH_MAX: u64 = 1_000;
/// So many of the latest events of a room are told.
const LATEST_MAX: usize = 20;

type RoomKey = (NameHash, ShortRoomId);

/// A room of which a server was not told everything.
struct LateRoom {
    room: ShortRoomId,
    row: Found<LateRoomRow>,
    head: Head,
}

/// Where that will be found what a server lacks of a room.
struct Asked {
    late: LateRoom,
    server: Slot<Option<Found<ServerRow>>>,
    members: Slot<Rows<(ShortRoomId, Generation, NameHash, NameHash), EventNumber>>,
    placed: Slot<Rows<(ShortRoomId, Place), PlacedEvent>>,
}

/// What a server lacks of a room, by the numbers of events.
struct Lacking {
    late: LateRoom,
    present: bool,
    /// The latest member events of its people.
    members: Vec<EventNumber>,
    /// The events of the timeline from where on it was not told, one more than are told at once at most.
    placed: Vec<(Place, EventNumber)>,
}

impl Outbox {
    /// Adds events of rooms that a server was not told of, at most so many. If there is no such room, it is not
    /// late any more.
    pub(crate) async fn add_late(
        &self,
        server: &ServerName,
        hash: NameHash,
        transaction: &mut Transaction,
        most: usize,
    ) -> error::Result<()> {
        let rooms = self.take_on(server, hash).await?;
        self.add_rooms(server, hash, &rooms, transaction, most)
            .await
    }

    /// The rooms of which a server is to be told next: what is said in these from now on is written down again. Of no
    /// other one: what is said there counts as written down already.
    pub(crate) async fn take_on(
        &self,
        server: &ServerName,
        hash: NameHash,
    ) -> error::Result<Vec<ShortRoomId>> {
        let ranges = [Range::prefix(&(hash,)).limit(ROOMS_MAX)];
        let snapshot = self.rooms().snapshot().await?;
        let rows = snapshot.multi_range(&LATE_ROOM_BY_DESTINATION, &ranges);
        let rows = rows.await?.into_iter().flatten();
        let rooms: Vec<_> = rows.map(|((_, room), _)| room).collect();
        let there = self.0.lanes.lock().take_on(server, &rooms);
        Ok(if there { rooms } else { Vec::new() })
    }

    /// Adds events of rooms that were [taken on](Self::take_on).
    pub(crate) async fn add_rooms(
        &self,
        server: &ServerName,
        hash: NameHash,
        rooms: &[ShortRoomId],
        transaction: &mut Transaction,
        most: usize,
    ) -> error::Result<()> {
        if rooms.is_empty() {
            return Ok(());
        }
        let snapshot = self.rooms().snapshot().await?;
        let keys: Vec<_> = rooms.iter().map(|room| (hash, *room)).collect();
        let rows = snapshot.multi_get(&LATE_ROOM_BY_DESTINATION, &keys).await?;
        let rows = keys.into_iter().zip(rows);
        let rows: Vec<_> = rows.filter_map(|(key, row)| Some((key, row?))).collect();
        let (lacking, gone) = lacking(&snapshot, hash, rows).await?;
        transaction.rooms.extend(gone);
        let most = most.min(PDUS_MAX);
        let mut left = most;
        for of_room in lacking {
            let end = Place::live(of_room.late.head.next_slot);
            let (events, more) = self.events(&snapshot, server, &of_room, most).await?;
            if events.len() > left && !transaction.is_empty() {
                break;
            }
            left = left.saturating_sub(events.len());
            transaction.pdus.extend(events);
            transaction.rooms.push(ToldRoom {
                room: of_room.late.room,
                row: of_room.late.row,
                next: more.unwrap_or(end),
                more: more.is_some(),
            });
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The events of a room that a server is told of, at most so many where it is told of each, and where to go
    /// on, if there are more.
    async fn events(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        lacking: &Lacking,
        most: usize,
    ) -> error::Result<(Vec<Box<serde_json::value::RawValue>>, Option<Place>)> {
        let ours = self.rooms().server_name();
        let from = lacking.late.row.value.from;
        let latest = lacking.late.head.extremities.iter().take(LATEST_MAX);
        let latest = latest.map(|latest| latest.number);
        let placed = lacking.placed.iter().map(|(_, number)| number);
        let all = lacking.members.iter().chain(placed).copied();
        let keys: Vec<_> = all
            .chain(latest.clone())
            .map(|number| (lacking.late.room, number))
            .collect();
        let rows = snapshot.multi_get(&EVENT_BY_NUMBER, &keys).await?;
        let events: HashMap<_, _> = keys
            .iter()
            .zip(rows)
            .filter_map(|((_, number), row)| Some((*number, row?.value)))
            .collect();
        // What we made, and what others made that came into the room through us.
        let is_ours = |event: &&EventRow| {
            let sender = UserId::parse(&event.header.sender);
            sender.is_ok_and(|sender| {
                let passed_on = event.header.is_passed_on() && sender.server_name() != server;
                passed_on || sender.server_name() == ours
            })
        };
        let is_late = |event: &&EventRow| event.header.place.is_some_and(|place| place >= from);
        let members = || lacking.members.iter().filter_map(|it| events.get(it));
        let moved = members().any(|event| is_late(&event));
        let lag = lacking.late.head.next_slot.saturating_sub(from.slot);
        let mut more = None;
        let chosen: Vec<_> = if !lacking.present {
            // Whatever we said of its people: that they are not in the room any more.
            members().filter(is_late).filter(is_ours).collect()
        } else if !moved && lag <= EACH_MAX {
            more = lacking.placed.get(most).map(|(place, _)| *place);
            let placed = lacking.placed.iter().take(most);
            let placed = placed.filter_map(|(_, it)| events.get(it));
            placed.filter(is_ours).collect()
        } else {
            let since = since(members());
            let shown = |event: &&EventRow| {
                let open = matches!(
                    event.header.visibility,
                    Visibility::Shared | Visibility::WorldReadable
                );
                open || event.header.place >= since
            };
            latest
                .filter_map(|it| events.get(&it))
                .filter(shown)
                .collect()
        };
        let told: error::Result<Vec<_>> = chosen.into_iter().cloned().map(pdu_of).collect();
        Ok((told?, more))
    }
}

/// Since when somebody of a server has been in a room: the first place of those that their member events have
/// who are.
fn since<'a>(members: impl Iterator<Item = &'a EventRow>) -> Option<Place> {
    let joined = members.filter(|event| {
        let content = event.header.content.start as usize..event.header.content.end as usize;
        let content = event.json.get(content).unwrap_or_default();
        let membership = pdu::canonical::member(content, "membership");
        membership == Some(b"\"join\"".as_slice())
    });
    joined.filter_map(|event| event.header.place).min()
}

/// What a server lacks of some rooms, and those of which there is nothing to tell because they are gone; two
/// round trips.
async fn lacking(
    snapshot: &Snapshot,
    server: NameHash,
    rows: Vec<(RoomKey, Found<LateRoomRow>)>,
) -> error::Result<(Vec<Lacking>, Vec<ToldRoom>)> {
    let rooms: Vec<_> = rows.iter().map(|((_, room), _)| *room).collect();
    let heads = snapshot.multi_get(&HEAD_BY_ROOM, &rooms).await?;
    let mut reads = Reads::new();
    let (mut asked, mut gone) = (Vec::new(), Vec::new());
    for (((_, room), row), head) in rows.into_iter().zip(heads) {
        let Some(head) = head.map(|head| head.value) else {
            gone.push(ToldRoom {
                room,
                row,
                next: Place::END,
                more: false,
            });
            continue;
        };
        let key = (room, head.generation, server);
        let members = Range::prefix(&key).limit(MEMBERS_MAX);
        let placed = Range::prefix(&(room,))
            .from(&(room, row.value.from))
            .limit(PDUS_MAX + 1);
        asked.push(Asked {
            late: LateRoom { room, row, head },
            server: reads.get(&SERVER_BY_ROOM, &key),
            members: reads.range(&MEMBER_BY_SERVER, &members),
            placed: reads.range(&EVENT_BY_PLACE, &placed),
        });
    }
    let answers = snapshot.read(&reads).await?;
    let lacking = asked.into_iter().map(|asked| asked.answer(&answers));
    Ok((lacking.collect::<error::Result<_>>()?, gone))
}

impl Asked {
    fn answer(self, answers: &Answers) -> error::Result<Lacking> {
        let members = answers.rows(&self.members)?.into_iter();
        let placed = answers.rows(&self.placed)?.into_iter();
        Ok(Lacking {
            present: answers.one(&self.server)?.is_some(),
            members: members.map(|(_, row)| row.value).collect(),
            placed: placed
                .map(|((_, place), row)| (place, row.value.number))
                .collect(),
            late: self.late,
        })
    }
}
