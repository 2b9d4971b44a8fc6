//! Reading what is not in memory.

use super::*;

const ROWS: u64 = 60_000;
/// Rows that are written together.
const AT_ONCE: u64 = 500;

/// A key, and one behind it under which nothing stands.
fn keys(n: u64) -> [(ShortUserId, NameHash); 2] {
    let user = ShortUserId(n.to_be_bytes());
    [(user, name(0)), (user, name(u8::MAX))]
}

/// At the end of a block the engine looks into the next one, which is not in memory, where its filter is mistaken as
/// it is one time in a hundred. RocksDB then says that it found something, but not what.
#[tokio::test]
async fn a_row_that_is_not_there_is_not_found_however_little_is_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        sync: false,
        memory_budget: 8 << 20,
        block_cache: 8 << 20,
        ..Options::default()
    };
    {
        let storage = Storage::open(folder.path(), &options).unwrap();
        for first in (0..ROWS).step_by(AT_ONCE as usize) {
            let mut batch = Batch::new();
            for n in first..first + AT_ONCE {
                let value = format!("{n:064}");
                batch.put(&schema::FILTER_BY_USER, &keys(n)[0], &value);
            }
            storage.commit(batch).await.unwrap();
        }
    }
    let storage = Storage::open(folder.path(), &options).unwrap();
    for n in 0..ROWS {
        let [there, nowhere] = keys(n);
        assert_eq!(read(&storage, there).await, Some(format!("{n:064}")));
        assert_eq!(read(&storage, nowhere).await, None, "{n}");
    }
}
