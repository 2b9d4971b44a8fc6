//! What becomes of a failure of storage that nobody dealt with: an internal error of the request.
//! Only `?` in code that has no better answer comes here; a conflict that can be retried must be.

use crate::{CommitError, ReadError};

impl From<ReadError> for error::Error {
    fn from(failure: ReadError) -> Self {
        error::internal(failure)
    }
}

impl From<CommitError> for error::Error {
    fn from(failure: CommitError) -> Self {
        error::internal(failure)
    }
}
