//! The commits of a purge, one after the other.

use bytes::Bytes;
use pdu::EventNumber;
use storage::{
    Batch, Found, Key, NameHash, Position, Range, Reads, ShortRoomId, ShortUserId, Snapshot, Table,
    Value,
    schema::{self, DelayedEventsRow, UserChange},
};

use super::{Purge, Stage, Step};
use crate::{Rooms, accept::EVERYBODY};

/// Rows that are looked at together.
const AT_ONCE: usize = 500;
/// Accounts, jobs and records of the stream that are looked at together, and how often one after the other where
/// none of them has to do with the room.
const LOOKED_AT: usize = 1_000;
const LOOKS_MAX: usize = 20;
/// Events that are read together, and about so many bytes of them removed in one commit.
const EVENTS_AT_ONCE: usize = 100;
const BYTES_AT_ONCE: usize = 400_000;

impl Rooms {
    /// The next commit of a purge, whose job has this id.
    pub(super) async fn purge_step(&self, purge: &Purge, id: NameHash) -> error::Result<Step> {
        match purge.stage {
            Stage::Jobs(after) => self.purge_jobs(purge, id, after).await,
            Stage::Aliases => self.purge_aliases(purge).await,
            Stage::Members => self.purge_members(purge).await,
            Stage::Servers => self.purge_servers(purge).await,
            Stage::People(after) => self.purge_people(purge, after).await,
            Stage::Log(user, after) => self.purge_log(purge, user, after).await,
            Stage::Person(user) => self.purge_person(purge, user).await,
            Stage::Stream(after) => self.purge_stream(purge, after).await,
            Stage::Events => self.purge_events(purge).await,
            Stage::LooseEvents => self.purge_loose_events(purge).await,
            Stage::Rows => {
                let mut batch = Batch::new();
                purge_rows(&mut batch, purge.room);
                Ok(Step { batch, next: None })
            }
        }
    }

    /// Jobs name a room by its short id, somewhere in their bodies.
    async fn purge_jobs(
        &self,
        purge: &Purge,
        own: NameHash,
        after: Option<NameHash>,
    ) -> error::Result<Step> {
        let mut range = Range::prefix(&()).limit(LOOKED_AT);
        if let Some(after) = after {
            range = range.after(&after);
        }
        let snapshot = self.snapshot().await?;
        let rows = snapshot.multi_range(&schema::JOB_BY_ID, &[range]).await?;
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        let mut batch = Batch::new();
        let short = purge.room.0;
        for (id, row) in rows.iter().filter(|(id, _)| *id != own) {
            let mut parts = row.value.body.windows(short.len());
            if parts.any(|part| part == short) {
                remove(&mut batch, &schema::JOB_BY_ID, id, &row.raw);
            }
        }
        let last = rows.last().filter(|_| rows.len() == LOOKED_AT);
        Ok(Step::to(
            batch,
            last.map_or(Stage::Aliases, |(last, _)| Stage::Jobs(Some(*last))),
        ))
    }

    async fn purge_aliases(&self, purge: &Purge) -> error::Result<Step> {
        let snapshot = self.snapshot().await?;
        let ranges = [Range::prefix(&(purge.room,)).limit(AT_ONCE)];
        let rows = snapshot
            .multi_range(&schema::ALIAS_BY_ROOM, &ranges)
            .await?;
        let names = rows.into_iter().flatten().map(|((_, name), _)| name);
        let names: Vec<_> = names.collect();
        let mut batch = Batch::new();
        if names.is_empty() {
            return Ok(Step::to(batch, Stage::Members));
        }
        let rows = snapshot.multi_get(&schema::ROOM_BY_ALIAS, &names).await?;
        for (name, row) in names.iter().zip(rows) {
            batch.delete(&schema::ALIAS_BY_ROOM, &(purge.room, *name));
            // It may be a new room of this id by now.
            if let Some(row) = row.filter(|row| !purge.again && row.value.room_id == purge.room_id)
            {
                remove(&mut batch, &schema::ROOM_BY_ALIAS, name, &row.raw);
            }
        }
        Ok(Step::to(batch, Stage::Aliases))
    }

    async fn purge_members(&self, purge: &Purge) -> error::Result<Step> {
        let room = purge.room;
        let snapshot = self.snapshot().await?;
        let ranges = [Range::prefix(&(room,)).limit(AT_ONCE)];
        let rows = snapshot
            .multi_range(&schema::MEMBER_BY_SERVER, &ranges)
            .await?;
        let mut batch = Batch::new();
        batch.delete(&schema::ROOM_BY_REMOTE_USER, &(NameHash::NONE, room));
        let mut any = false;
        for (key, _) in rows.into_iter().flatten() {
            let (_, _, server, user) = key;
            batch.delete(&schema::ROOM_BY_REMOTE_USER, &(user, room));
            batch.delete(&schema::LATE_ROOM_BY_DESTINATION, &(server, room));
            batch.delete(&schema::MEMBER_BY_SERVER, &key);
            any = true;
        }
        let next = if any { Stage::Members } else { Stage::Servers };
        Ok(Step::to(batch, next))
    }

