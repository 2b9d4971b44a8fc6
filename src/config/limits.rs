//! Section `limits`.

use crate::{kinds::ByteCount, problem::Problem};

section! {
    /// How much of something is too much.
    pub struct Limits {
        /// The longest body of a request.
        max_request_body: ByteCount = ByteCount::mib(1),

        /// How many rooms one may be in. Whoever is refused is told to turn to `support`. 0: any number.
        max_rooms_of_user: u32 = 0,

        /// How many devices one person may have: each login without logout makes one.
        max_devices_of_user: u32 = 1_000,

        /// How many filters one person may store.
        max_filters_of_user: u32 = 200,
    }
}

/// A whole event and what is around it.
const LEAST_REQUEST_BODY: ByteCount = ByteCount::kib(128);

/// Every event fits into a request, and everybody may have something.
pub(crate) fn check(limits: &Limits, problems: &mut Vec<Problem>) {
    for (name, limit) in [
        ("max_devices_of_user", limits.max_devices_of_user),
        ("max_filters_of_user", limits.max_filters_of_user),
    ] {
        if limit == 0 {
            problems.push(Problem::new(format!("limits.{name} must be at least 1")));
        }
    }
    if limits.max_request_body < LEAST_REQUEST_BODY {
        problems.push(Problem::new(format!(
            "limits.max_request_body must be at least {LEAST_REQUEST_BODY}, found {}",
            limits.max_request_body
        )));
    }
}
