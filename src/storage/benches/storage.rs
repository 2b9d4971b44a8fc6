//! What storage does in a second on this disk: commits with a sync of the log, by 1, 16 and 64 writers at
//! once; lists of 100 keys; ranges of 100 rows.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use storage::{Batch, NameHash, Options, Position, Range, ShortUserId, Storage, schema};
use tokio::runtime::Runtime;

fn key(user: u8, row: u64) -> (ShortUserId, NameHash) {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&row.to_be_bytes());
    (ShortUserId([user; 8]), NameHash(name))
}

fn batch(user: u8, row: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(&schema::FILTER_BY_USER, &key(user, row), &"x".repeat(1_000));
    batch
}

fn commits(criterion: &mut Criterion, runtime: &Runtime, storage: &Arc<Storage>) {
    let mut group = criterion.benchmark_group("commit");
    for writers in [1_u8, 16, 64] {
        group.throughput(Throughput::Elements(u64::from(writers)));
        let mut row = 0;
        group.bench_function(BenchmarkId::new("writers", writers), |bencher| {
            bencher.iter(|| {
                row += 1;
                runtime.block_on(async {
                    let all: Vec<_> = (0..writers)
                        .map(|writer| {
                            let storage = Arc::clone(storage);
                            tokio::spawn(async move { storage.commit(batch(writer, row)).await })
                        })
                        .collect();
                    for one in all {
                        one.await.unwrap().unwrap();
                    }
                });
            });
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion, runtime: &Runtime, storage: &Storage) {
    for row in 0..10_000 {
        runtime.block_on(storage.commit(batch(200, row))).unwrap();
    }
    let mut at = 0;
    let mut next = move || {
        at = (at + 7_919) % 9_900;
        at
    };
    criterion.bench_function("multi_get of 100", |bencher| {
        bencher.iter(|| {
            let from = next();
            let keys: Vec<_> = (from..from + 100).map(|row| key(200, row)).collect();
            runtime.block_on(async {
                let snapshot = storage.snapshot(Position::START).await.unwrap();
                snapshot
                    .multi_get(&schema::FILTER_BY_USER, &keys)
                    .await
                    .unwrap()
            })
        });
    });
    criterion.bench_function("range of 100", |bencher| {
        bencher.iter(|| {
            let range = Range::prefix(&(ShortUserId([200; 8]),))
                .from(&key(200, next()))
                .limit(100);
            runtime.block_on(async {
                let snapshot = storage.snapshot(Position::START).await.unwrap();
                snapshot
                    .multi_range(&schema::FILTER_BY_USER, &[range])
                    .await
                    .unwrap()
            })
        });
    });
}

fn all(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(Storage::open(folder.path(), &Options::default()).unwrap());
    commits(criterion, &runtime, &storage);
    reads(criterion, &runtime, &storage);
}

criterion_group!(benches, all);
criterion_main!(benches);
