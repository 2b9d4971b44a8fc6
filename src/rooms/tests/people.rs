//! People of this server who look at rooms, for tests of reading.

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedUserId, api::client::filter::RoomEventFilter};
use serde_json::{Value, json, value::to_raw_value};
use storage::{Batch, NameHash, Options, ShortUserId, Snapshot, Storage, schema};

use super::{alice, state};
use crate::{Draft, EventFormat, Group, Look, Page, ReadEvent, Room, Rooms, Span, Viewer};

pub(crate) fn bob() -> OwnedUserId {
    "@bob:example.org".try_into().unwrap()
}

/// Gives people accounts, as far as rooms ask for them.
pub(crate) async fn accounts(storage: &Storage, users: &[OwnedUserId]) -> Vec<Viewer> {
    let mut viewers = Vec::new();
    for (i, user) in (1..).zip(users) {
        let short = ShortUserId([i; 8]);
        let mut batch = Batch::new();
        batch.put(&schema::USER_BY_NAME, &storage.user_hash(user), &short);
        storage.commit(batch).await.unwrap();
        viewers.push(Viewer {
            user_id: user.clone(),
            short,
            device: NameHash([i; 16]),
        });
    }
    viewers
}

/// A storage in a folder that goes with it.
pub(crate) fn on_disk() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        sync: false,
        block_cache: 1 << 20,
        memory_budget: 8 << 20,
        ..Options::default()
    };
    let storage = Storage::open(folder.path().join("db"), &options).unwrap();
    (folder, storage)
}

pub(crate) fn member(sender: &OwnedUserId, user: &OwnedUserId, membership: &str) -> Draft {
    let content = json!({ "membership": membership });
    state(sender, "m.room.member", user.as_str(), content)
}

pub(crate) fn visibility(value: &str) -> Draft {
    let content = json!({ "history_visibility": value });
    state(&alice(), "m.room.history_visibility", "", content)
}

pub(crate) fn redaction(sender: &OwnedUserId, target: &OwnedEventId) -> Draft {
    let content = to_raw_value(&json!({ "reason": "because" })).unwrap();
    Draft {
        redacts: Some(target.clone()),
        ..Draft::message(sender.clone(), "m.room.redaction", content)
    }
}

/// A room and somebody who looks at it.
pub(crate) struct Seen<'a> {
    pub(crate) rooms: &'a Rooms,
    pub(crate) room: &'a Arc<Room>,
    pub(crate) viewer: &'a Viewer,
}

impl Seen<'_> {
    pub(crate) async fn send(&self, draft: Draft) -> OwnedEventId {
        let sent = self.rooms.send(self.room, Group::one(draft)).await;
        sent.unwrap().remove(0)
    }

    pub(crate) async fn look(&self) -> (Snapshot, Look) {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let look = self.room.look(&snapshot, self.viewer).await.unwrap();
        (snapshot, look)
    }

    pub(crate) async fn page(&self, span: Span, filter: &RoomEventFilter) -> error::Result<Page> {
        let (snapshot, look) = self.look().await;
        self.room
            .timeline(&snapshot, self.viewer, &look, span, filter, None)
            .await
    }

    /// An event as the viewer gets it.
    pub(crate) async fn event(&self, id: &OwnedEventId) -> Value {
        self.event_as(id, EventFormat::Client).await
    }

    pub(crate) async fn event_as(&self, id: &OwnedEventId, format: EventFormat) -> Value {
        let (snapshot, look) = self.look().await;
        let event = self.room.find_event(self.rooms, &snapshot, id).await;
        let event = event.unwrap().expect("an event of the room");
        self.written(&snapshot, &look, &[event], format).await[0].clone()
    }

    pub(crate) async fn written(
        &self,
        snapshot: &Snapshot,
        look: &Look,
        events: &[ReadEvent],
        format: EventFormat,
    ) -> Vec<Value> {
        let written = self
            .room
            .client_events(
                self.rooms,
                snapshot,
                self.viewer,
                look,
                events,
                format.into(),
            )
            .await
            .unwrap();
        let read = |event: &str| serde_json::from_str(event).unwrap();
        written.iter().map(|event| read(event.get())).collect()
    }
}

pub(crate) fn ids(events: &[ReadEvent]) -> Vec<&str> {
    let all = events.iter();
    all.map(|event| event.row.header.event_id.as_str())
        .collect()
}
