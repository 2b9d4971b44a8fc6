//! The real binary on a free port and an empty folder, spoken to in raw JSON. One file per endpoint group,
//! as in `src/api`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod cli;

/// The binary under test.
const CHAPAR: &str = env!("CARGO_BIN_EXE_chapar");
