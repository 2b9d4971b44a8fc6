//! A person with one device.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Client, unique};
use crate::{Answer, encode};

/// A person with one device and its access token.
#[derive(Clone, Debug)]
pub struct User {
    client: Client,
    /// `@name:server`.
    pub id: String,
    /// The access token.
    pub token: String,
    /// The device that the token belongs to.
    pub device: String,
}

impl User {
    /// What the paths of the methods below begin with.
    pub const PREFIX: &'static str = "/_matrix/client/v3";

    pub(crate) fn of(client: Client, answer: &Value) -> Self {
        let text = |key: &str| {
            answer[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key} in {answer}"))
                .to_owned()
        };
        Self {
            client,
            id: text("user_id"),
            token: text("access_token"),
            device: text("device_id"),
        }
    }

    /// The name between `@` and `:`.
    pub fn name(&self) -> &str {
        self.id.trim_start_matches('@').split(':').next().unwrap()
    }

    /// One request with the token; the path is whole (`/_matrix/…`).
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.ask(method, path, Some(&self.token), body).await
    }

    /// The same, below `/_matrix/client/v3`; an error where the server is down or went down meanwhile.
    pub async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        self.client
            .try_ask(
                method,
                &format!("{}{path}", Self::PREFIX),
                Some(&self.token),
                body,
            )
            .await
    }

    /// `GET` below `/_matrix/client/v3`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, &format!("{}{path}", Self::PREFIX), None)
            .await
    }

    /// `PUT` below `/_matrix/client/v3`.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, &format!("{}{path}", Self::PREFIX), Some(&body))
            .await
    }

    /// `POST` below `/_matrix/client/v3`.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(
            Method::POST,
            &format!("{}{path}", Self::PREFIX),
            Some(&body),
        )
        .await
    }

    /// `DELETE` below `/_matrix/client/v3`, with a body.
    pub async fn delete(&self, path: &str, body: Value) -> Answer {
        self.ask(
            Method::DELETE,
            &format!("{}{path}", Self::PREFIX),
            Some(&body),
        )
        .await
    }

    /// Makes a room; gives its id.
    pub async fn create_room(&self, body: Value) -> String {
        text(&self.post("/createRoom", body).await.ok(), "room_id")
    }

    /// A public room in which each of `others` is joined too.
    pub async fn room_with(&self, others: &[&User]) -> String {
        let room = self.create_room(json!({"preset": "public_chat"})).await;
        for other in others {
            other.join(&room).await;
        }
        room
    }

    /// Joins a room.
    pub async fn join(&self, room: &str) {
        let joined = self.post(&format!("/join/{room}"), json!({})).await.ok();
        assert_eq!(joined["room_id"], room);
    }

    /// `POST /rooms/ROOM/VERB`, as in `user.to_room(&room, "kick", json!({"user_id": …}))`.
    pub async fn to_room(&self, room: &str, verb: &str, body: Value) -> Answer {
        self.post(&format!("/rooms/{room}/{verb}"), body).await
    }

    /// Sends a text message; gives the event's id.
    pub async fn say(&self, room: &str, body: &str) -> String {
        self.send(
            room,
            "m.room.message",
            json!({"msgtype": "m.text", "body": body}),
        )
        .await
    }

    /// Sends an event under a transaction id of its own; gives the event's id.
    pub async fn send(&self, room: &str, event_type: &str, content: Value) -> String {
        let path = format!("/rooms/{room}/send/{event_type}/{}", unique("txn"));
        text(&self.put(&path, content).await.ok(), "event_id")
    }

    /// Sets state; gives the event's id.
    pub async fn set_state(
        &self,
        room: &str,
        event_type: &str,
        key: &str,
        content: Value,
    ) -> String {
        text(
            &self
                .try_set_state(room, event_type, key, content)
                .await
                .ok(),
            "event_id",
        )
    }

    /// Sets state, which may be refused.
    pub async fn try_set_state(
        &self,
        room: &str,
        event_type: &str,
        key: &str,
        content: Value,
    ) -> Answer {
        self.put(
            &format!("/rooms/{room}/state/{event_type}/{}", encode(key)),
            content,
        )
        .await
    }

    /// The content of a state event.
    pub async fn state(&self, room: &str, event_type: &str, key: &str) -> Answer {
        self.get(&format!("/rooms/{room}/state/{event_type}/{}", encode(key)))
            .await
    }

    /// An event by its id.
    pub async fn event(&self, room: &str, event: &str) -> Answer {
        self.get(&format!("/rooms/{room}/event/{}", encode(event)))
            .await
    }

    /// `/sync` at once, from the start or from a token.
    pub async fn sync(&self, since: Option<&str>) -> Sync {
        self.sync_with(since, "timeout=0").await
    }

    /// `/sync` with these further parameters.
    pub async fn sync_with(&self, since: Option<&str>, query: &str) -> Sync {
        let since = since
            .map(|s| format!("&since={}", encode(s)))
            .unwrap_or_default();
        Sync {
            body: self.get(&format!("/sync?{query}{since}")).await.ok(),
        }
    }

    /// Syncs from `since` on (30 s long polls) until `done` says so of an answer, which is given.
    pub async fn sync_until(&self, since: &str, done: impl Fn(&Sync) -> bool) -> Sync {
        let mut since = since.to_owned();
        for _ in 0..50 {
            let sync = self.sync_with(Some(&since), "timeout=30000").await;
            if done(&sync) {
                return sync;
            }
            since = sync.next_batch();
        }
        panic!("50 syncs of {} did not bring what was waited for", self.id);
    }

    /// All events of a room's timeline, from the first to the newest, by pages of `/messages`.
    pub async fn timeline(&self, room: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut from = String::new();
        loop {
            let page = self
                .get(&format!("/rooms/{room}/messages?dir=f&limit=100{from}"))
                .await
                .ok();
            events.extend(page["chunk"].as_array().unwrap().iter().cloned());
            match page["end"].as_str() {
                Some(end) => from = format!("&from={}", encode(end)),
                None => return events,
            }
        }
    }
}

