//! Waiting for what others write: nothing is missed, though the word of it comes late or never.

use std::time::Duration;

use pdu::EventNumber;
use storage::{
    Batch, Faults, Follower, Position, Range, Storage, Topic,
    schema::{self, StreamRecord},
};
use tokio::time::{Instant, Interval};

use super::{engines, output, room, user, view};

/// How long after a change who waits for it has seen it, at most, where wake-ups get lost.
const SEEN_WITHIN: Duration = Duration::from_millis(250);

/// What every engine is, and the model at its worst; the last value tells whether it may keep people waiting.
fn all() -> Vec<(&'static str, Storage, Option<tempfile::TempDir>, bool)> {
    let good = engines()
        .into_iter()
        .map(|engine| (engine.name, engine.storage, engine.folder, false));
    let bad = [
        ("wakes late", 0, 1_000),
        ("wakes never", 1_000, 0),
        ("wakes as it likes", 400, 400),
    ];
    let bad = bad.map(|(name, lost_wakes, late_wakes)| {
        let faults = Faults {
            seed: 11,
            lost_wakes,
            late_wakes,
            ..Faults::NONE
        };
        (name, Storage::model_with(faults), None, true)
    });
    good.chain(bad).collect()
}

/// How many changes of a user there are.
async fn changes(storage: &Storage) -> usize {
    let range = Range::prefix(&(user(1),));
    let rows = view(storage)
        .await
        .multi_range(&schema::CHANGE_BY_USER_POSITION, &[range])
        .await
        .unwrap();
    rows[0].len()
}

/// Ticks of the paused clock, the first one after `time`.
fn each(time: Duration) -> Interval {
    tokio::time::interval_at(Instant::now() + time, time)
}

#[tokio::test(start_paused = true)]
async fn whoever_registers_looks_and_then_waits_sees_every_change_in_time() {
    for (name, storage, _folder, slow) in all() {
        let writing = tokio::spawn({
            let storage = storage.clone();
            async move {
                let mut ticks = each(Duration::from_millis(700));
                for _ in 0..50 {
                    ticks.tick().await;
                    let mut batch = output(1);
                    batch.wake(Topic::User(user(1)));
                    storage.commit(batch).await.unwrap();
                }
            }
        });
        let start = Instant::now();
        let subscription = storage.subscribe(&[Topic::User(user(1))]);
        let mut seen = 0;
        while seen < 50 {
            let now = changes(&storage).await;
            if now > seen {
                seen = now;
                let written = Duration::from_millis(700) * u32::try_from(seen).unwrap();
                let after = start.elapsed() - written;
                let within = if slow { SEEN_WITHIN } else { Duration::ZERO };
                // The engine on the disk answers from a thread of its own, while this clock goes on.
                assert!(
                    after <= within || name == "RocksDB",
                    "{name}: {after:?} after change {seen}"
                );
                continue;
            }
            subscription.woken().await;
        }
        writing.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_misses_nothing_and_does_nothing_twice() {
    for (name, storage, _folder, _) in all() {
        let writing = tokio::spawn({
            let storage = storage.clone();
            async move {
                let mut ticks = each(Duration::from_millis(100));
                for round in 0..30 {
                    ticks.tick().await;
                    storage.commit(happened(round)).await.unwrap();
                }
            }
        });
        let follower = Follower::new(&storage, "test");
        let waiting = follower.subscribe();
        let mut worked_on = 0;
        while worked_on < 60 {
            let ahead = follower.ahead(7).await.unwrap();
            if ahead.records.is_empty() {
                waiting.woken().await;
                continue;
            }
            worked_on += ahead.records.len();
            let mut batch = output(ahead.records.len());
            follower.advance(&mut batch, &ahead);
            storage.commit(batch).await.unwrap();
        }
        writing.await.unwrap();
        assert_eq!(changes(&storage).await, 60, "{name}");
        assert!(follower.ahead(1).await.unwrap().records.is_empty());
    }
}

/// Two things that happened in a room.
fn happened(round: u8) -> Batch {
    let mut batch = Batch::new();
    for index in 0..2 {
        let record = StreamRecord {
            room: room(round),
            number: EventNumber(u32::from(index)),
            place: None,
            historic: false,
            local: true,
            servers: Vec::new(),
        };
        batch.put(
            &schema::STREAM_BY_POSITION,
            &Position::pending(index),
            &record,
        );
    }
    batch.wake(Topic::Stream);
    batch
}
