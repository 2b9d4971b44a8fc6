//! State resolution as others see it: against Synapse's recorded answers, against ruma on random rooms, and
//! what it costs in large ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod cases;
mod cost;
mod crowd;
mod graphs;
mod random;
mod room;
mod store;
