//! Fills rooms without a client: through the same doors as the server does, many events in a commit.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use federation::Federation;
use rooms::{Draft, Group, Parts, Room, Rooms};
use ruma::{OwnedUserId, RoomId, ServerName};
use serde_json::{Value, json, value::to_raw_value};
use storage::{Clock, Options, Random, Storage};

/// Events in one commit.
const AT_ONCE: usize = 200;
/// Of the members so many speak.
const SPEAKERS: usize = 1_000;

/// How large a room is to be.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) members: usize,
    /// Those that are no state.
    pub(crate) events: usize,
}

/// What filling a room took.
pub(crate) struct Filled {
    size: Size,
    took: Duration,
    /// Bytes on the disk for a member's join, and for a message.
    bytes: [u64; 2],
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { members, events } = self.size;
        let [join, message] = self.bytes;
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{members} members ({join} bytes each), {events} messages ({message} bytes each), in {seconds:.1} s"
        )
    }
}

/// Fills a room of the server of that name that lies in a folder.
///
/// Not in an asynchronous context: it has runtimes of its own, whose ends close the folder.
pub(crate) fn fill(folder: &Path, server: &str, room_id: &str, size: Size) -> Filled {
    let begun = Instant::now();
    let people: Vec<OwnedUserId> = (0..size.members)
        .map(|n| format!("@member{n}:{server}").try_into().unwrap())
        .collect();
    let joins = people.iter().map(|person| {
        let content = json!({ "membership": "join", "displayname": format!("Member {person}") });
        Draft::state(
            person.clone(),
            "m.room.member",
            person.as_str(),
            raw(&content),
        )
    });
    let before = bytes(folder);
    write(folder, server, room_id, joins);
    let between = bytes(folder);
    let messages = (0..size.events).map(|n| {
        let sender = &people[(n * 7) % people.len().min(SPEAKERS)];
        let body = format!("Message {n}: the quick brown fox jumps over the lazy dog");
        let content = json!({ "msgtype": "m.text", "body": body });
        Draft::message(sender.clone(), "m.room.message", raw(&content))
    });
    write(folder, server, room_id, messages);
    let each = |bytes: u64, events: usize| bytes / events.max(1) as u64;
    Filled {
        size,
        took: begun.elapsed(),
        bytes: [
            each(between.saturating_sub(before), size.members),
            each(bytes(folder).saturating_sub(between), size.events),
        ],
    }
}

fn raw(content: &Value) -> Box<serde_json::value::RawValue> {
    to_raw_value(content).unwrap()
}

/// Opens the folder, writes events, and closes it.
fn write(folder: &Path, server: &str, room_id: &str, drafts: impl Iterator<Item = Draft>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(write_all(folder, server, room_id, drafts));
}

async fn write_all(
    folder: &Path,
    server: &str,
    room_id: &str,
    drafts: impl Iterator<Item = Draft>,
) {
    let (clock, random) = (Clock::system(), Random::from_system());
    let options = Options {
        sync: false,
        clock: clock.clone(),
        random: random.clone(),
        ..Options::default()
    };
    let storage = Storage::open(folder, &options).unwrap();
    let name = ServerName::parse(server).unwrap();
    let alone = federation::Parts::alone(&storage, &name, &clock, &random);
    let federation = Federation::open(alone).await.unwrap();
    let rooms = Rooms::new(Parts {
        storage,
        server_name: name,
        federation,
        clock,
        random,
    });
    let room_id = RoomId::parse(room_id).unwrap();
    let room = rooms.room(&room_id).await.unwrap();
    let mut waiting = Vec::new();
    for draft in drafts {
        waiting.push(draft);
        if waiting.len() == AT_ONCE {
            send(&rooms, &room, std::mem::take(&mut waiting)).await;
        }
    }
    if !waiting.is_empty() {
        send(&rooms, &room, waiting).await;
    }
}

async fn send(rooms: &Rooms, room: &Arc<Room>, drafts: Vec<Draft>) {
    let mut group = Group::default();
    group.drafts = drafts;
    rooms.send(room, group).await.unwrap();
}

/// How many bytes lie in a folder.
fn bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    let size = |file: std::io::Result<std::fs::DirEntry>| {
        let file = file.unwrap();
        match file.file_type().unwrap().is_dir() {
            true => bytes(&file.path()),
            false => file.metadata().map_or(0, |metadata| metadata.len()),
        }
    };
    files.map(size).sum()
}