/// The answer to a `/sync`.
#[derive(Debug)]
pub struct Sync {
    /// All of it.
    pub body: Value,
}

impl Sync {
    /// The token to go on from.
    pub fn next_batch(&self) -> String {
        text(&self.body, "next_batch")
    }

    /// What it says of a joined room; `null` where it says nothing.
    pub fn joined(&self, room: &str) -> &Value {
        &self.body["rooms"]["join"][room]
    }

    /// What it says of a room one is invited to; `null` where it says nothing.
    pub fn invited(&self, room: &str) -> &Value {
        &self.body["rooms"]["invite"][room]
    }

    /// What it says of a room one has left; `null` where it says nothing.
    pub fn left(&self, room: &str) -> &Value {
        &self.body["rooms"]["leave"][room]
    }

    /// The events of a joined room's timeline.
    pub fn timeline(&self, room: &str) -> &[Value] {
        list(&self.joined(room)["timeline"]["events"])
    }

    /// The state events of a joined room.
    pub fn state(&self, room: &str) -> &[Value] {
        list(&self.joined(room)["state"]["events"])
    }

    /// The ephemeral events of a joined room.
    pub fn ephemeral(&self, room: &str) -> &[Value] {
        list(&self.joined(room)["ephemeral"]["events"])
    }

    /// The bodies of the messages in a joined room's timeline.
    pub fn said(&self, room: &str) -> Vec<&str> {
        self.timeline(room)
            .iter()
            .filter_map(|e| e["content"]["body"].as_str())
            .collect()
    }
}

fn list(events: &Value) -> &[Value] {
    events.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(answer: &Value, key: &str) -> String {
    answer[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {answer}"))
        .to_owned()
}
