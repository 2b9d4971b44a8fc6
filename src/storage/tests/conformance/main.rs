//! One suite that every engine passes: what the interface promises, and random work against a naive map.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod cold;
mod merges;
mod views;
mod waits;

use std::{collections::BTreeMap, sync::Arc};

use pdu::EventNumber;
use proptest::prelude::*;
use storage::{
    Batch, Clock, CommitError, Faults, Follower, MAX_VALUE, NameHash, OnceKey, Options, Position,
    Range, ShortRoomId, ShortUserId, Storage, Topic, batch::MAX_BATCH, schema,
};
use tempfile::TempDir;

/// An engine to be tested, and what it lies in.
struct Engine {
    name: &'static str,
    storage: Storage,
    folder: Option<TempDir>,
}

fn options() -> Options {
    Options {
        statistics: true,
        ..Options::default()
    }
}

fn engines() -> Vec<Engine> {
    engines_on(&Clock::system())
}

/// The engines, which tell the age of views by this clock.
fn engines_on(clock: &Clock) -> Vec<Engine> {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        clock: clock.clone(),
        ..options()
    };
    vec![
        Engine {
            name: "model",
            storage: Storage::model_on(clock.clone(), Faults::NONE),
            folder: None,
        },
        Engine {
            name: "RocksDB",
            storage: Storage::open(folder.path(), &options).unwrap(),
            folder: Some(folder),
        },
    ]
}

fn user(n: u8) -> ShortUserId {
    ShortUserId([n; 8])
}

fn room(n: u8) -> ShortRoomId {
    ShortRoomId([n; 8])
}

fn name(n: u8) -> NameHash {
    NameHash([n; 16])
}

async fn view(storage: &Storage) -> storage::Snapshot {
    storage.snapshot(Position::START).await.unwrap()
}

fn text(key: (ShortUserId, NameHash), value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(&schema::FILTER_BY_USER, &key, &value.to_owned());
    batch
}

async fn read(storage: &Storage, key: (ShortUserId, NameHash)) -> Option<String> {
    let snapshot = view(storage).await;
    let mut rows = snapshot
        .multi_get(&schema::FILTER_BY_USER, &[key])
        .await
        .unwrap();
    rows.pop().unwrap().map(|row| row.value)
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    for engine in engines() {
        let storage = &engine.storage;
        let (a, b) = ((user(1), name(1)), (user(1), name(2)));
        storage.commit(text(a, "a")).await.unwrap();
        let raw = view(storage)
            .await
            .multi_get(&schema::FILTER_BY_USER, &[a])
            .await
            .unwrap()
            .remove(0)
            .unwrap()
            .raw;
        let mut wrong = text(b, "b");
        wrong.expect_equals(&schema::FILTER_BY_USER, &a, &raw);
        wrong.expect_absent(&schema::FILTER_BY_USER, &a);
        let refused = storage.commit(wrong).await;
        assert!(
            matches!(refused, Err(CommitError::Conflict(1))),
            "{refused:?}"
        );
        assert_eq!(read(storage, b).await, None, "{}", engine.name);

        let mut right = text(b, "b");
        right.expect_equals(&schema::FILTER_BY_USER, &a, &raw);
        right.expect_absent(&schema::FILTER_BY_USER, &b);
        right.delete(&schema::FILTER_BY_USER, &a);
        storage.commit(right).await.unwrap();
        assert_eq!(read(storage, a).await, None);
        assert_eq!(read(storage, b).await.as_deref(), Some("b"));
    }
}

#[tokio::test]
async fn a_view_does_not_change_and_positions_rise() {
    for engine in engines() {
        let storage = &engine.storage;
        let key = (user(1), name(1));
        let first = storage.commit(text(key, "1")).await.unwrap();
        let old = view(storage).await;
        let second = storage.commit(text(key, "2")).await.unwrap();
        assert!(first < second && old.position() >= first && old.position() < second);
        let rows = old
            .multi_get(&schema::FILTER_BY_USER, &[key])
            .await
            .unwrap();
        assert_eq!(rows[0].as_ref().unwrap().value, "1", "{}", engine.name);
        assert!(view(storage).await.position() >= second);
    }
}

