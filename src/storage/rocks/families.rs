//! Column families: one for each way in which tables are used, laid out for it.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, DBRecoveryMode, DataBlockIndexType, MergeOperands, UniversalCompactOptions,
    WriteBufferManager, statistics::Ticker,
};

use super::RocksError;
use crate::{Access, Options, schema};

/// Every family. The names are the disk format.
const ALL: [(Access, &str); 7] = [
    (Access::Point, "point"),
    (Access::Bulk, "bulk"),
    (Access::Range, "range"),
    (Access::Log, "log"),
    (Access::Hot, "hot"),
    (Access::Sum, "sum"),
    (Access::Greatest, "greatest"),
];

/// How many data files are kept open, at most: most systems let a process have 1,024 without asking.
const OPEN_FILES: i32 = 512;

/// The least that writes on their way to the disk get, whatever the budget says, in bytes.
const LEAST_FOR_WRITES: usize = 8 << 20;

/// Whether this version knows the family.
pub(super) fn is_known(name: &str) -> bool {
    name == rocksdb::DEFAULT_COLUMN_FAMILY_NAME || ALL.iter().any(|(_, known)| *known == name)
}

/// Which family holds which table.
pub(super) struct Families([Access; 256]);

impl Default for Families {
    fn default() -> Self {
        let mut by_table = [Access::Point; 256];
        for (info, ..) in schema::tables() {
            if let Some(access) = by_table.get_mut(usize::from(info.id)) {
                *access = info.access;
            }
        }
        Self(by_table)
    }
}

impl Families {
    /// The use of the table that `key` belongs to.
    pub(super) fn access(&self, key: &[u8]) -> Access {
        let table = usize::from(key.first().copied().unwrap_or_default());
        self.0.get(table).copied().unwrap_or(Access::Point)
    }

    /// The family that holds `key`.
    pub(super) fn of_key<'a>(
        &self,
        db: &'a DB,
        key: &[u8],
    ) -> Result<&'a ColumnFamily, RocksError> {
        family(db, self.access(key))
    }
}

/// The family for tables used in this way.
pub(super) fn family(db: &DB, access: Access) -> Result<&ColumnFamily, RocksError> {
    ALL.iter()
        .find(|(found, _)| *found == access)
        .and_then(|(_, name)| db.cf_handle(name))
        .ok_or(RocksError::NoFamily)
}

/// How the database and its families are laid out in memory and on the disk.
pub(super) struct Tuning {
    database: rocksdb::Options,
    cache: Cache,
    /// Bytes of writes on their way to the disk.
    writes: usize,
    statistics: bool,
}

impl Tuning {
    pub(super) fn new(options: &Options) -> Self {
        let cache = Cache::new_hyper_clock_cache(options.block_cache, 0);
        let writes = options
            .memory_budget
            .saturating_sub(options.block_cache)
            .max(LEAST_FOR_WRITES);
        let mut database = rocksdb::Options::default();
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        // A record that was torn by a crash is dropped; any other damage is an error.
        database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        database.set_paranoid_checks(true);
        // Nobody may read what is not yet safe.
        database.set_enable_pipelined_write(false);
        database.set_unordered_write(false);
        database.set_allow_concurrent_memtable_write(false);
        database.set_write_buffer_manager(
            &WriteBufferManager::new_write_buffer_manager_with_cache(writes, false, cache.clone()),
        );
        // How much is replayed after a crash, at most.
        database.set_max_total_wal_size(writes as u64);
        database.set_max_open_files(OPEN_FILES);
        database.set_max_background_jobs(2);
        database.set_bytes_per_sync(1 << 20);
        database.set_keep_log_file_num(3);
        database.set_max_log_file_size(4 << 20);
        database.set_stats_dump_period_sec(0);
        database.set_stats_persist_period_sec(0);
        if options.statistics {
            database.enable_statistics();
        }
        Self {
            database,
            cache,
            writes,
            statistics: options.statistics,
        }
    }

    /// Options of the whole database.
    pub(super) fn database(&self) -> &rocksdb::Options {
        &self.database
    }

