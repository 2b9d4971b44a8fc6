//! Numbers that are added to and raised without being read first.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use storage::{Batch, CommitError, Faults, NameHash, Storage, schema};

use super::{Engine, engines, name, options, view};

/// Two numbers of a name: the sum and the greatest, where there are some.
type Numbers = (Option<i64>, Option<i64>);

async fn numbers(storage: &Storage, key: NameHash) -> Numbers {
    let snapshot = view(storage).await;
    let sums = snapshot
        .multi_get(&schema::PROBE_SUM_BY_NAME, &[key])
        .await
        .unwrap();
    let greatest = snapshot
        .multi_get(&schema::PROBE_GREATEST_BY_NAME, &[key])
        .await
        .unwrap();
    (
        sums[0].as_ref().map(|row| row.value.0),
        greatest[0].as_ref().map(|row| row.value.0),
    )
}

/// A batch that adds and raises.
fn merges(key: NameHash, added: &[i64], named: &[i64]) -> Batch {
    let mut batch = Batch::new();
    for number in added {
        batch.add(&schema::PROBE_SUM_BY_NAME, &key, *number);
    }
    for number in named {
        batch.max(&schema::PROBE_GREATEST_BY_NAME, &key, *number);
    }
    batch
}

impl Engine {
    /// The same database, closed and opened again, where it lies in a folder.
    fn reopened(self) -> Self {
        let Some(folder) = self.folder else {
            return self;
        };
        drop(self.storage);
        Self {
            storage: Storage::open(folder.path(), &options()).unwrap(),
            folder: Some(folder),
            ..self
        }
    }
}

/// The model engine, refusing and losing.
fn faulty(seed: u64) -> Engine {
    Engine {
        name: "faulty model",
        storage: Storage::model_with(Faults {
            seed,
            conflicts: 150,
            lost_replies: 150,
            lost_batches: 150,
            ..Faults::NONE
        }),
        folder: None,
    }
}

