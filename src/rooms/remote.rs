//! What rooms ask of other servers: events that they lack, what allows these, the state where there is a
//! hole, history; and for rooms in which we are not, the way in and out of them ([spec]).
//!
//! Nothing here holds a room's writer: what is fetched is given to [`Rooms::receive`](crate::Rooms::receive)
//! like everything else, which judges it as of then. Whom to ask is told by [`Asking`], and for a room in which we
//! are not by `candidates.rs`: one server after the other, a few of them at most, whose answers are worth no more than
//! their signatures.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms

mod alias;
mod answer;
mod arrivals;
mod asking;
mod auth_events;
mod backfill;
mod candidates;
mod gaps;
mod incoming;
mod invite;
mod join;
mod knock;
mod leave;
mod made;
mod missing;
mod nearest;
mod refusals;
mod sorted;
mod state_at;
mod waiting;

pub use self::incoming::Taken;
pub(crate) use self::{
    arrivals::Arrivals, asking::Asking, backfill::Fetching, invite::invitee_of, join::Arriving,
    refusals::errcode_or, waiting::Waiting,
};
