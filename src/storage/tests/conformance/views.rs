//! Views, which no engine keeps for long.

use std::time::Duration;

use storage::{Batch, Clock, MAX_VALUE, Range, Raw, ReadError, Reads, SNAPSHOT_LIFE, schema};

use super::{engines_on, name, read, room, text, user, view};

const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_view_that_is_too_old_is_refused_and_the_next_one_is_not() {
    let clock = Clock::standing_at(1_000);
    for engine in engines_on(&clock) {
        let storage = &engine.storage;
        let key = (user(1), name(1));
        storage.commit(text(key, "kept")).await.unwrap();
        let old = view(storage).await;
        clock.advance(SNAPSHOT_LIFE);
        let rows = old.multi_get(&schema::FILTER_BY_USER, &[key]).await;
        assert_eq!(rows.unwrap()[0].as_ref().unwrap().value, "kept");
        clock.advance(MOMENT);
        let rows = old.multi_get(&schema::FILTER_BY_USER, &[key]).await;
        assert!(matches!(rows, Err(ReadError::TooOld)), "{}", engine.name);
        let range = Range::prefix(&(user(1),));
        let rows = old.multi_range(&schema::FILTER_BY_USER, &[range]).await;
        assert!(matches!(rows, Err(ReadError::TooOld)), "{}", engine.name);
        assert_eq!(read(storage, key).await.as_deref(), Some("kept"));
    }
}

#[tokio::test]
async fn what_never_changes_is_read_on_however_long_it_takes() {
    let clock = Clock::standing_at(1_000);
    for engine in engines_on(&clock) {
        let storage = &engine.storage;
        let key = (room(1), [1; 16]);
        let node = |len| Raw(vec![7; len].into());
        let mut batch = Batch::new();
        batch.put(&schema::NODE_BY_HASH, &key, &node(10));
        // In pieces.
        let long = (room(1), [2; 16]);
        batch.put(&schema::NODE_BY_HASH, &long, &node(2 * MAX_VALUE));
        storage.commit(batch).await.unwrap();
        let old = view(storage).await;
        clock.advance(3 * SNAPSHOT_LIFE);
        let rows = old.multi_get(&schema::NODE_BY_HASH, &[key, long]).await;
        let rows = rows.unwrap();
        let lengths = rows.iter().flatten().map(|row| row.value.0.len());
        let lengths: Vec<_> = lengths.collect();
        assert_eq!(lengths, [10, 2 * MAX_VALUE], "{}", engine.name);
        // Not beside what may have changed.
        let mut both = Reads::new();
        both.get(&schema::NODE_BY_HASH, &key);
        both.get(&schema::FILTER_BY_USER, &(user(1), name(1)));
        let read = old.read(&both).await;
        assert!(matches!(read, Err(ReadError::TooOld)), "{}", engine.name);
    }
}

#[tokio::test]
async fn what_was_read_long_ago_is_still_a_precondition() {
    let clock = Clock::standing_at(1_000);
    for engine in engines_on(&clock) {
        let storage = &engine.storage;
        let key = (user(1), name(1));
        storage.commit(text(key, "1")).await.unwrap();
        let rows = view(storage).await;
        let rows = rows.multi_get(&schema::FILTER_BY_USER, &[key]).await;
        let raw = rows.unwrap().remove(0).unwrap().raw;
        clock.advance(10 * SNAPSHOT_LIFE);
        for (value, holds) in [("2", true), ("3", false)] {
            let mut batch = text(key, value);
            batch.expect_equals(&schema::FILTER_BY_USER, &key, &raw);
            assert_eq!(storage.commit(batch).await.is_ok(), holds);
        }
        assert_eq!(read(storage, key).await.as_deref(), Some("2"));
    }
}