#[tokio::test]
async fn numbers_begin_with_the_first_that_is_named_and_lie_in_one_order_with_other_changes() {
    for engine in engines() {
        let storage = &engine.storage;
        let key = name(1);
        assert_eq!(numbers(storage, key).await, (None, None));
        storage.commit(merges(key, &[5, -7], &[-3])).await.unwrap();
        assert_eq!(numbers(storage, key).await, (Some(-2), Some(-3)));
        storage.commit(merges(key, &[1], &[-9])).await.unwrap();
        assert_eq!(numbers(storage, key).await, (Some(-1), Some(-3)));

        let mut batch = Batch::new();
        batch.put(&schema::PROBE_SUM_BY_NAME, &key, &storage::Sum(100));
        batch.add(&schema::PROBE_SUM_BY_NAME, &key, 11);
        batch.delete(&schema::PROBE_GREATEST_BY_NAME, &key);
        batch.max(&schema::PROBE_GREATEST_BY_NAME, &key, -20);
        storage.commit(batch).await.unwrap();
        let found = numbers(storage, key).await;
        assert_eq!(found, (Some(111), Some(-20)), "{}", engine.name);

        let mut batch = merges(key, &[1], &[1]);
        batch.delete_prefix(&schema::PROBE_SUM_BY_NAME, &());
        batch.delete_prefix(&schema::PROBE_GREATEST_BY_NAME, &());
        batch.add(&schema::PROBE_SUM_BY_NAME, &key, 4);
        storage.commit(batch).await.unwrap();
        let found = numbers(storage, key).await;
        assert_eq!(found, (Some(4), None), "{}", engine.name);

        storage
            .commit(merges(key, &[i64::MAX - 4], &[i64::MIN, i64::MAX]))
            .await
            .unwrap();
        let found = numbers(storage, key).await;
        assert_eq!(found, (Some(i64::MAX), Some(i64::MAX)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_add_and_raise_at_once_nothing_is_lost() {
    for engine in engines().into_iter().chain([faulty(3)]) {
        let storage = Arc::new(engine.storage);
        let tasks: Vec<_> = (0..32_i64)
            .map(|task| {
                let storage = Arc::clone(&storage);
                tokio::spawn(async move {
                    for n in 0..20 {
                        // What is refused was not written, so that it is asked for again.
                        while let Err(error) = storage
                            .commit(merges(name(1), &[task, n], &[task * n]))
                            .await
                        {
                            assert!(matches!(error, CommitError::Conflict(_)), "{error:?}");
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let sum = 20 * (0..32).sum::<i64>() + 32 * (0..20).sum::<i64>();
        let found = numbers(&storage, name(1)).await;
        assert_eq!(found, (Some(sum), Some(31 * 19)), "{}", engine.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_precondition_on_a_number_sees_what_was_added_in_the_same_group_of_commits() {
    for engine in engines() {
        let storage = Arc::new(engine.storage);
        storage.commit(merges(name(1), &[0], &[])).await.unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let storage = Arc::clone(&storage);
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    while taken.len() < 10 {
                        let snapshot = view(&storage).await;
                        let rows = snapshot
                            .multi_get(&schema::PROBE_SUM_BY_NAME, &[name(1)])
                            .await
                            .unwrap();
                        let row = rows[0].as_ref().unwrap();
                        let mut batch = merges(name(1), &[1], &[]);
                        batch.expect_equals(&schema::PROBE_SUM_BY_NAME, &name(1), &row.raw);
                        match storage.commit(batch).await {
                            Ok(_) => taken.push(row.value.0),
                            Err(CommitError::Conflict(0)) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    taken
                })
            })
            .collect();
        let mut taken = Vec::new();
        for task in tasks {
            taken.extend(task.await.unwrap());
        }
        taken.sort_unstable();
        assert_eq!(taken, Vec::from_iter(0..160), "{}", engine.name);
    }
}

/// A step of the random work. Names are few, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Add(u8, i64),
    Max(u8, i64),
    Put(u8, i64),
    Delete(u8),
    DeleteAll,
}

fn step() -> impl Strategy<Value = Step> {
    let number = || prop_oneof![4 => -100..100_i64, 1 => any::<i64>()];
    prop_oneof![
        8 => (0..3_u8, number()).prop_map(|(key, number)| Step::Add(key, number)),
        8 => (0..3_u8, number()).prop_map(|(key, number)| Step::Max(key, number)),
        2 => (0..3_u8, number()).prop_map(|(key, number)| Step::Put(key, number)),
        2 => (0..3_u8).prop_map(Step::Delete),
        1 => Just(Step::DeleteAll),
    ]
}

fn batch_of(steps: &[Step]) -> Batch {
    let (sum, greatest) = (&schema::PROBE_SUM_BY_NAME, &schema::PROBE_GREATEST_BY_NAME);
    let mut batch = Batch::new();
    for step in steps {
        match step {
            Step::Add(key, number) => batch.add(sum, &name(*key), *number),
            Step::Max(key, number) => batch.max(greatest, &name(*key), *number),
            Step::Put(key, number) => {
                batch.put(sum, &name(*key), &storage::Sum(*number));
                batch.put(greatest, &name(*key), &storage::Greatest(*number));
            }
            Step::Delete(key) => {
                batch.delete(sum, &name(*key));
                batch.delete(greatest, &name(*key));
            }
            Step::DeleteAll => {
                batch.delete_prefix(sum, &());
                batch.delete_prefix(greatest, &());
            }
        }
    }
    batch
}

fn apply(naive: &mut BTreeMap<u8, Numbers>, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Add(key, number) => {
                let (sum, _) = naive.entry(*key).or_default();
                *sum = Some(sum.unwrap_or(0).wrapping_add(*number));
            }
            Step::Max(key, number) => {
                let (_, greatest) = naive.entry(*key).or_default();
                *greatest = Some(greatest.map_or(*number, |old| old.max(*number)));
            }
            Step::Put(key, number) => {
                naive.insert(*key, (Some(*number), Some(*number)));
            }
            Step::Delete(key) => drop(naive.remove(key)),
            Step::DeleteAll => naive.clear(),
        }
    }
}

/// Does all that, opening the database anew after each lot of batches, and compares.
async fn run(mut engine: Engine, lots: &[Vec<Vec<Step>>]) {
    let mut naive = BTreeMap::new();
    for batches in lots {
        for steps in batches {
            while let Err(error) = engine.storage.commit(batch_of(steps)).await {
                assert!(matches!(error, CommitError::Conflict(_)), "{error:?}");
            }
            apply(&mut naive, steps);
        }
        for reopen in [false, true] {
            if reopen {
                engine = engine.reopened();
            }
            for key in 0..3 {
                let found = numbers(&engine.storage, name(key)).await;
                let expected = naive.get(&key).copied().unwrap_or_default();
                assert_eq!(found, expected, "{} {key} {reopen}", engine.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn random_merges_do_what_a_naive_map_does_through_closing_and_faults(
        lots in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12),
            1..4,
        ),
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for engine in engines().into_iter().chain([faulty(seed)]) {
                run(engine, &lots).await;
            }
        });
    }
}