    /// Servers too of which nobody is known yet.
    async fn purge_servers(&self, purge: &Purge) -> error::Result<Step> {
        let snapshot = self.snapshot().await?;
        let ranges = [Range::prefix(&(purge.room,)).limit(AT_ONCE)];
        let rows = snapshot
            .multi_range(&schema::SERVER_BY_ROOM, &ranges)
            .await?;
        let mut batch = Batch::new();
        // Mentions of everybody stand under nobody.
        let mut next = Stage::Person(EVERYBODY);
        for (key, _) in rows.into_iter().flatten() {
            let late = (key.2, purge.room);
            batch.delete(&schema::LATE_ROOM_BY_DESTINATION, &late);
            batch.delete(&schema::SERVER_BY_ROOM, &key);
            next = Stage::Servers;
        }
        Ok(Step::to(batch, next))
    }

    /// Looks for the next one of ours who has to do with the room.
    async fn purge_people(
        &self,
        purge: &Purge,
        mut after: Option<ShortUserId>,
    ) -> error::Result<Step> {
        for _ in 0..LOOKS_MAX {
            let (found, last) = self.next_person(purge.room, after).await?;
            if let Some(user) = found {
                let next = Stage::Log(user, Position::START);
                return Ok(Step::to(Batch::new(), next));
            }
            let Some(last) = last else {
                let next = match purge.stream {
                    Some((first, _)) => Stage::Stream(first),
                    None => Stage::Events,
                };
                return Ok(Step::to(Batch::new(), next));
            };
            after = Some(last);
        }
        Ok(Step::to(Batch::new(), Stage::People(after)))
    }

    /// The first one of the next accounts who has a row of the room; the last of these accounts, if there are
    /// any. Who was found is found again, until the row is gone.
    async fn next_person(
        &self,
        room: ShortRoomId,
        after: Option<ShortUserId>,
    ) -> error::Result<(Option<ShortUserId>, Option<ShortUserId>)> {
        let mut range = Range::prefix(&()).limit(LOOKED_AT);
        if let Some(after) = after {
            range = range.after(&after);
        }
        let snapshot = self.snapshot().await?;
        let accounts = snapshot
            .multi_range(&schema::ACCOUNT_BY_USER, &[range])
            .await?;
        let accounts = accounts.into_iter().flatten().map(|(user, _)| user);
        let keys: Vec<_> = accounts.map(|user| (user, room)).collect();
        let rows = snapshot.multi_get(&schema::ROOM_BY_USER, &keys).await?;
        let found = keys.iter().zip(rows).find(|(_, row)| row.is_some());
        let last = keys.last().map(|(user, _)| *user);
        Ok((found.map(|((user, _), _)| *user), last))
    }

