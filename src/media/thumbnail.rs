//! Smaller pictures ([spec]): which sizes there are, and where they are kept once made.
//!
//! What is asked for is rounded up to one of a few sizes, so that a picture cannot be made to fill the
//! disk by asking for it in every size. They are made beside the tasks, few at a time.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#thumbnails

use error::Result;
use http::StatusCode;
use tokio::sync::Semaphore;

use crate::{
    Media, Stored,
    files::in_background,
    picture::{self, Fault, Format, Job, Made},
};

/// The sizes of the specification; every one of them with both methods.
const SIZES: [(u32, u32); 5] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600)];

/// How many pictures are made at a time: each may take hundreds of megabytes.
const MAKERS: usize = 2;

/// How many wait for that.
const QUEUE: usize = 64;

/// Where pictures are made.
pub(crate) struct Workshop {
    makers: Semaphore,
    queue: Semaphore,
}

impl Default for Workshop {
    fn default() -> Self {
        Self {
            makers: Semaphore::new(MAKERS),
            queue: Semaphore::new(MAKERS + QUEUE),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The least width, in pixels.
    pub width: u64,
    /// The least height, in pixels.
    pub height: u64,
    /// Whether it is to have the shape asked for, and not that of the picture.
    pub crop: bool,
    /// Whether it may move.
    pub animated: bool,
}

/// What is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thumbnail {
    /// The file itself: it is no larger than what is asked for.
    Original,
    /// A smaller picture.
    Picture {
        /// The picture.
        content: Vec<u8>,
        /// `image/png`, for instance.
        content_type: &'static str,
        /// `png`, for instance.
        extension: &'static str,
    },
}

impl Media {
    /// A picture of a file that is no smaller than asked for, if the file itself is not.
    ///
    /// # Errors
    ///
    /// 400 if there can be none, 413 `M_TOO_LARGE` if the picture has too many pixels, 429 if too many
    /// are waited for.
    pub async fn thumbnail(&self, stored: &Stored, wanted: Wanted) -> Result<Thumbnail> {
        if wanted.width == 0 || wanted.height == 0 {
            return Err(error::invalid_param(
                "`width` and `height` of a thumbnail must not be 0",
            ));
        }
        let job = Job {
            target: target(wanted),
            crop: wanted.crop,
            may_move: wanted.animated,
            max_pixels: u64::from(self.0.settings.max_megapixels) * 1_000_000,
        };
        if let Some(kept) = self.find_kept(stored, &job).await? {
            return Ok(kept);
        }
        let workshop = &self.0.workshop;
        let _place = workshop.queue.try_acquire().map_err(|_| {
            error::limit_exceeded(None, "Too many pictures are being made smaller already")
        })?;
        // The semaphore is never closed.
        let _maker = workshop.makers.acquire().await.ok();
        // Somebody else may have made it meanwhile.
        if let Some(kept) = self.find_kept(stored, &job).await? {
            return Ok(kept);
        }
        let file = self.open_file(stored).await?;
        let made = in_background({
            let job = job.clone();
            move || Ok(picture::make(file, &job))
        });
        match made.await? {
            Ok(Made::Original) => Ok(Thumbnail::Original),
            Ok(Made::Picture(format, content)) => {
                self.keep(stored, &job, format, &content).await?;
                Ok(picture_of(format, content))
            }
            Err(Fault::TooLarge) => Err(error::too_large(
                "The picture has too many pixels for a smaller one to be made",
            )),
            Err(Fault::NotAPicture(reason)) => Err(error::unknown(
                StatusCode::BAD_REQUEST,
                format!("No thumbnail can be made of this file: {reason}"),
            )),
        }
    }

    async fn find_kept(&self, stored: &Stored, job: &Job) -> Result<Option<Thumbnail>> {
        let Some(name) = name(job) else {
            return Ok(None);
        };
        for format in [Format::Png, Format::Jpeg] {
            let name = format!("{name}.{}", format.extension());
            let path = self.0.files.thumbnail(stored.file, &name);
            if let Some(content) = self.0.files.find(path).await? {
                return Ok(Some(picture_of(format, content)));
            }
        }
        Ok(None)
    }

    async fn keep(&self, stored: &Stored, job: &Job, format: Format, content: &[u8]) -> Result<()> {
        let Some(name) = name(job) else {
            return Ok(());
        };
        let name = format!("{name}.{}", format.extension());
        let path = self.0.files.thumbnail(stored.file, &name);
        let draft = format!("thumbnail-{}", self.0.random.letters(24));
        let (media, content) = (self.clone(), content.to_vec());
        in_background(move || media.0.files.write(&path, &draft, &content)).await
    }
}

fn picture_of(format: Format, content: Vec<u8>) -> Thumbnail {
    Thumbnail::Picture {
        content,
        content_type: format.content_type(),
        extension: format.extension(),
    }
}

/// The size that is made for what is asked for; none if that is larger than any.
fn target(wanted: Wanted) -> Option<(u32, u32)> {
    let width = u32::try_from(wanted.width).ok()?;
    let height = u32::try_from(wanted.height).ok()?;
    if !wanted.crop {
        let mut sizes = SIZES.into_iter();
        return sizes.find(|(w, h)| *w >= width && *h >= height);
    }
    let longest = width.max(height);
    let side = SIZES.into_iter().map(|(w, _)| w).find(|w| *w >= longest)?;
    let scaled = |length: u32| (length * side).div_ceil(longest);
    Some((scaled(width), scaled(height)))
}

/// The name under which a picture is kept. Those of a shape of their own are made each time: there are
/// too many.
fn name(job: &Job) -> Option<String> {
    let (width, height) = job.target?;
    if width != height && !SIZES.contains(&(width, height)) {
        return None;
    }
    let method = if job.crop { "crop" } else { "scale" };
    // Where a file that moves may be given as it is, no still one is made of a small one.
    let still = if job.may_move { "" } else { "-still" };
    Some(format!("{width}x{height}-{method}{still}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: u64, height: u64, crop: bool) -> Option<(u32, u32)> {
        target(Wanted {
            width,
            height,
            crop,
            animated: false,
        })
    }

    #[test]
    fn what_is_asked_for_is_rounded_up_to_a_few_sizes() {
        assert_eq!(of(1, 1, false), Some((32, 32)));
        assert_eq!(of(32, 33, false), Some((96, 96)));
        assert_eq!(of(97, 1, false), Some((320, 240)));
        assert_eq!(of(320, 241, false), Some((640, 480)));
        assert_eq!(of(800, 600, false), Some((800, 600)));
        assert_eq!(of(800, 601, false), None);
        assert_eq!(of(u64::MAX, 1, false), None);
    }

    #[test]
    fn cropped_pictures_have_the_shape_asked_for() {
        assert_eq!(of(40, 40, true), Some((96, 96)));
        assert_eq!(of(60, 30, true), Some((96, 48)));
        assert_eq!(of(320, 240, true), Some((320, 240)));
        assert_eq!(of(1, 800, true), Some((1, 800)));
        assert_eq!(of(801, 1, true), None);
        assert_eq!(of(1, u64::MAX, true), None);
    }
}
