//! What becomes of an index that is not what it should be.

use std::{fs, path::Path};

use rooms::Preset;

use super::{World, text};

fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder.join("search")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|it| it != "json" && it != "lock")
        })
        .collect()
}

/// Says what is to be found again after `meanwhile`, whatever that does to the folder.
async fn found_again(meanwhile: impl FnOnce(&Path)) {
    let mut world = World::new(&["alice"]).await;
    let room = world.room(0, Preset::PrivateChat, "shared").await;
    let first = world.send(&room, 0, text("a needle")).await.unwrap();
    assert_eq!(world.find(0, "needle", true, 5).await, [first.as_str()]);
    world.restart(meanwhile).await;
    let second = world.send(&room, 0, text("the needle")).await.unwrap();
    let mut found = world.find(0, "needle", false, 5).await;
    let mut both = vec![first.to_string(), second.to_string()];
    found.sort();
    both.sort();
    assert_eq!(found, both);
}

#[tokio::test]
async fn an_index_goes_on_where_it_was() {
    found_again(|folder| assert!(!segments(folder).is_empty())).await;
}

#[tokio::test]
async fn an_index_that_is_gone_is_built_anew() {
    found_again(|folder| fs::remove_dir_all(folder.join("search")).unwrap()).await;
}

#[tokio::test]
async fn an_index_whose_files_are_cut_off_is_built_anew() {
    found_again(|folder| {
        for file in segments(folder) {
            fs::write(file, b"").unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn an_index_with_other_bytes_is_built_anew() {
    found_again(|folder| {
        for file in segments(folder) {
            let length = fs::read(&file).unwrap().len();
            fs::write(file, vec![0x5a; length]).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn an_index_that_says_nothing_about_itself_is_built_anew() {
    found_again(|folder| fs::write(folder.join("search/meta.json"), b"{}").unwrap()).await;
}

#[tokio::test]
async fn an_index_of_another_database_is_built_anew() {
    let other = World::new(&["alice"]).await;
    let room = other.room(0, Preset::PrivateChat, "shared").await;
    other.send(&room, 0, text("a needle")).await.unwrap();
    assert_eq!(other.find(0, "needle", true, 5).await.len(), 1);
    found_again(|folder| {
        // All databases in memory have the same key: what tells them apart is the epoch.
        let meta = folder.join("search/meta.json");
        let text = fs::read_to_string(&meta).unwrap();
        let changed = text.replace("\\\"epoch\\\":1", "\\\"epoch\\\":7");
        assert_ne!(text, changed);
        fs::write(meta, changed).unwrap();
    })
    .await;
}