    async fn purge_log(
        &self,
        purge: &Purge,
        user: ShortUserId,
        after: Position,
    ) -> error::Result<Step> {
        let range = Range::prefix(&(user,)).after(&(user, after));
        let snapshot = self.snapshot().await?;
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_USER_POSITION, &[range.limit(LOOKED_AT)])
            .await?;
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        let mut batch = Batch::new();
        for (key, row) in &rows {
            let room = match row.value {
                UserChange::Room(room)
                | UserChange::AccountData(room, _)
                | UserChange::Read(room) => room,
                UserChange::DeviceList | UserChange::Signatures(_) => continue,
            };
            if room == purge.room {
                batch.delete(&schema::CHANGE_BY_USER_POSITION, key);
            }
        }
        let last = rows.last().filter(|_| rows.len() == LOOKED_AT);
        Ok(Step::to(
            batch,
            last.map_or(Stage::Person(user), |((_, last), _)| {
                Stage::Log(user, *last)
            }),
        ))
    }

    async fn purge_person(&self, purge: &Purge, user: ShortUserId) -> error::Result<Step> {
        let own = (user, purge.room);
        let mut reads = Reads::new();
        let read = Range::prefix(&own).limit(AT_ONCE);
        let read = reads.range(&schema::READ_BY_USER_ROOM, &read);
        let mentions = Range::prefix(&own).limit(AT_ONCE);
        let mentions = reads.range(&schema::MENTION_BY_USER_ROOM, &mentions);
        let data = Range::prefix(&own).limit(AT_ONCE);
        let data = reads.range(&schema::ACCOUNT_DATA_BY_USER, &data);
        let threads = Range::prefix(&own).limit(AT_ONCE);
        let threads = reads.range(&schema::SUBSCRIPTION_BY_USER, &threads);
        let notices = reads.get(&schema::NOTICES_ROOM_BY_USER, &user);
        let answers = self.snapshot().await?.read(&reads).await?;
        let mut batch = Batch::new();
        let mut count = 0;
        for (key, _) in answers.rows(&read)? {
            batch.delete(&schema::READ_BY_USER_ROOM, &key);
            count += 1;
        }
        for (key, _) in answers.rows(&mentions)? {
            batch.delete(&schema::MENTION_BY_USER_ROOM, &key);
            count += 1;
        }
        for (key, row) in answers.rows(&data)? {
            remove(&mut batch, &schema::ACCOUNT_DATA_BY_USER, &key, &row.raw);
            count += 1;
        }
        for (key, row) in answers.rows(&threads)? {
            let stamp = (user, row.value.stamp);
            batch.delete(&schema::SUBSCRIPTION_BY_STAMP, &stamp);
            batch.delete(&schema::SUBSCRIPTION_BY_USER, &key);
            count += 1;
        }
        if count > 0 {
            return Ok(Step::to(batch, Stage::Person(user)));
        }
        if user == EVERYBODY {
            return Ok(Step::to(batch, Stage::People(None)));
        }
        if let Some(row) = answers.one(&notices)?.filter(|row| row.value == purge.room) {
            remove(&mut batch, &schema::NOTICES_ROOM_BY_USER, &user, &row.raw);
        }
        self.purge_delayed(purge, user, &mut batch).await?;
        batch.delete(&schema::DEVICE_CHANGE_BY_USER, &own);
        batch.delete(&schema::ROOM_BY_USER, &own);
        // What is remembered of their rooms is looked at anew.
        batch.put_stamped(&schema::TAIL_BY_USER, &user, 0, ());
        Ok(Step::to(batch, Stage::People(Some(user))))
    }

    /// Events that somebody wanted to be sent later into the room.
    async fn purge_delayed(
        &self,
        purge: &Purge,
        user: ShortUserId,
        batch: &mut Batch,
    ) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let lists = snapshot
            .multi_get(&schema::DELAYED_EVENTS_BY_USER, &[user])
            .await?;
        let Some(list) = lists.into_iter().flatten().next() else {
            return Ok(());
        };
        let rows = snapshot
            .multi_get(&schema::DELAYED_EVENT_BY_ID, &list.value.events)
            .await?;
        let mut left = DelayedEventsRow::default();
        for (id, row) in list.value.events.iter().zip(rows) {
            let Some(row) = row.filter(|row| row.value.room_id == purge.room_id) else {
                left.events.push(*id);
                continue;
            };
            let due = (row.value.due_ts, *id);
            batch.delete(&schema::DELAYED_EVENT_BY_TIME, &due);
            remove(batch, &schema::DELAYED_EVENT_BY_ID, id, &row.raw);
        }
        if left != list.value {
            batch.expect_equals(&schema::DELAYED_EVENTS_BY_USER, &user, &list.raw);
            batch.put(&schema::DELAYED_EVENTS_BY_USER, &user, &left);
        }
        Ok(())
    }

    /// The records of all rooms lie in one order, so those of others are passed over.
    async fn purge_stream(&self, purge: &Purge, mut after: Position) -> error::Result<Step> {
        let Some((first, last)) = purge.stream else {
            return Ok(Step::to(Batch::new(), Stage::Events));
        };
        let mut batch = Batch::new();
        for _ in 0..LOOKS_MAX {
            let mut range = Range::prefix(&()).up_to(&last).limit(LOOKED_AT);
            // The first one is the room's.
            range = match after == first {
                true => range.from(&first),
                false => range.after(&after),
            };
            let snapshot = self.snapshot().await?;
            let rows = snapshot
                .multi_range(&schema::STREAM_BY_POSITION, &[range])
                .await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let own = rows.iter().filter(|(_, row)| row.value.room == purge.room);
            for (position, _) in own {
                batch.delete(&schema::STREAM_BY_POSITION, position);
            }
            match rows.last().filter(|_| rows.len() == LOOKED_AT) {
                Some((position, _)) => after = *position,
                None => return Ok(Step::to(batch, Stage::Events)),
            }
            if !batch.is_empty() {
                break;
            }
        }
        Ok(Step::to(batch, Stage::Stream(after)))
    }

    async fn purge_events(&self, purge: &Purge) -> error::Result<Step> {
        let snapshot = self.snapshot().await?;
        let ranges = [Range::prefix(&(purge.room,)).limit(EVENTS_AT_ONCE)];
        let rows = snapshot
            .multi_range(&schema::EVENT_BY_NUMBER, &ranges)
            .await?;
        let rows: Vec<((ShortRoomId, EventNumber), _)> = rows.into_iter().flatten().collect();
        if rows.is_empty() {
            return Ok(Step::to(Batch::new(), Stage::LooseEvents));
        }
        let names = rows.iter().map(|(_, row)| &row.value.header.event_id);
        let names: Vec<_> = names.map(|id| self.storage().event_hash(id)).collect();
        let table = &schema::EVENT_BY_NUMBER;
        let batch = removed(&snapshot, purge.room, table, &rows, &names).await?;
        Ok(Step::to(batch, Stage::Events))
    }

    async fn purge_loose_events(&self, purge: &Purge) -> error::Result<Step> {
        let snapshot = self.snapshot().await?;
        let ranges = [Range::prefix(&(purge.room,)).limit(EVENTS_AT_ONCE)];
        let rows = snapshot
            .multi_range(&schema::LOOSE_EVENT_BY_ID, &ranges)
            .await?;
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        if rows.is_empty() {
            return Ok(Step::to(Batch::new(), Stage::Rows));
        }
        let names: Vec<_> = rows.iter().map(|((_, name), _)| *name).collect();
        let table = &schema::LOOSE_EVENT_BY_ID;
        let batch = removed(&snapshot, purge.room, table, &rows, &names).await?;
        Ok(Step::to(batch, Stage::LooseEvents))
    }
}

