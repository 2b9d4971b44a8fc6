//! Syncs on the engines of storage, without HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod cost;
mod device;
mod history;
mod polls;
mod random_walks;
mod rooms_of_a_user;

use std::{sync::Arc, time::Duration};

use federation::Federation;
use rooms::{Draft, Group, NewRoomRequest, Preset, Room, Rooms, Said, Viewer};
use ruma::{OwnedEventId, OwnedUserId, RoomVersionId, server_name};
use serde_json::{Map, Value, json, value::to_raw_value};
use storage::{Clock, Faults, Random, Storage};
use users::{NewAccount, Settings, Users};

use crate::{Request, StateForm, Syncs, Token, Update};

const NOW: u64 = 1_800_000_000_000;

/// A server without HTTP, and a few people on it.
struct World {
    storage: Storage,
    /// The time, by which the age of views is told too.
    clock: Clock,
    users: Users,
    rooms: Rooms,
    syncs: Syncs,
    people: Vec<Viewer>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    async fn on_model(names: &[&str]) -> Self {
        Self::on_faulty_model(Faults::NONE, names).await
    }

    async fn on_faulty_model(faults: Faults, names: &[&str]) -> Self {
        let clock = Clock::standing_at(NOW);
        let storage = Storage::model_on(clock.clone(), faults);
        Self::on(storage, &clock, None, names).await
    }

    async fn on_rocks(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::standing_at(NOW);
        let options = storage::Options {
            clock: clock.clone(),
            block_cache: 1 << 20,
            memory_budget: 16 << 20,
            ..storage::Options::default()
        };
        let storage = Storage::open(folder.path().join("data"), &options).unwrap();
        Self::on(storage, &clock, Some(folder), names).await
    }

    async fn on(
        storage: Storage,
        clock: &Clock,
        folder: Option<tempfile::TempDir>,
        names: &[&str],
    ) -> Self {
        let random = Random::seeded(1);
        let name = server_name!("a.example");
        let alone = federation::Parts::alone(&storage, name, clock, &Random::seeded(2));
        let federation = Federation::open(alone).await.unwrap();
        let users = Users::open(&storage, &federation, clock, &random, Settings::default())
            .await
            .unwrap();
        let rooms = Rooms::new(rooms::Parts {
            storage: storage.clone(),
            server_name: name.to_owned(),
            federation,
            clock: clock.clone(),
            random,
        });
        let syncs = Syncs::new(&storage, &users, &rooms);
        let mut people = Vec::new();
        for name in names {
            let new = NewAccount {
                username: name,
                ..NewAccount::default()
            };
            let account = users.create(new).await.unwrap();
            people.push(Viewer {
                device: storage.user_device_hash(account.user_id.as_str(), "ONE"),
                user_id: account.user_id,
                short: account.user,
            });
        }
        Self {
            storage,
            clock: clock.clone(),
            users,
            rooms,
            syncs,
            people,
            _folder: folder,
        }
    }

    fn id(&self, person: usize) -> &OwnedUserId {
        &self.people[person].user_id
    }

    /// A room that everybody may join.
    async fn room(&self, creator: usize, visibility: &str) -> Arc<Room> {
        let mut content = Map::new();
        content.insert("history_visibility".to_owned(), json!(visibility));
        let request = NewRoomRequest {
            creator: self.id(creator).clone(),
            version: RoomVersionId::V11,
            creation_content: Map::new(),
            preset: Preset::PublicChat,
            public: false,
            initial_state: vec![rooms::InitialState {
                event_type: "m.room.history_visibility".to_owned(),
                state_key: String::new(),
                content,
            }],
            invite: Vec::new(),
            is_direct: false,
            name: None,
            topic: None,
            alias: None,
            power_level_content_override: None,
            notices_of: None,
        };
        let room_id = self.rooms.create(request).await.unwrap();
        self.rooms.room(&room_id).await.unwrap()
    }

    async fn say(&self, room: &Arc<Room>, person: usize, text: &str) -> OwnedEventId {
        self.try_say(room, person, text).await.unwrap()
    }

    async fn try_say(
        &self,
        room: &Arc<Room>,
        person: usize,
        text: &str,
    ) -> error::Result<OwnedEventId> {
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": text })).unwrap();
        let draft = Draft::message(self.id(person).clone(), "m.room.message", content);
        let ids = self.rooms.send(room, Group::one(draft)).await?;
        Ok(ids[0].clone())
    }

    async fn set(
        &self,
        room: &Arc<Room>,
        person: usize,
        event_type: &str,
        key: &str,
        content: Value,
    ) -> error::Result<OwnedEventId> {
        let content = to_raw_value(&content).unwrap();
        let draft = Draft::state(self.id(person).clone(), event_type, key, content);
        let ids = self.rooms.send(room, Group::one(draft)).await?;
        Ok(ids[0].clone())
    }

    async fn join(&self, room: &Arc<Room>, person: usize) {
        let said = Said::default();
        self.rooms
            .join(room, self.id(person), &[], said)
            .await
            .unwrap();
    }

    async fn leave(&self, room: &Arc<Room>, person: usize) {
        let said = Said::default();
        self.rooms.leave(room, self.id(person), said).await.unwrap();
    }

    fn request(&self, person: usize, since: Option<Token>, filter: Value) -> Request {
        Request {
            viewer: self.people[person].clone(),
            device: Some(self.storage.device_hash("DEVICE")),
            since,
            filter: serde_json::from_value(filter).unwrap(),
            relations: rooms::RelationFilter::default(),
            full_state: false,
            state: StateForm::Before,
            timeout: Duration::ZERO,
        }
    }

    /// A sync that does not wait.
    async fn sync(&self, person: usize, since: Option<Token>) -> (Update, Token) {
        self.ask(&self.request(person, since, json!({}))).await
    }

    async fn ask(&self, request: &Request) -> (Update, Token) {
        let never = std::future::pending();
        self.syncs.sync(request, never).await.unwrap()
    }
}

/// A field of each event, as text.
fn each<'a>(
    events: impl IntoIterator<Item = &'a Box<serde_json::value::RawValue>>,
    pointer: &str,
) -> Vec<String> {
    let text = |event: &serde_json::value::RawValue| {
        let event: Value = serde_json::from_str(event.get()).unwrap();
        let value = event.pointer(pointer).cloned().unwrap_or_default();
        value.as_str().map_or(value.to_string(), str::to_owned)
    };
    events.into_iter().map(|event| text(event)).collect()
}
