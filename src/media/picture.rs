//! From a file to a smaller picture, in memory: what strangers send is looked at before it is unpacked.

use std::{
    fs::File,
    io::{BufReader, Cursor},
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::jpeg::JpegEncoder, codecs::png::PngDecoder, imageops::FilterType,
    metadata::Orientation,
};

/// The quality of JPEG.
const QUALITY: u8 = 85;

/// The most bytes a pixel takes when unpacked: four channels of 16 bits.
const BYTES_OF_A_PIXEL: u64 = 8;

/// What is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The size to be made; none if the file is to be given as it is.
    pub(crate) target: Option<(u32, u32)>,
    /// Whether the picture is cut to the shape of the size, or fits into it.
    pub(crate) crop: bool,
    /// Whether a file that may move can be given as it is.
    pub(crate) may_move: bool,
    /// The largest picture that is unpacked.
    pub(crate) max_pixels: u64,
}

/// What was made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Nothing: the file itself is small enough.
    Original,
    /// A picture.
    Picture(Format, Vec<u8>),
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It has too many pixels.
    #[error("too many pixels")]
    TooLarge,
    /// It is not a picture, or not one that we know, or damaged.
    #[error("{0}")]
    NotAPicture(String),
}

/// What smaller pictures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Jpeg,
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
        }
    }
}

/// What a picture has to go through.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It is small enough.
    Nothing,
    /// It is made to fit into this.
    Fit(u32, u32),
    /// It is cut and made to fill this.
    Fill(u32, u32),
}

/// Makes the picture.
pub(crate) fn make(file: File, job: &Job) -> Result<Made, Fault> {
    let reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(|failure| Fault::NotAPicture(failure.to_string()))?;
    let Some(format) = reader.format() else {
        return Err(Fault::NotAPicture("it is not a picture".to_owned()));
    };
    let mut limits = Limits::default();
    limits.max_alloc = Some(job.max_pixels.saturating_mul(BYTES_OF_A_PIXEL));
    match format {
        ImageFormat::Png => {
            let decoder = PngDecoder::with_limits(reader.into_inner(), limits)?;
            let moves = decoder.is_apng()?;
            make_of(decoder, format, moves, job)
        }
        ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP => {
            let mut reader = reader;
            reader.limits(limits);
            let moves = format != ImageFormat::Jpeg;
            make_of(reader.into_decoder()?, format, moves, job)
        }
        _ => Err(Fault::NotAPicture(
            "it is neither PNG nor JPEG nor GIF nor WebP".to_owned(),
        )),
    }
}

fn make_of(
    mut decoder: impl ImageDecoder,
    format: ImageFormat,
    moves: bool,
    job: &Job,
) -> Result<Made, Fault> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Fault::NotAPicture("it has no pixels".to_owned()));
    }
    // Pictures whose turn cannot be read stand as they are.
    let turn = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let lies = matches!(
        turn,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let size = if lies {
        (height, width)
    } else {
        (width, height)
    };
    let plan = plan(size, job);
    if plan == Plan::Nothing && (job.may_move || !moves) {
        return Ok(Made::Original);
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > job.max_pixels || decoder.total_bytes() > job.max_pixels * BYTES_OF_A_PIXEL {
        return Err(Fault::TooLarge);
    }
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(turn);
    let picture = match plan {
        Plan::Nothing => picture,
        Plan::Fit(width, height) => picture.resize(width, height, FilterType::Triangle),
        Plan::Fill(width, height) => picture.resize_to_fill(width, height, FilterType::Triangle),
    };
    write(&picture, format)
}

/// Smaller pictures are never larger than the picture.
fn plan((width, height): (u32, u32), job: &Job) -> Plan {
    match job.target {
        None => Plan::Nothing,
        Some((w, h)) if width <= w && height <= h => Plan::Nothing,
        Some((w, h)) if !job.crop => Plan::Fit(w, h),
        Some((w, h)) if width >= w && height >= h => Plan::Fill(w, h),
        Some((w, h)) => {
            // It lacks width or height: as large a part of it as has the shape asked for.
            let by = f64::min(
                f64::from(width) / f64::from(w),
                f64::from(height) / f64::from(h),
            );
            let shrunk = |length: u32| ((f64::from(length) * by).round() as u32).max(1);
            Plan::Fill(shrunk(w).min(width), shrunk(h).min(height))
        }
    }
}

/// What may be seen through stays so, and what was made without loss; photographs become JPEG.
fn write(picture: &DynamicImage, from: ImageFormat) -> Result<Made, Fault> {
    let mut content = Vec::new();
    let has_alpha = picture.color().has_alpha();
    let is_photograph = match from {
        ImageFormat::Jpeg => true,
        ImageFormat::WebP => !has_alpha,
        _ => false,
    };
    if is_photograph {
        let encoder = JpegEncoder::new_with_quality(&mut content, QUALITY);
        picture.to_rgb8().write_with_encoder(encoder)?;
        return Ok(Made::Picture(Format::Jpeg, content));
    }
    let mut to = Cursor::new(&mut content);
    if has_alpha {
        picture.to_rgba8().write_to(&mut to, ImageFormat::Png)?;
    } else {
        picture.to_rgb8().write_to(&mut to, ImageFormat::Png)?;
    }
    Ok(Made::Picture(Format::Png, content))
}

impl From<ImageError> for Fault {
    fn from(fault: ImageError) -> Self {
        match fault {
            ImageError::Limits(_) => Self::TooLarge,
            fault => Self::NotAPicture(fault.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(size: (u32, u32), target: (u32, u32), crop: bool) -> Plan {
        plan(
            size,
            &Job {
                target: Some(target),
                crop,
                may_move: false,
                max_pixels: 1,
            },
        )
    }

    #[test]
    fn nothing_is_made_larger() {
        assert_eq!(planned((32, 20), (32, 32), false), Plan::Nothing);
        assert_eq!(planned((32, 20), (32, 32), true), Plan::Nothing);
        assert_eq!(planned((640, 20), (320, 240), false), Plan::Fit(320, 240));
        assert_eq!(planned((640, 480), (96, 96), true), Plan::Fill(96, 96));
        assert_eq!(planned((640, 48), (96, 96), true), Plan::Fill(48, 48));
        assert_eq!(planned((1, 5000), (96, 48), true), Plan::Fill(1, 1));
    }
}