    /// The families to open.
    pub(super) fn descriptors(&self) -> Vec<ColumnFamilyDescriptor> {
        let default = ColumnFamilyDescriptor::new(
            rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            rocksdb::Options::default(),
        );
        ALL.iter()
            .map(|(access, name)| ColumnFamilyDescriptor::new(*name, self.family(*access)))
            .chain([default])
            .collect()
    }

    /// How often the log was brought to the disk since the start.
    pub(super) fn log_syncs(&self) -> Option<u64> {
        self.statistics
            .then(|| self.database.get_ticker_count(Ticker::WalFileSynced))
    }

    fn family(&self, access: Access) -> rocksdb::Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        // Filters and indexes count into the budget too.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_format_version(6);
        // Preconditions ask for rows that are not there in every family but the merged ones.
        blocks.set_bloom_filter(10.0, false);
        blocks.set_optimize_filters_for_memory(true);
        blocks.set_block_size(match access {
            Access::Point | Access::Hot | Access::Sum | Access::Greatest => 8 << 10,
            Access::Range | Access::Log | Access::Bulk => 16 << 10,
        });
        if matches!(access, Access::Point | Access::Hot) {
            blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        }

        let mut family = rocksdb::Options::default();
        family.set_block_based_table_factory(&blocks);
        family.set_write_buffer_size(self.writes / if access == Access::Bulk { 4 } else { 8 });
        family.set_max_write_buffer_number(4);
        family.set_memtable_whole_key_filtering(true);
        family.set_memtable_prefix_bloom_ratio(0.02);
        family.set_compression_type(DBCompressionType::Lz4);
        match access {
            Access::Bulk | Access::Log => {
                family.set_bottommost_compression_type(DBCompressionType::Zstd);
            }
            Access::Point | Access::Range | Access::Hot | Access::Sum | Access::Greatest => {}
        }
        match access {
            // Small and rewritten all the time: rewriting them together costs least, and that this takes
            // twice their space for a while matters least.
            Access::Hot | Access::Sum | Access::Greatest => {
                family.set_compaction_style(DBCompactionStyle::Universal);
                let mut universal = UniversalCompactOptions::default();
                universal.set_max_size_amplification_percent(100);
                family.set_universal_compaction_options(&universal);
            }
            Access::Point | Access::Bulk | Access::Range | Access::Log => {
                family.set_compaction_style(DBCompactionStyle::Level);
                family.set_level_compaction_dynamic_level_bytes(true);
                family.set_target_file_size_base(64 << 20);
            }
        }
        match access {
            Access::Sum => family.set_merge_operator_associative("chapar.sum", sum),
            Access::Greatest => family.set_merge_operator_associative("chapar.greatest", greatest),
            _ => {}
        }
        if matches!(access, Access::Sum | Access::Greatest) {
            // So that a number under many merges is not added up at every read.
            family.set_max_successive_merges(16);
        }
        if access == Access::Log {
            // Queues are deleted key by key: files that are mostly such marks are rewritten soon.
            family.add_compact_on_deletion_collector_factory(16_384, 8_192, 0.5);
        }
        family
    }
}

fn sum(_key: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    merge(old, operands, i64::wrapping_add)
}

fn greatest(_key: &[u8], old: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    merge(old, operands, i64::max)
}

/// Folds little-endian numbers; without an old one the first operand is where it begins. `None` (an
/// error to RocksDB) if one is not a number.
fn merge(
    old: Option<&[u8]>,
    operands: &MergeOperands,
    change: fn(i64, i64) -> i64,
) -> Option<Vec<u8>> {
    let mut numbers = old.into_iter().chain(operands).map(|bytes| {
        let number = bytes.try_into().ok().map(i64::from_le_bytes);
        number.ok_or(())
    });
    let first = numbers.next()?.ok()?;
    let all = numbers.try_fold(first, |all, number| {
        number.map(|number| change(all, number))
    });
    all.ok().map(|number| number.to_le_bytes().to_vec())
}
