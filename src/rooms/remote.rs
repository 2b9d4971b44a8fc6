//! What rooms ask of other servers: events that they lack, what allows these, the state where there is a
//! hole, history.
//!
//! Nothing here holds a room's writer: what is fetched is given to [`Rooms::receive`](crate::Rooms::receive)
//! like everything else, which judges it as of then. Whom to ask is told by [`Asking`]: one server after the
//! other, a few of them at most, whose answers are worth no more than their signatures.

mod asking;
mod auth_events;
mod backfill;
mod gaps;
mod incoming;
mod missing;
mod sorted;
mod state_at;
mod waiting;

pub use self::incoming::Taken;
pub(crate) use self::{asking::Asking, backfill::Fetching, waiting::Waiting};
