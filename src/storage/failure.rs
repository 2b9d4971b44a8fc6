//! What becomes of a failure of storage that nobody dealt with: an internal error of the request.
//! Only `?` in code that has no better answer comes here; a conflict that can be retried must be. What took
//! longer than views are kept may go well the next time: the client is asked to come back.

use crate::{CommitError, ReadError};

impl From<ReadError> for error::Error {
    fn from(failure: ReadError) -> Self {
        match failure {
            ReadError::TooOld => error::too_busy(failure),
            failure => error::internal(failure),
        }
    }
}

impl From<CommitError> for error::Error {
    fn from(failure: CommitError) -> Self {
        match failure {
            CommitError::TooOld => error::too_busy(failure),
            failure => error::internal(failure),
        }
    }
}