/// Removes a row as it was read, with all that belongs to it if it is long.
fn remove<K: Key, V: Value>(batch: &mut Batch, table: &Table<K, V>, key: &K, raw: &Bytes) {
    batch.expect_equals(table, key, raw);
    batch.delete(table, key);
}

/// Removes as many of some rows of events of a room as one commit takes, and where these are, by their names.
async fn removed<K: Key, V: Value>(
    snapshot: &Snapshot,
    room: ShortRoomId,
    table: &Table<K, V>,
    rows: &[(K, Found<V>)],
    names: &[NameHash],
) -> error::Result<Batch> {
    let known = snapshot.multi_get(&schema::NUMBER_BY_EVENT, names).await?;
    let mut batch = Batch::new();
    for (((key, row), name), known) in rows.iter().zip(names).zip(known) {
        if let Some(known) = known.filter(|known| known.value.room == room) {
            remove(&mut batch, &schema::NUMBER_BY_EVENT, name, &known.raw);
        }
        remove(&mut batch, table, key, &row.raw);
        if batch.len_bytes() >= BYTES_AT_ONCE {
            break;
        }
    }
    Ok(batch)
}

/// Puts the end of all rows under a room's short id into a batch.
fn purge_rows(batch: &mut Batch, room: ShortRoomId) {
    let all = &(room,);
    batch.delete_prefix(&schema::EVENT_BY_PLACE, all);
    batch.delete_prefix(&schema::EVENT_BY_TIME, all);
    batch.delete_prefix(&schema::VERDICT_BY_EVENT, all);
    batch.delete_prefix(&schema::ROOTS_BY_EVENT, all);
    batch.delete_prefix(&schema::REDACTION_BY_TARGET, all);
    batch.delete_prefix(&schema::GAP_BY_PLACE, all);
    batch.delete_prefix(&schema::CHANGE_BY_ROOM_POSITION, all);
    batch.delete_prefix(&schema::NODE_BY_HASH, all);
    batch.delete_prefix(&schema::STATE_BY_ROOM, all);
    batch.delete_prefix(&schema::MEMBER_BY_ROOM, all);
    batch.delete_prefix(&schema::CHAIN_BY_SET, all);
    batch.delete_prefix(&schema::RELATION_BY_PARENT, all);
    batch.delete_prefix(&schema::THREAD_BY_ROOT, all);
    batch.delete_prefix(&schema::THREAD_BY_PLACE, all);
    batch.delete_prefix(&schema::PARTICIPANT_BY_THREAD, all);
    batch.delete_prefix(&schema::RECEIPT_BY_ROOM, all);
    batch.delete_prefix(&schema::RECEIPT_BY_POSITION, all);
    batch.delete_prefix(&schema::DEVICE_CHANGE_BY_ROOM, all);
    batch.delete_prefix(&schema::LATE_DEVICE_CHANGE_BY_ROOM, all);
    batch.delete_prefix(&schema::WAITING_PDU_BY_ROOM, all);
    batch.delete_prefix(&schema::FOLLOWED_BY_EVENT, all);
    batch.delete_prefix(&schema::ENDS_BEHIND_EVENT, all);
    batch.delete(&schema::HEAD_BY_ROOM, &room);
    batch.delete(&schema::TAIL_BY_ROOM, &room);
    batch.delete(&schema::RECEIPT_TAIL_BY_ROOM, &room);
    batch.delete(&schema::RESETS_BY_ROOM, &room);
    batch.delete(&schema::PARTIAL_ROOM, &room);
}