#[tokio::test]
async fn a_commit_puts_its_position_into_keys_and_values() {
    for engine in engines() {
        let storage = &engine.storage;
        let mut batch = Batch::new();
        for index in 0..3 {
            let key = (user(1), Position::pending(index));
            let change = schema::UserChange::Room(room(index as u8));
            batch.put(&schema::CHANGE_BY_USER_POSITION, &key, &change);
        }
        batch.put_stamped(&schema::TAIL_BY_USER, &user(1), 2, ());
        let position = storage.commit(batch).await.unwrap();
        let snapshot = view(storage).await;
        let rows = snapshot
            .multi_range(
                &schema::CHANGE_BY_USER_POSITION,
                &[Range::prefix(&(user(1),))],
            )
            .await
            .unwrap()
            .remove(0);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].0.1, position);
        assert!(rows.windows(2).all(|pair| pair[0].0.1 < pair[1].0.1));
        let tail = snapshot
            .multi_get(&schema::TAIL_BY_USER, &[user(1)])
            .await
            .unwrap()
            .remove(0)
            .unwrap();
        assert_eq!(tail.value.position, rows[2].0.1, "{}", engine.name);
        assert!(position.end_of_commit() <= snapshot.position());
    }
}

#[tokio::test]
async fn what_is_done_once_is_not_done_again() {
    for engine in engines() {
        let storage = &engine.storage;
        let once = |day| OnceKey { day, name: name(9) };
        let batch = |value: &str, day| {
            let mut batch = text((user(1), name(1)), value);
            batch.once(once(day), value.as_bytes().to_vec());
            batch
        };
        storage.commit(batch("first", 10)).await.unwrap();
        for day in [10, 11] {
            match storage.commit(batch("second", day)).await {
                Err(CommitError::Done(answer)) => assert_eq!(answer, b"first"),
                other => panic!("{}: {other:?}", engine.name),
            }
        }
        let value = read(storage, (user(1), name(1))).await;
        assert_eq!(value.as_deref(), Some("first"));
        storage.commit(batch("third", 12)).await.unwrap();
    }
}

#[tokio::test]
async fn once_keys_are_removed_when_they_do_not_count_any_more() {
    for engine in engines() {
        let storage = &engine.storage;
        for day in [3, 4, 4, 9, 10, 11] {
            let mut batch = Batch::new();
            let name = name(u8::try_from(day).unwrap());
            batch.once(OnceKey { day, name }, Vec::new());
            let _ = storage.commit(batch).await;
        }
        let days = async || {
            let rows = view(storage).await;
            let rows = rows
                .multi_range(&schema::ONCE_BY_DAY, &[Range::prefix(&())])
                .await;
            let rows = rows.unwrap().remove(0);
            rows.into_iter()
                .map(|((day, _), _)| day)
                .collect::<Vec<_>>()
        };
        for (today, left) in [
            (4, vec![3, 4, 9, 10, 11]),
            (11, vec![10, 11]),
            (11, vec![10, 11]),
            (13, vec![]),
        ] {
            storage.remove_old_once_keys(today).await.unwrap();
            assert_eq!(days().await, left, "{}: on day {today}", engine.name);
        }
    }
}

