//! What people report to those who run this server: events, rooms, people.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::try_join_all;
use pdu::canonical;
use ruma::{RoomId, events::StateEventType};
use storage::{
    Batch, CommitError, Found, Range, Snapshot,
    schema::{LAST_REPORT_BY_KIND, REPORT_BY_NUMBER, ReportRow},
};

use crate::Rooms;

/// The most reports of a kind that are kept; older ones go.
const KEPT: u64 = 100_000;

/// How many are looked through together.
const TOGETHER: usize = 1_000;

/// How often it is tried to write a report down while others write theirs.
const TRIES_MAX: usize = 32;

/// What a report is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Of an event.
    Event = 0,
    /// Of a room.
    Room = 1,
    /// Of a person.
    User = 2,
}

/// A report to be written down.
#[derive(Clone, Debug)]
pub struct NewReport {
    /// What it is of.
    pub kind: ReportKind,
    /// Whose.
    pub reporter: String,
    /// Why.
    pub reason: Option<String>,
    /// The room, or that of the event.
    pub room_id: Option<String>,
    /// The event.
    pub event_id: Option<String>,
    /// The person, or the sender of the event.
    pub user_id: Option<String>,
}

/// A report, with its number.
pub type Report = (u64, ReportRow);

/// Which reports are wanted; texts are sought within ids.
#[derive(Clone, Debug, Default)]
pub struct ReportQuery {
    /// How many to leave out.
    pub from: usize,
    /// How many at most.
    pub limit: usize,
    /// Beginning with the oldest.
    pub oldest_first: bool,
    /// In the reporter.
    pub reporter: Option<String>,
    /// In the room.
    pub room_id: Option<String>,
    /// In the person, or the sender of the event.
    pub user_id: Option<String>,
}

impl ReportQuery {
    fn fits(&self, row: &ReportRow) -> bool {
        let within = |wanted: &Option<String>, found: Option<&String>| {
            let wanted = wanted.as_deref().unwrap_or_default();
            wanted.is_empty() || found.is_some_and(|found| found.contains(wanted))
        };
        within(&self.reporter, Some(&row.reporter))
            && within(&self.room_id, row.room_id.as_ref())
            && within(&self.user_id, row.user_id.as_ref())
    }
}

/// What a room is called now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomNames {
    /// Its name.
    pub name: Option<String>,
    /// Its canonical alias.
    pub canonical_alias: Option<String>,
}

impl Rooms {
    /// Writes a report down; its number.
    pub async fn report(&self, new: NewReport) -> error::Result<u64> {
        let kind = new.kind as u8;
        let row = ReportRow {
            reporter: new.reporter,
            reason: new.reason,
            received_ts: self.now(),
            room_id: new.room_id,
            event_id: new.event_id,
            user_id: new.user_id,
        };
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let last = snapshot.multi_get(&LAST_REPORT_BY_KIND, &[kind]).await?;
            let last = last.into_iter().flatten().next();
            let number = last.as_ref().map_or(0, |last| last.value).saturating_add(1);
            let mut batch = Batch::new();
            let raw = last.as_ref().map(|last| &last.raw);
            batch.expect_unchanged(&LAST_REPORT_BY_KIND, &kind, raw);
            batch.put(&LAST_REPORT_BY_KIND, &kind, &number);
            batch.put(&REPORT_BY_NUMBER, &(kind, number), &row);
            if let Some(old) = number.checked_sub(KEPT) {
                batch.delete(&REPORT_BY_NUMBER, &(kind, old));
            }
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(number),
                // After a lost reply it may be there twice, which is better than not at all.
                Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal(
            "too many write reports down at the same time",
        ))
    }

    /// A page of reports of a kind, and how many fit in all.
    pub async fn reports(
        &self,
        kind: ReportKind,
        query: &ReportQuery,
    ) -> error::Result<(Vec<Report>, usize)> {
        let kind = kind as u8;
        let snapshot = self.snapshot().await?;
        let (mut page, mut total) = (Vec::new(), 0_usize);
        let mut last: Option<(u8, u64)> = None;
        loop {
            let mut range = Range::prefix(&(kind,)).limit(TOGETHER);
            range = match (query.oldest_first, last) {
                (true, None) => range,
                (true, Some(last)) => range.after(&last),
                (false, None) => range.reverse(),
                (false, Some(last)) => range.before(&last).reverse(),
            };
            let rows = snapshot.multi_range(&REPORT_BY_NUMBER, &[range]).await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let read = rows.len();
            last = rows.last().map(|(key, _)| *key);
            for ((_, number), Found { value, .. }) in rows {
                if !query.fits(&value) {
                    continue;
                }
                if total >= query.from && page.len() < query.limit {
                    page.push((number, value));
                }
                total += 1;
            }
            if read < TOGETHER {
                return Ok((page, total));
            }
        }
    }

    /// A report.
    pub async fn find_report(
        &self,
        kind: ReportKind,
        number: u64,
    ) -> error::Result<Option<Report>> {
        let key = (kind as u8, number);
        let found = self
            .snapshot()
            .await?
            .multi_get(&REPORT_BY_NUMBER, &[key])
            .await?;
        let found = found.into_iter().flatten().next();
        Ok(found.map(|found| (number, found.value)))
    }

    /// Throws a report away; whether it was there.
    pub async fn delete_report(&self, kind: ReportKind, number: u64) -> error::Result<bool> {
        if self.find_report(kind, number).await?.is_none() {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.delete(&REPORT_BY_NUMBER, &(kind as u8, number));
        self.storage().commit(batch).await?;
        Ok(true)
    }

    /// What rooms are called now, those of them that are here.
    pub async fn names_of_rooms(
        &self,
        room_ids: BTreeSet<&str>,
    ) -> error::Result<HashMap<String, RoomNames>> {
        let snapshot = self.snapshot().await?;
        snapshot
            .gathered(async |snapshot: Snapshot| {
                let rooms = room_ids.into_iter();
                let names = rooms.map(|room_id| self.names_of_room(snapshot.clone(), room_id));
                Ok(try_join_all(names).await?.into_iter().flatten().collect())
            })
            .await
    }

    async fn names_of_room(
        &self,
        snapshot: Snapshot,
        room_id: &str,
    ) -> error::Result<Option<(String, RoomNames)>> {
        let parsed = <&RoomId>::try_from(room_id).map_err(error::internal)?;
        let Some(room) = self.find_room(parsed).await? else {
            return Ok(None);
        };
        let of = |event_type: StateEventType| (event_type, String::new());
        let keys = [StateEventType::RoomName, StateEventType::RoomCanonicalAlias].map(of);
        let (_, state) = room.current_state(self, &snapshot, &keys).await?;
        let [name, canonical_alias] = keys.map(|key| {
            let field = match key.0 {
                StateEventType::RoomName => "name",
                _ => "alias",
            };
            let content = state.get(&key)?.pdu.content_bytes();
            let text = canonical::string(canonical::member(content, field)?)?;
            Some(text.into_owned())
        });
        let names = RoomNames {
            name,
            canonical_alias,
        };
        Ok(Some((room_id.to_owned(), names)))
    }
}
