//! Section `storage`.

use std::path::PathBuf;

use crate::{kinds::ByteCount, problem::Problem};

section! {
    /// Where and how the server stores.
    pub struct Storage {
        /// The folder that holds everything. Made at the first start.
        data: PathBuf = PathBuf::from("data"),

        /// How much memory may hold blocks that were read from the disk.
        block_cache: ByteCount = ByteCount::mib(128),

        /// How much memory the engine may use in all: the block cache, and writes on their way to
        /// the disk.
        memory_budget: ByteCount = ByteCount::mib(256),

        /// Whether a write is on the disk before it is acknowledged. Without, a power failure loses
        /// the last moments; a crash of the process does not.
        sync: bool = true,
    }
}

/// Less than this and the engine stalls.
const LEAST_FOR_WRITES: ByteCount = ByteCount::mib(16);

/// The budget holds the cache and leaves something for writes.
pub(crate) fn check(storage: &Storage, problems: &mut Vec<Problem>) {
    let writes = storage
        .memory_budget
        .get()
        .saturating_sub(storage.block_cache.get());
    if writes < LEAST_FOR_WRITES.get() {
        problems.push(Problem::new(format!(
            "storage.memory_budget ({}) must exceed storage.block_cache ({}) by at least \
             {LEAST_FOR_WRITES}",
            storage.memory_budget, storage.block_cache
        )));
    }
}
