//! Section `media`.

use std::time::Duration;

use crate::{kinds::ByteCount, problem::Problem};

section! {
    /// Files that people upload: the content repository.
    pub struct Media {
        /// The longest file.
        max_upload_size: ByteCount = ByteCount::mib(50),

        /// How much one user may upload in all. 0: any amount.
        max_bytes_per_user: ByteCount = ByteCount::mib(0),

        /// The largest picture that smaller ones are made of, in millions of pixels. Each takes four to
        /// eight bytes of memory meanwhile.
        max_megapixels: u32 = 32,

        /// How many ids a user may hold for files that are yet to come.
        max_pending_uploads: u32 = 50,

        /// How long such an id is kept.
        pending_lifetime: Duration = Duration::from_secs(24 * 60 * 60),

        /// Whether everybody may download who knows a file's id, without an account, by the old paths
        /// that the specification has given up.
        allow_unauthenticated: bool = false,
    }
}

/// More would not fit into the list of a user's ids.
const MOST_PENDING: u32 = 1000;

/// Lists that fit into a row, and a size that leaves room for a picture.
pub(crate) fn check(media: &Media, problems: &mut Vec<Problem>) {
    if media.max_upload_size < ByteCount::kib(1) {
        problems.push(Problem::new(format!(
            "media.max_upload_size must be at least {}, found {}",
            ByteCount::kib(1),
            media.max_upload_size
        )));
    }
    if !(1..=MOST_PENDING).contains(&media.max_pending_uploads) {
        problems.push(Problem::new(format!(
            "media.max_pending_uploads must be between 1 and {MOST_PENDING}, found {}",
            media.max_pending_uploads
        )));
    }
    if media.pending_lifetime < Duration::from_secs(60) {
        problems.push(Problem::new(
            "media.pending_lifetime must be at least 1 min".to_owned(),
        ));
    }
    if !(1..=1000).contains(&media.max_megapixels) {
        problems.push(Problem::new(format!(
            "media.max_megapixels must be between 1 and 1000, found {}",
            media.max_megapixels
        )));
    }
}
