//! Keeping the index true: reading the stream, writing what it touches anew, committing now and then.
//!
//! Whatever a record names is written as it is *now*, so it does no harm to read a record twice, and the order
//! of what was touched does not matter.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    future::Future,
    sync::Arc,
    time::Duration,
};

use futures_util::future::{try_join, try_join_all};
use pdu::EventNumber;
use rooms::Room;
use storage::{Position, ShortRoomId, Snapshot, Topic, schema::StreamRecord};
use tokio::time::sleep;

use crate::{
    Failure, Search, blocking,
    index::{Change, Index, Owner},
    messages::{self, Touched},
    people::{self, Listing, Moved, Standing},
};

/// Records that are worked on together.
const AT_ONCE: usize = 200;

/// While nobody asks, what came in may wait so long, that much of it is indexed at once.
const LATE: Duration = Duration::from_secs(30);

/// A commit comes at the latest after so many records, changes, or bytes of text.
const RECORDS_MAX: usize = 50_000;
const CHANGES_MAX: usize = 50_000;
const BYTES_MAX: usize = 16 << 20;

/// How long to wait after a failure, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

impl Search {
    /// Opens the index and keeps it true until `stop` is done.
    pub async fn follow(&self, stop: impl Future<Output = ()>) {
        let mut pause = FIRST_PAUSE;
        let work = async {
            loop {
                let Err(failure) = self.follow_until_it_fails(&mut pause).await;
                tracing::error!(%failure, "the search index is opened again");
                self.0.index.write().take();
                self.0.reached.send_replace(Position::START);
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if failure.is_damage() {
                    self.throw_away().await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop => {}
        }
    }

    /// Takes the files of the index away: they are not what they should be.
    async fn throw_away(&self) {
        let folder = self.0.parts.folder.clone();
        let removed = blocking(move || Ok(Index::remove(&folder)?)).await;
        if let Err(failure) = removed {
            tracing::error!(%failure, "the search index cannot be removed");
        }
    }

    async fn follow_until_it_fails(&self, pause: &mut Duration) -> Result<Infallible, Failure> {
        let storage = self.storage();
        let owner = Owner {
            database: storage.hash("search index", ""),
            epoch: storage.epoch(),
        };
        let now = self.rooms().snapshot().await?.position();
        let folder = self.0.parts.folder.clone();
        let (index, place) = blocking(move || Index::open(&folder, owner, now)).await?;
        let index = Arc::new(index);
        *self.0.index.write() = Some(Arc::clone(&index));
        let mut worker = Worker {
            search: self,
            index,
            place,
            pending: Pending::default(),
        };
        let stream = storage.subscribe(&[Topic::Stream]);
        let mut wanted = self.0.wanted.subscribe();
        loop {
            wanted.borrow_and_update();
            worker.catch_up().await?;
            *pause = FIRST_PAUSE;
            tokio::select! {
                // The sender lives as long as we do.
                _ = wanted.changed() => {}
                () = async { stream.woken().await; sleep(LATE).await; } => {}
                () = self.0.damaged.notified() => return Err(Failure::Damaged),
            }
        }
    }
}

/// Who works on the stream.
struct Worker<'a> {
    search: &'a Search,
    index: Arc<Index>,
    /// Up to where it has worked.
    place: Position,
    pending: Pending,
}

/// What was changed since the last commit, and cannot be found in the index before the next.
#[derive(Default)]
struct Pending {
    records: usize,
    changes: usize,
    bytes: usize,
    /// Rooms whose members were written or removed: whether everybody may find them.
    listings: HashMap<ShortRoomId, Option<bool>>,
    /// Message by edit.
    edits: HashMap<(ShortRoomId, EventNumber), EventNumber>,
}

impl Pending {
    fn is_full(&self) -> bool {
        self.records >= RECORDS_MAX || self.changes >= CHANGES_MAX || self.bytes >= BYTES_MAX
    }
}

/// What happened in a room.
struct Happened {
    room: Arc<Room>,
    touched: Touched,
    moved: Moved,
}

impl Worker<'_> {
    /// Works off all that the stream holds now.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        loop {
            let snapshot = self.search.rooms().snapshot().await?;
            let records = snapshot.stream_after(self.place, AT_ONCE).await?;
            let all = records.len() < AT_ONCE;
            self.pending.records += records.len();
            self.work(&snapshot, &records).await?;
            self.place = match records.last() {
                Some((last, _)) if !all => *last,
                _ => snapshot.position(),
            };
            if self.pending.is_full() || (all && self.pending.changes > 0) {
                self.commit().await?;
            }
            if all {
                self.search.0.reached.send_replace(self.place);
                return Ok(());
            }
        }
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let (index, place) = (Arc::clone(&self.index), self.place);
        blocking(move || index.commit(place)).await?;
        self.pending = Pending::default();
        Ok(())
    }

    async fn apply(&mut self, changes: Vec<Change>) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        self.pending.changes += changes.len();
        let index = Arc::clone(&self.index);
        blocking(move || index.apply(changes)).await
    }

    /// Writes anew what some records touch.
    async fn work(
        &mut self,
        snapshot: &Snapshot,
        records: &[(Position, StreamRecord)],
    ) -> Result<(), Failure> {
        let mut by_room: BTreeMap<ShortRoomId, Vec<(Position, StreamRecord)>> = BTreeMap::new();
        for (position, record) in records {
            let of_room = by_room.entry(record.room).or_default();
            of_room.push((*position, record.clone()));
        }
        let (mut happened, gone) = self.happened(snapshot, &by_room).await?;
        self.forget(gone).await?;
        self.find_edited(&mut happened).await?;
        self.write_messages(snapshot, &happened).await?;
        for Happened { room, moved, .. } in &happened {
            if !moved.is_empty() {
                self.write_people(snapshot, room, moved).await?;
            }
        }
        Ok(())
    }

    /// Takes all of some rooms out of the index.
    async fn forget(&mut self, rooms: Vec<ShortRoomId>) -> Result<(), Failure> {
        for room in rooms {
            self.pending.listings.insert(room, None);
            let terms = self.index.fields.all_of_room(room);
            self.apply(terms.map(Change::Remove).into()).await?;
        }
        Ok(())
    }

    /// What happened in which room, and which rooms are gone.
    async fn happened(
        &self,
        snapshot: &Snapshot,
        by_room: &BTreeMap<ShortRoomId, Vec<(Position, StreamRecord)>>,
    ) -> error::Result<(Vec<Happened>, Vec<ShortRoomId>)> {
        let rooms = self.search.rooms();
        let shorts: Vec<_> = by_room.keys().copied().collect();
        let found = rooms.find_by_short(snapshot, &shorts).await?;
        let gone = shorts.iter().zip(&found);
        let gone = gone.filter_map(|(short, room)| room.is_none().then_some(*short));
        let gone: Vec<_> = gone.collect();
        let happened = snapshot.gathered(async |snapshot| {
            let all = found.into_iter().zip(by_room.values());
            let all = all.filter_map(|(room, records)| Some((room?, records)));
            let all = all.map(|(room, records)| {
                let snapshot = &snapshot;
                async move {
                    let touched = messages::touched(rooms, snapshot, &room, records);
                    let moved = people::moved(snapshot, &room, records);
                    let (touched, moved) = try_join(touched, moved).await?;
                    Ok::<_, error::Error>(Happened {
                        room,
                        touched,
                        moved,
                    })
                }
            });
            try_join_all(all).await
        });
        Ok((happened.await?, gone))
    }

    /// A redacted edit does not say any more what it was an edit of; the index does.
    async fn find_edited(&self, happened: &mut [Happened]) -> Result<(), Failure> {
        for Happened { room, touched, .. } in happened {
            for edit in std::mem::take(&mut touched.redacted) {
                let known = self.pending.edits.get(&(room.short, edit)).copied();
                let edited = match known {
                    Some(edited) => Some(edited),
                    None => {
                        let (index, room) = (Arc::clone(&self.index), room.short);
                        blocking(move || index.edited_by(room, edit)).await?
                    }
                };
                touched.messages.extend(edited);
            }
        }
        Ok(())
    }

    async fn write_messages(
        &mut self,
        snapshot: &Snapshot,
        happened: &[Happened],
    ) -> Result<(), Failure> {
        let (rooms, fields) = (self.search.rooms(), &self.index.fields);
        let written = snapshot.gathered(async |snapshot| {
            let touched = happened
                .iter()
                .filter(|happened| !happened.touched.messages.is_empty());
            let written = touched.map(|Happened { room, touched, .. }| {
                let snapshot = &snapshot;
                async move {
                    let numbers = &touched.messages;
                    let written = messages::write(rooms, fields, snapshot, room, numbers).await?;
                    Ok::<_, error::Error>((room.short, written))
                }
            });
            try_join_all(written).await
        });
        for (room, written) in written.await? {
            self.pending.bytes += written.bytes;
            let edits = written.edits.into_iter();
            let edits = edits.map(|(edit, message)| ((room, edit), message));
            self.pending.edits.extend(edits);
            self.apply(written.changes).await?;
        }
        Ok(())
    }

    /// Writes the members of a room anew, as many of them as need be.
    async fn write_people(
        &mut self,
        snapshot: &Snapshot,
        room: &Arc<Room>,
        moved: &Moved,
    ) -> Result<(), Failure> {
        let rooms = self.search.rooms();
        let was = self.listing(room.short).await?;
        let standing = people::standing(rooms, snapshot, room).await?;
        let Some(standing) = standing.filter(|standing| standing.resident) else {
            if was.is_some() {
                let term = self.index.fields.room_scope(room.short);
                self.pending.listings.insert(room.short, None);
                self.apply(vec![Change::Remove(term)]).await?;
            }
            return Ok(());
        };
        if moved.all || was != Some(standing.public) {
            return self.write_everybody(room, standing).await;
        }
        let index = Arc::clone(&self.index);
        let listing = Listing {
            rooms,
            fields: &index.fields,
            snapshot,
            room,
            standing,
        };
        self.apply(listing.members(&moved.members).await?).await
    }

    /// Whether the members of a room are in the index, and if so whether everybody may find them.
    async fn listing(&self, room: ShortRoomId) -> Result<Option<bool>, Failure> {
        if let Some(listing) = self.pending.listings.get(&room) {
            return Ok(*listing);
        }
        let index = Arc::clone(&self.index);
        blocking(move || index.listing(room)).await
    }

    /// Writes all members of a room anew, some at a time, each time as it is then: what changes meanwhile
    /// comes again.
    async fn write_everybody(
        &mut self,
        room: &Arc<Room>,
        standing: Standing,
    ) -> Result<(), Failure> {
        let index = Arc::clone(&self.index);
        let fields = &index.fields;
        let first = vec![
            Change::Remove(fields.room_scope(room.short)),
            Change::Add(fields.listing(room.short, standing.public)),
        ];
        self.pending
            .listings
            .insert(room.short, Some(standing.public));
        self.apply(first).await?;
        let mut after = None;
        loop {
            let snapshot = self.search.rooms().snapshot().await?;
            let listing = Listing {
                rooms: self.search.rooms(),
                fields,
                snapshot: &snapshot,
                room,
                standing,
            };
            let Some((changes, last)) = listing.next(after).await? else {
                return Ok(());
            };
            self.apply(changes).await?;
            after = Some(last);
        }
    }
}
