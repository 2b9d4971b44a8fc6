//! Files through their whole life, on storage in memory and a folder of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    fs,
    future::pending,
    io::{Cursor, Read as _},
    path::Path,
    time::Duration,
};

use http::StatusCode;
use image::{DynamicImage, ImageFormat, RgbImage};
use ruma::{OwnedServerName, server_name};
use storage::{Clock, Random, ShortUserId, Storage};
use tempfile::TempDir;

use super::*;

const ALICE: ShortUserId = ShortUserId([1; 8]);
const BOB: ShortUserId = ShortUserId([2; 8]);
const BEGIN: u64 = 1_700_000_000_000;

struct World {
    media: Media,
    parts: Parts,
    folder: TempDir,
}

async fn world(change: impl FnOnce(&mut config::Media)) -> World {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config::Media::default();
    change(&mut settings);
    let (storage, clock) = (Storage::model(), Clock::standing_at(BEGIN));
    let alone = federation::Parts::alone(&storage, &name(), &clock, &Random::seeded(2));
    let parts = Parts {
        federation: Federation::open(alone).await.unwrap(),
        storage,
        server_name: name(),
        clock,
        random: Random::seeded(1),
        folder: folder.path().join("media"),
        sync: true,
        settings,
    };
    let media = Media::open(parts.clone()).await.unwrap();
    World {
        media,
        parts,
        folder,
    }
}

fn name() -> OwnedServerName {
    server_name!("localhost").to_owned()
}

fn described(content_type: &str, filename: &str) -> Described {
    Described {
        content_type: Some(content_type.to_owned()),
        filename: Some(filename.to_owned()),
    }
}

impl World {
    async fn upload(&self, content: &[u8]) -> Result<String> {
        self.upload_as(ALICE, None, content).await
    }

