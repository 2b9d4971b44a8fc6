//! Searches on the model engine, without HTTP; the index in a folder of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod cost;
mod people;
mod random_walks;
mod rebuilding;

use std::{path::Path, sync::Arc};

use federation::Federation;
use rooms::{Draft, Group, InitialState, NewRoomRequest, Preset, Room, Rooms, Said, Viewer};
use ruma::{
    OwnedEventId, OwnedUserId, RoomVersionId, api::client::filter::RoomEventFilter, server_name,
};
use serde_json::{Map, Value, json, value::to_raw_value};
use storage::{Clock, Random, Storage};
use tokio::task::JoinHandle;
use users::{NewAccount, Settings, Users};

use crate::{FoundPerson, Kind, MessageQuery, NextBatch, Parts, PeopleQuery, Search};

/// A server without HTTP, and a few people on it.
struct World {
    users: Users,
    rooms: Rooms,
    search: Search,
    people: Vec<Viewer>,
    folder: tempfile::TempDir,
    follower: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl World {
    async fn new(names: &[&str]) -> Self {
        let storage = Storage::model();
        let (clock, random) = (Clock::standing_at(1_800_000_000_000), Random::seeded(1));
        let name = server_name!("a.example");
        let alone = federation::Parts::alone(&storage, name, &clock, &Random::seeded(2));
        let federation = Federation::open(alone).await.unwrap();
        let users = Users::open(&storage, &federation, &clock, &random, Settings::default())
            .await
            .unwrap();
        let rooms = Rooms::new(rooms::Parts {
            storage: storage.clone(),
            server_name: name.to_owned(),
            federation,
            clock,
            random,
        });
        let folder = tempfile::tempdir().unwrap();
        let (search, follower) = follow(&storage, &users, &rooms, folder.path());
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
            users,
            rooms,
            search,
            people,
            folder,
            follower,
        }
    }

    /// Ends the follower and whatever it knows, does something to its folder, and begins again.
    async fn restart(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.follower.abort();
        let _ = (&mut self.follower).await;
        self.search.0.index.write().take();
        meanwhile(self.folder.path());
        let storage = self.rooms.storage().clone();
        (self.search, self.follower) =
            follow(&storage, &self.users, &self.rooms, self.folder.path());
    }

    fn id(&self, person: usize) -> &OwnedUserId {
        &self.people[person].user_id
    }

    async fn room(&self, creator: usize, preset: Preset, visibility: &str) -> Arc<Room> {
        let mut content = Map::new();
        content.insert("history_visibility".to_owned(), json!(visibility));
        let request = NewRoomRequest {
            creator: self.id(creator).clone(),
            version: RoomVersionId::V11,
            creation_content: Map::new(),
            preset,
            public: false,
            initial_state: vec![InitialState {
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

    async fn join(&self, room: &Arc<Room>, person: usize) {
        let said = Said::default();
        self.rooms
            .join(room, self.id(person), &[], said)
            .await
            .unwrap();
    }

    async fn send(
        &self,
        room: &Arc<Room>,
        person: usize,
        content: Value,
    ) -> error::Result<OwnedEventId> {
        let content = to_raw_value(&content).unwrap();
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

    /// The ids of what somebody finds, page by page.
    async fn find(&self, person: usize, term: &str, by_rank: bool, limit: usize) -> Vec<String> {
        let filter = RoomEventFilter::default();
        let mut from: Option<NextBatch> = None;
        let mut ids = Vec::new();
        loop {
            let query = MessageQuery {
                term,
                kinds: Kind::ALL.to_vec(),
                filter: &filter,
                by_rank,
                limit,
                from,
            };
            let viewer = &self.people[person];
            let found = self.search.messages(viewer, &query).await.unwrap();
            let events = found.events.iter();
            ids.extend(events.map(|found| found.event.row.header.event_id.clone()));
            assert!(found.count >= found.events.len() as u64);
            from = found.next.map(|next| next.to_string().parse().unwrap());
            if from.is_none() {
                return ids;
            }
        }
    }

    async fn find_people(&self, person: usize, term: &str) -> Vec<FoundPerson> {
        let query = PeopleQuery {
            user: self.people[person].short,
            user_id: self.id(person),
            term,
            limit: 10,
        };
        self.search.people(&query).await.unwrap().people
    }
}

fn follow(
    storage: &Storage,
    users: &Users,
    rooms: &Rooms,
    folder: &Path,
) -> (Search, JoinHandle<()>) {
    let search = Search::new(Parts {
        storage: storage.clone(),
        users: users.clone(),
        rooms: rooms.clone(),
        folder: folder.join("search"),
    });
    let follower = search.clone();
    let follower = tokio::spawn(async move { follower.follow(std::future::pending()).await });
    (search, follower)
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}
