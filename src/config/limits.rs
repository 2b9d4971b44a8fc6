//! Section `limits`.

use crate::{kinds::ByteCount, problem::Problem};

section! {
    /// How much of something is too much.
    pub struct Limits {
        /// The longest body of a request.
        max_request_body: ByteCount = ByteCount::mib(1),

        /// How many rooms one may be in. Whoever is refused is told to turn to `support`. 0: any number.
        max_rooms_of_user: u32 = 0,
    }
}

/// A whole event and what is around it.
const LEAST_REQUEST_BODY: ByteCount = ByteCount::kib(128);

/// Every event fits into a request.
pub(crate) fn check(limits: &Limits, problems: &mut Vec<Problem>) {
    if limits.max_request_body < LEAST_REQUEST_BODY {
        problems.push(Problem::new(format!(
            "limits.max_request_body must be at least {LEAST_REQUEST_BODY}, found {}",
            limits.max_request_body
        )));
    }
}