#[tokio::test]
async fn a_lost_reply_of_what_is_done_once_is_found_again() {
    for seed in 0..50 {
        let faults = Faults {
            seed,
            conflicts: 100,
            lost_replies: 300,
            lost_batches: 300,
            ..Faults::NONE
        };
        let storage = Storage::model_with(faults);
        for n in 0..20 {
            loop {
                let mut batch = Batch::new();
                let key = (user(n), Position::pending(0));
                let change = schema::UserChange::DeviceList;
                batch.put(&schema::CHANGE_BY_USER_POSITION, &key, &change);
                batch.once(
                    OnceKey {
                        day: 1,
                        name: name(n),
                    },
                    Vec::new(),
                );
                match storage.commit(batch).await {
                    Ok(_) => break,
                    Err(CommitError::Conflict(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            let range = Range::prefix(&(user(n),));
            let rows = view(&storage)
                .await
                .multi_range(&schema::CHANGE_BY_USER_POSITION, &[range])
                .await
                .unwrap();
            assert_eq!(rows[0].len(), 1, "written {} times", rows[0].len());
        }
    }
}

#[tokio::test]
async fn long_values_are_kept_and_go_with_their_pieces() {
    for engine in engines() {
        let storage = &engine.storage;
        let key = (user(1), name(1));
        let pieces = |storage: &Storage| storage.cost().keys;
        let mut before = None;
        for length in [
            0,
            MAX_VALUE - 2,
            MAX_VALUE - 1,
            MAX_VALUE,
            3 * MAX_VALUE,
            MAX_VALUE * 5 / 2,
            10,
        ] {
            let value: String = (0..length)
                .map(|n| char::from(b'a' + (n % 23) as u8))
                .collect();
            let mut batch = text(key, &value);
            batch.expect_unchanged(&schema::FILTER_BY_USER, &key, before.as_ref());
            storage.commit(batch).await.unwrap();
            let snapshot = view(storage).await;
            let row = snapshot
                .multi_get(&schema::FILTER_BY_USER, &[key])
                .await
                .unwrap()
                .remove(0)
                .unwrap();
            assert!(row.value == value, "{} {length}", engine.name);
            let rows = snapshot
                .multi_range(&schema::FILTER_BY_USER, &[Range::prefix(&(user(1),))])
                .await
                .unwrap()
                .remove(0);
            assert!(rows.len() == 1 && rows[0].1.value == value);
            before = Some(row.raw);
        }
        let read_before = pieces(storage);
        read(storage, key).await;
        assert_eq!(
            pieces(storage) - read_before,
            1,
            "a short value has no pieces"
        );
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_whole() {
    for engine in engines() {
        let storage = &engine.storage;
        let value = "x".repeat(MAX_BATCH);
        let refused = storage.commit(text((user(1), name(1)), &value)).await;
        assert!(matches!(refused, Err(CommitError::TooLarge)), "{refused:?}");
        assert_eq!(read(storage, (user(1), name(1))).await, None);
    }
}

#[tokio::test]
async fn who_waits_is_woken_after_the_commit_and_not_before() {
    for engine in engines() {
        let storage = &engine.storage;
        let subscription = storage.subscribe(&[Topic::User(user(1))]);
        storage.commit(text((user(2), name(1)), "x")).await.unwrap();
        assert!(subscription.take().is_empty());
        let mut batch = text((user(1), name(1)), "x");
        batch.wake(Topic::User(user(1)));
        let position = storage.commit(batch).await.unwrap();
        assert_eq!(subscription.woken().await.len(), 1, "{}", engine.name);
        assert!(view(storage).await.position() >= position);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_that_read_the_same_row_one_wins() {
    for engine in engines() {
        let storage = Arc::new(engine.storage);
        let key = (user(1), name(1));
        storage.commit(text(key, "0")).await.unwrap();
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let storage = Arc::clone(&storage);
                tokio::spawn(async move {
                    let mut added = 0;
                    while added < 10 {
                        let snapshot = view(&storage).await;
                        let row = snapshot
                            .multi_get(&schema::FILTER_BY_USER, &[key])
                            .await
                            .unwrap()
                            .remove(0)
                            .unwrap();
                        let next = row.value.parse::<u64>().unwrap() + 1;
                        let mut batch = text(key, &next.to_string());
                        batch.expect_equals(&schema::FILTER_BY_USER, &key, &row.raw);
                        match storage.commit(batch).await {
                            Ok(_) => added += 1,
                            Err(CommitError::Conflict(0)) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(read(&storage, key).await.as_deref(), Some("320"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_is_on_the_disk_before_a_commit_is_acknowledged_and_groups_share_that() {
    for engine in engines()
        .into_iter()
        .filter(|engine| engine.folder.is_some())
    {
        let storage = Arc::new(engine.storage);
        for n in 0..20 {
            let before = storage.log_syncs().unwrap();
            storage.commit(text((user(1), name(n)), "x")).await.unwrap();
            assert!(
                storage.log_syncs().unwrap() > before,
                "acknowledged before it was synced"
            );
        }
        let before = storage.log_syncs().unwrap();
        let tasks: Vec<_> = (0..200)
            .map(|n| {
                let storage = Arc::clone(&storage);
                tokio::spawn(async move {
                    storage.commit(text((user(2), name(n)), "x")).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let syncs = storage.log_syncs().unwrap() - before;
        assert!(syncs < 200, "{syncs} syncs for 200 commits at once");
    }
}

/// What a follower makes of so many records: a row of its own for each.
fn output(records: usize) -> Batch {
    let mut batch = Batch::new();
    for index in 0..records as u16 {
        let key = (user(1), Position::pending(index));
        let change = schema::UserChange::DeviceList;
        batch.put(&schema::CHANGE_BY_USER_POSITION, &key, &change);
    }
    batch
}

#[tokio::test]
async fn a_follower_works_on_everything_once_whoever_works_in_its_name() {
    let faulty = Faults {
        seed: 5,
        conflicts: 100,
        lost_replies: 100,
        lost_batches: 100,
        ..Faults::NONE
    };
    let mut all = engines();
    all.push(Engine {
        name: "faulty model",
        storage: Storage::model_with(faulty),
        folder: None,
    });
    for engine in all {
        let storage = &engine.storage;
        let followers = [(); 2].map(|()| Follower::new(storage, "test"));
        let mut happened = 0;
        for round in 0..20_u8 {
            let waiting = followers[0].subscribe();
            loop {
                let mut batch = Batch::new();
                for index in 0..3 {
                    let record = schema::StreamRecord {
                        room: room(round),
                        number: EventNumber(u32::from(index)),
                        place: None,
                        historic: false,
                        local: true,
                        servers: Vec::new(),
                    };
                    let position = Position::pending(index);
                    batch.put(&schema::STREAM_BY_POSITION, &position, &record);
                }
                // Otherwise a refusal of nothing in particular could not be told from one of this.
                batch.expect_absent(&schema::FILTER_BY_USER, &(user(9), name(9)));
                batch.wake(Topic::Stream);
                if storage.commit(batch).await.is_ok() {
                    break;
                }
            }
            happened += 3;
            assert_eq!(waiting.woken().await.len(), 1);
            // Both work at once: one of them is refused.
            for _ in 0..4 {
                let ahead = [followers[0].ahead(2).await, followers[1].ahead(2).await];
                for (follower, ahead) in followers.iter().zip(ahead) {
                    let ahead = ahead.unwrap();
                    let mut batch = output(ahead.records.len());
                    follower.advance(&mut batch, &ahead);
                    let _ = storage.commit(batch).await;
                }
            }
        }
        while !followers[0].ahead(100).await.unwrap().records.is_empty() {
            let ahead = followers[0].ahead(100).await.unwrap();
            let mut batch = output(ahead.records.len());
            followers[0].advance(&mut batch, &ahead);
            let _ = storage.commit(batch).await;
        }
        let range = Range::prefix(&(user(1),));
        let worked_on = view(storage)
            .await
            .multi_range(&schema::CHANGE_BY_USER_POSITION, &[range])
            .await
            .unwrap();
        assert_eq!(worked_on[0].len(), happened, "{}", engine.name);
    }
}

/// A step of the random work. Keys and values are few, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, u8),
    Delete(u8, u8),
    DeleteUser(u8),
    ExpectAbsent(u8, u8),
    ExpectCurrent(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || (0..4_u8, 0..4_u8);
    prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|((a, b), value)| Step::Put(a, b, value)),
        2 => key().prop_map(|(a, b)| Step::Delete(a, b)),
        1 => (0..4_u8).prop_map(Step::DeleteUser),
        1 => key().prop_map(|(a, b)| Step::ExpectAbsent(a, b)),
        1 => key().prop_map(|(a, b)| Step::ExpectCurrent(a, b)),
    ]
}

#[derive(Default)]
struct Naive {
    texts: BTreeMap<(u8, u8), String>,
}

impl Naive {
    /// What a batch of these steps does; nothing if a precondition does not hold.
    fn apply(&mut self, steps: &[Step]) -> bool {
        let holds = steps.iter().all(|step| match step {
            Step::ExpectAbsent(a, b) => !self.texts.contains_key(&(*a, *b)),
            _ => true,
        });
        if !holds {
            return false;
        }
        for step in steps {
            match step {
                Step::Put(a, b, value) => drop(self.texts.insert((*a, *b), value_of(*value))),
                Step::Delete(a, b) => drop(self.texts.remove(&(*a, *b))),
                Step::DeleteUser(a) => self.texts.retain(|(user, _), _| user != a),
                Step::ExpectAbsent(..) | Step::ExpectCurrent(..) => {}
            }
        }
        true
    }
}

/// A few values are long ones.
fn value_of(n: u8) -> String {
    match n {
        0..8 => n.to_string().repeat(MAX_VALUE + usize::from(n)),
        n => n.to_string(),
    }
}

async fn run(engine: &Engine, batches: &[Vec<Step>]) {
    let storage = &engine.storage;
    let mut naive = Naive::default();
    for steps in batches {
        let snapshot = view(storage).await;
        let mut batch = Batch::new();
        for step in steps {
            let key = |a: &u8, b: &u8| (user(*a), name(*b));
            match step {
                Step::Put(a, b, value) => {
                    // Long values are replaced by who has read them.
                    let row = snapshot
                        .multi_get(&schema::FILTER_BY_USER, &[key(a, b)])
                        .await
                        .unwrap()
                        .remove(0);
                    let raw = row.as_ref().map(|row| &row.raw);
                    if raw.is_some_and(|raw| raw.len() > MAX_VALUE) {
                        batch.expect_unchanged(&schema::FILTER_BY_USER, &key(a, b), raw);
                    }
                    batch.put(&schema::FILTER_BY_USER, &key(a, b), &value_of(*value));
                }
                Step::Delete(a, b) => batch.delete(&schema::FILTER_BY_USER, &key(a, b)),
                Step::DeleteUser(a) => {
                    batch.delete_prefix(&schema::FILTER_BY_USER, &(user(*a),));
                }
                Step::ExpectAbsent(a, b) => {
                    batch.expect_absent(&schema::FILTER_BY_USER, &key(a, b));
                }
                Step::ExpectCurrent(a, b) => {
                    let row = snapshot
                        .multi_get(&schema::FILTER_BY_USER, &[key(a, b)])
                        .await
                        .unwrap()
                        .remove(0);
                    let raw = row.as_ref().map(|row| &row.raw);
                    batch.expect_unchanged(&schema::FILTER_BY_USER, &key(a, b), raw);
                }
            }
        }
        if batch.len_bytes() > MAX_BATCH {
            continue;
        }
        let written = storage.commit(batch).await;
        assert_eq!(
            written.is_ok(),
            naive.apply(steps),
            "{}: {written:?}",
            engine.name
        );
    }
    compare(engine, &naive).await;
}

async fn compare(engine: &Engine, naive: &Naive) {
    let snapshot = view(&engine.storage).await;
    for a in 0..4 {
        let of_user: Vec<_> = naive
            .texts
            .range((a, 0)..(a + 1, 0))
            .map(|((_, b), value)| ((user(a), name(*b)), value.clone()))
            .collect();
        let whole = Range::prefix(&(user(a),));
        let middle = whole
            .clone()
            .after(&(user(a), name(0)))
            .before(&(user(a), name(3)));
        let ranges = [
            whole.clone(),
            whole.clone().reverse().limit(2),
            middle,
            whole.from(&(user(a), name(1))).up_to(&(user(a), name(2))),
        ];
        let found: Vec<Vec<_>> = snapshot
            .multi_range(&schema::FILTER_BY_USER, &ranges)
            .await
            .unwrap()
            .into_iter()
            .map(|rows| {
                rows.into_iter()
                    .map(|(key, row)| (key, row.value))
                    .collect()
            })
            .collect();
        let between = |low: u8, high: u8| {
            let rows = of_user.iter();
            rows.filter(move |(key, _)| key.1 >= name(low) && key.1 <= name(high))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert!(found[0] == of_user, "{}", engine.name);
        assert!(found[1] == of_user.iter().rev().take(2).cloned().collect::<Vec<_>>());
        assert!(found[2] == between(1, 2));
        assert!(found[3] == between(1, 2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_work_does_what_a_naive_map_does(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for engine in engines() {
                run(&engine, &batches).await;
            }
        });
    }
}