    async fn upload_as(
        &self,
        user: ShortUserId,
        id: Option<&str>,
        content: &[u8],
    ) -> Result<String> {
        let described = described("image/png", "a.png");
        let mut upload = self.media.begin_upload(user, id, described).await?;
        for piece in content.chunks(1000) {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    async fn find(&self, id: &str) -> Result<Stored> {
        let wait = Duration::from_secs(20);
        self.media.find(&name(), id, wait, pending()).await
    }

    async fn read(&self, id: &str) -> Vec<u8> {
        let stored = self.find(id).await.unwrap();
        let mut content = Vec::new();
        let mut file = self.media.open_file(&stored).await.unwrap();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(stored.length, content.len() as u64);
        content
    }

    async fn thumbnail(&self, id: &str, width: u64, height: u64, crop: bool) -> Result<Thumbnail> {
        let stored = self.find(id).await.unwrap();
        let wanted = Wanted {
            width,
            height,
            crop,
            animated: false,
        };
        self.media.thumbnail(&stored, wanted).await
    }

    /// All files in the folder.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path.to_str().unwrap().to_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        found
    }
}

#[track_caller]
fn refused<T>(outcome: Result<T>, status: u16, errcode: &str) {
    let error = outcome.err().expect("a refusal");
    assert_eq!(error.status().as_u16(), status, "{error}");
    assert_eq!(error.kind().unwrap().errcode().to_string(), errcode);
}

#[tokio::test]
async fn what_is_uploaded_comes_back_with_what_was_said_of_it() {
    let world = world(|_| {}).await;
    let content: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let id = world.upload(&content).await.unwrap();
    assert_eq!(world.read(&id).await, content);
    assert_eq!(
        world.find(&id).await.unwrap().described,
        described("image/png", "a.png")
    );
    let empty = world.upload(b"").await.unwrap();
    assert_eq!(world.read(&empty).await, b"");
    assert_eq!(world.files().len(), 2);
    assert!(world.files().iter().all(|path| path.contains("/files/")));
    let uri = world.media.uri(&id);
    assert_eq!(uri.as_str(), format!("mxc://localhost/{id}"));
}

#[tokio::test]
async fn ids_that_are_none_and_files_of_others_are_not_found() {
    let world = world(|_| {}).await;
    for id in [
        "",
        "..",
        "a/b",
        "a%2Fb",
        "a.b",
        "é",
        "a\0",
        &"x".repeat(256),
    ] {
        refused(world.find(id).await, 400, "M_INVALID_PARAM");
        let upload = world.upload_as(ALICE, Some(id), b"a").await;
        refused(upload, 400, "M_INVALID_PARAM");
    }
    refused(world.find("unknown").await, 404, "M_NOT_FOUND");
    let id = world.upload(b"a").await.unwrap();
    let other = server_name!("example.org");
    let found = world.media.find(other, &id, Duration::ZERO, pending());
    refused(found.await, 502, "M_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn an_id_is_given_out_waited_for_and_used_once() {
    let world = world(|_| {}).await;
    let created = world.media.create(ALICE).await.unwrap();
    assert_eq!(created.expires_ts, BEGIN + 24 * 60 * 60 * 1000);
    let id = created.media_id.as_str();
    refused(world.find(id).await, 504, "M_NOT_YET_UPLOADED");
    let name = name();
    let stopped = world
        .media
        .find(&name, id, Duration::from_secs(20), async {});
    refused(stopped.await, 504, "M_NOT_YET_UPLOADED");
    refused(
        world.upload_as(BOB, Some(id), b"b").await,
        403,
        "M_FORBIDDEN",
    );
    refused(
        world.upload_as(ALICE, Some("other"), b"b").await,
        404,
        "M_NOT_FOUND",
    );

    let (waited, uploaded) = tokio::join!(world.find(id), async {
        // The other waits by now.
        tokio::task::yield_now().await;
        world.upload_as(ALICE, Some(id), b"late").await
    });
    assert_eq!(uploaded.unwrap(), id);
    assert_eq!(waited.unwrap().length, 4);
    assert_eq!(world.read(id).await, b"late");
    let again = world.upload_as(ALICE, Some(id), b"again").await;
    refused(again, 409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(world.read(id).await, b"late");
    assert_eq!(world.files().len(), 1);
}

#[tokio::test]
async fn of_two_uploads_to_one_id_the_first_to_end_counts() {
    let world = world(|_| {}).await;
    let id = world.media.create(ALICE).await.unwrap().media_id;
    let begin = || {
        let described = Described::default();
        world.media.begin_upload(ALICE, Some(&id), described)
    };
    let (mut first, mut second) = (begin().await.unwrap(), begin().await.unwrap());
    first.write(b"first").await.unwrap();
    second.write(b"second").await.unwrap();
    second.finish().await.unwrap();
    refused(first.finish().await, 409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(world.read(&id).await, b"second");
    assert_eq!(world.files().len(), 1);
}

#[tokio::test]
async fn ids_end_and_make_room_for_others() {
    let world = world(|settings| settings.max_pending_uploads = 2).await;
    let first = world.media.create(ALICE).await.unwrap().media_id;
    world.parts.clock.advance(Duration::from_secs(60 * 60));
    let second = world.media.create(ALICE).await.unwrap().media_id;
    refused(world.media.create(ALICE).await, 429, "M_LIMIT_EXCEEDED");
    world.media.create(BOB).await.unwrap();
    // One that is used is none that is held.
    world.upload_as(ALICE, Some(&second), b"a").await.unwrap();
    world.media.create(ALICE).await.unwrap();
    refused(world.media.create(ALICE).await, 429, "M_LIMIT_EXCEEDED");

    world.parts.clock.advance(Duration::from_secs(23 * 60 * 60));
    refused(world.find(&first).await, 404, "M_NOT_FOUND");
    let late = world.upload_as(ALICE, Some(&first), b"a").await;
    refused(late, 404, "M_NOT_FOUND");
    world.media.create(ALICE).await.unwrap();
    refused(world.media.create(ALICE).await, 429, "M_LIMIT_EXCEEDED");
    assert_eq!(world.read(&second).await, b"a");
}

#[tokio::test]
async fn a_user_uploads_no_more_than_allowed() {
    let world = world(|settings| settings.max_bytes_per_user = config::ByteCount::new(2500)).await;
    world.upload(&[0; 1500]).await.unwrap();
    refused(world.upload(&[0; 1001]).await, 403, "M_FORBIDDEN");
    world.upload(&[0; 1000]).await.unwrap();
    refused(world.upload(&[0]).await, 403, "M_FORBIDDEN");
    world.upload_as(BOB, None, &[0; 2500]).await.unwrap();
    assert_eq!(world.files().len(), 3);
}

#[tokio::test]
async fn long_words_are_refused() {
    let world = world(|_| {}).await;
    for said in [
        described(&"x".repeat(256), "a"),
        described("a", &"x".repeat(1025)),
    ] {
        let begun = world.media.begin_upload(ALICE, None, said).await;
        refused(begun, 400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let world = world(|_| {}).await;
    let begun = world.media.begin_upload(ALICE, None, Described::default());
    let mut upload = begun.await.unwrap();
    upload.write(b"half").await.unwrap();
    assert_eq!(world.files().len(), 1);
    drop(upload);
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn the_next_start_keeps_what_was_acknowledged_and_nothing_else() {
    let world = world(|_| {}).await;
    let id = world.upload(b"whole").await.unwrap();
    // As if the server had ended before the file was moved.
    let stored = world.find(&id).await.unwrap();
    let files = &world.media.0.files;
    let arriving = files.arriving(stored.hash, stored.file);
    fs::rename(files.settled(stored.file), &arriving).unwrap();
    assert_eq!(world.read(&id).await, b"whole");
    let folder = arriving.parent().unwrap();
    for name in [
        files.arriving(stored.hash, [7; 16]),
        files.arriving(NameHash([7; 16]), stored.file),
        folder.join("thumbnail-abc"),
    ] {
        fs::write(name, b"half").unwrap();
    }
    let media = Media::open(world.parts.clone()).await.unwrap();
    let world = World { media, ..world };
    assert_eq!(world.read(&id).await, b"whole");
    assert_eq!(
        world.files(),
        [world.media.0.files.settled(stored.file).to_str().unwrap()]
    );
}

fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
    let mut content = Cursor::new(Vec::new());
    let picture = DynamicImage::ImageRgb8(picture);
    picture.write_to(&mut content, format).unwrap();
    content.into_inner()
}

fn size_of(thumbnail: &Thumbnail) -> (u32, u32) {
    match thumbnail {
        Thumbnail::Original => panic!("the original"),
        Thumbnail::Picture {
            content,
            content_type,
            ..
        } => {
            let format = ImageFormat::from_mime_type(content_type).unwrap();
            let read = image::load_from_memory_with_format(content, format).unwrap();
            (read.width(), read.height())
        }
    }
}

#[tokio::test]
async fn pictures_are_made_smaller_and_kept() {
    let world = world(|_| {}).await;
    for format in [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ] {
        let id = world.upload(&picture(400, 200, format)).await.unwrap();
        let before = world.files().len();
        let scaled = world.thumbnail(&id, 90, 90, false).await.unwrap();
        assert_eq!(size_of(&scaled), (96, 48), "{format:?}");
        let cropped = world.thumbnail(&id, 90, 90, true).await.unwrap();
        assert_eq!(size_of(&cropped), (96, 96), "{format:?}");
        assert_eq!(world.files().len(), before + 2);
        // Sizes that are rounded up to the same are one; kept ones are not made again.
        let stored = world.find(&id).await.unwrap();
        fs::write(world.media.0.files.settled(stored.file), b"gone").unwrap();
        assert_eq!(world.thumbnail(&id, 33, 40, false).await.unwrap(), scaled);
        assert_eq!(world.thumbnail(&id, 96, 96, true).await.unwrap(), cropped);
    }
}

#[tokio::test]
async fn small_pictures_are_given_as_they_are_unless_they_move() {
    let world = world(|_| {}).await;
    let png = world
        .upload(&picture(30, 20, ImageFormat::Png))
        .await
        .unwrap();
    for (width, height) in [(32, 32), (96, 96), (5000, 5000)] {
        let given = world.thumbnail(&png, width, height, false).await.unwrap();
        assert_eq!(given, Thumbnail::Original);
    }
    let gif = world
        .upload(&picture(30, 20, ImageFormat::Gif))
        .await
        .unwrap();
    let still = world.thumbnail(&gif, 32, 32, false).await.unwrap();
    assert_eq!(size_of(&still), (30, 20));
    let stored = world.find(&gif).await.unwrap();
    let wanted = Wanted {
        width: 32,
        height: 32,
        crop: false,
        animated: true,
    };
    let moving = world.media.thumbnail(&stored, wanted).await.unwrap();
    assert_eq!(moving, Thumbnail::Original);
}

/// A PNG of nothing that says it is very large.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut content = picture(8, 8, ImageFormat::Png);
    content[16..20].copy_from_slice(&width.to_be_bytes());
    content[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc32(&content[12..29]);
    content[29..33].copy_from_slice(&sum.to_be_bytes());
    content
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[tokio::test]
async fn bombs_and_what_is_no_picture_are_refused() {
    let world = world(|settings| settings.max_megapixels = 1).await;
    let large = world
        .upload(&picture(1200, 1000, ImageFormat::Png))
        .await
        .unwrap();
    refused(
        world.thumbnail(&large, 32, 32, false).await,
        413,
        "M_TOO_LARGE",
    );
    for (width, height) in [(60_000, 60_000), (1 << 30, 1 << 30)] {
        let bomb = world.upload(&bomb(width, height)).await.unwrap();
        let outcome = world.thumbnail(&bomb, 32, 32, true).await;
        let status = outcome.unwrap_err().status();
        assert!(
            [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::BAD_REQUEST].contains(&status),
            "{status}"
        );
    }
    let mut cut = picture(200, 200, ImageFormat::Png);
    cut.truncate(100);
    for content in [
        &b""[..],
        b"text",
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
        b"BM and more",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff",
        &cut,
    ] {
        let id = world.upload(content).await.unwrap();
        refused(world.thumbnail(&id, 32, 32, false).await, 400, "M_UNKNOWN");
    }
    let id = world.upload(b"text").await.unwrap();
    refused(
        world.thumbnail(&id, 0, 32, false).await,
        400,
        "M_INVALID_PARAM",
    );
}

#[tokio::test]
async fn faults_of_storage_leave_whole_files_or_none() {
    for seed in 0..20 {
        let faults = storage::Faults {
            seed,
            conflicts: 300,
            ..storage::Faults::default()
        };
        let mut world = world(|_| {}).await;
        world.parts.storage = Storage::model_with(faults);
        world.media = Media::open(world.parts.clone()).await.unwrap();
        let id = world.upload(b"whole").await.unwrap();
        assert_eq!(world.read(&id).await, b"whole");
        let created = world.media.create(ALICE).await.unwrap().media_id;
        let late = world.upload_as(ALICE, Some(&created), b"late").await;
        assert_eq!(late.unwrap(), created);
        assert_eq!(world.files().len(), 2);
    }
}
