//! People come into rooms of other servers, leave them, knock and are invited.

mod brought;
mod closed;
mod handed;
mod hostile;
mod invites;
mod joins;
mod leaving;
mod partial;
mod played;
mod templates;
mod third_party;

use config::Config;
use http::{Method, header};
use ruma::{OwnedServerName, OwnedUserId};
use serde_json::{Value, json};
use storage::Clock;

use super::Network;
use crate::{
    Server,
    tests::{ALL, request},
};

pub(in crate::tests::federation) const A: &str = "a.example";
pub(in crate::tests::federation) const B: &str = "b.example";
pub(in crate::tests::federation) const C: &str = "c.example";
/// It is nowhere.
const NOWHERE: &str = "nowhere.example";
const V3: &str = "/_matrix/client/v3";

/// Servers that know of each other.
pub(in crate::tests::federation) struct World {
    pub(in crate::tests::federation) network: Network,
    pub(in crate::tests::federation) clock: Clock,
}

/// Somebody with a client.
pub(in crate::tests::federation) struct Person {
    pub(in crate::tests::federation) server: Server,
    pub(in crate::tests::federation) user_id: OwnedUserId,
    token: String,
}

/// What a server said.
#[derive(Debug)]
pub(in crate::tests::federation) struct Answer {
    pub(in crate::tests::federation) status: u16,
    pub(in crate::tests::federation) body: Value,
}

impl Answer {
    #[track_caller]
    pub(in crate::tests::federation) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    #[track_caller]
    pub(in crate::tests::federation) fn refused(self, status: u16, errcode: &str) {
        let code = self.body["errcode"].as_str().unwrap_or_default();
        assert_eq!((self.status, code), (status, errcode), "{}", self.body);
    }
}

impl World {
    pub(in crate::tests::federation) fn new() -> Self {
        Self {
            network: Network::default(),
            clock: Clock::standing_at(1_700_000_000_000),
        }
    }

    pub(in crate::tests::federation) async fn server(&self, name: &str) -> Server {
        self.server_with(name, |_| ()).await
    }

    /// A server whose settings are changed a little.
    pub(in crate::tests::federation) async fn server_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut Config),
    ) -> Server {
        let mut config = Config::default();
        config.registration.enabled = true;
        config.registration.require_token = false;
        config.rate_limits.enabled = false;
        change(&mut config);
        self.network.server(name, &self.clock, config).await
    }

    pub(in crate::tests::federation) fn take_away(&self, server: &str) {
        self.network.take_away(&name(server));
    }

    pub(in crate::tests::federation) fn bring_back(&self, server: &str) {
        self.network.bring_back(&name(server));
    }
}

impl Person {
    pub(in crate::tests::federation) async fn new(server: &Server, name: &str) -> Self {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "correct horse", "auth": auth });
        let answer = ask(server, "", Method::POST, &format!("{V3}/register"), &body).await;
        let body = answer.ok();
        Self {
            server: server.clone(),
            user_id: body["user_id"].as_str().unwrap().try_into().unwrap(),
            token: body["access_token"].as_str().unwrap().to_owned(),
        }
    }

    pub(in crate::tests::federation) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Answer {
        ask(&self.server, &self.token, method, path, body).await
    }

    pub(in crate::tests::federation) async fn post(&self, path: &str, body: Value) -> Answer {
        let path = format!("{V3}{path}");
        ask(&self.server, &self.token, Method::POST, &path, &body).await
    }

    pub(in crate::tests::federation) async fn put(&self, path: &str, body: Value) -> Answer {
        let path = format!("{V3}{path}");
        ask(&self.server, &self.token, Method::PUT, &path, &body).await
    }

    pub(in crate::tests::federation) async fn get(&self, path: &str) -> Answer {
        let path = format!("{V3}{path}");
        ask(&self.server, &self.token, Method::GET, &path, &json!({})).await
    }

    pub(in crate::tests::federation) async fn create(&self, room: Value) -> String {
        let created = self.post("/createRoom", room).await.ok();
        created["room_id"].as_str().unwrap().to_owned()
    }

    pub(in crate::tests::federation) async fn join(&self, room: &str, via: &[&str]) -> Answer {
        let via: Vec<_> = via.iter().map(|server| format!("via={server}")).collect();
        let room = room.replace('#', "%23");
        self.post(&format!("/join/{room}?{}", via.join("&")), json!({}))
            .await
    }

    pub(in crate::tests::federation) async fn leave(&self, room: &str) -> Answer {
        self.post(&format!("/rooms/{room}/leave"), json!({})).await
    }

    pub(in crate::tests::federation) async fn invite(&self, room: &str, other: &Person) -> Answer {
        let body = json!({ "user_id": other.user_id });
        self.post(&format!("/rooms/{room}/invite"), body).await
    }

    pub(in crate::tests::federation) async fn set(
        &self,
        room: &str,
        event_type: &str,
        content: Value,
    ) {
        let path = format!("/rooms/{room}/state/{event_type}/");
        self.put(&path, content).await.ok();
    }

    /// Who is what in a room, as this one's server sees it.
    pub(in crate::tests::federation) async fn membership(
        &self,
        room: &str,
        other: &Person,
    ) -> Value {
        let path = format!("/rooms/{room}/state/m.room.member/{}", other.user_id);
        self.get(&path).await.body["membership"].clone()
    }

    /// One of the lists of rooms of a first sync.
    pub(in crate::tests::federation) async fn rooms(&self, list: &str) -> Value {
        let filter = "%7B%22room%22:%7B%22include_leave%22:true%7D%7D";
        let sync = self.get(&format!("/sync?filter={filter}")).await.ok();
        sync["rooms"][list].clone()
    }
}

/// The room shows somebody as the last thing that they are out of it, and who said so.
async fn ended_by(person: &Person, room: &str, membership: &str, by: &Person) {
    let left = person.rooms("leave").await[room].clone();
    let last = left["timeline"]["events"]
        .as_array()
        .and_then(|all| all.last());
    let last = last.unwrap_or_else(|| panic!("nothing ended it: {left}"));
    assert_eq!(last["type"], "m.room.member");
    assert_eq!(last["state_key"], person.user_id.as_str());
    assert_eq!(last["content"]["membership"], membership);
    assert_eq!(last["sender"], by.user_id.as_str());
    assert!(
        last["event_id"]
            .as_str()
            .is_some_and(|id| id.starts_with('$'))
    );
}

pub(in crate::tests::federation) async fn ask(
    server: &Server,
    token: &str,
    method: Method,
    path: &str,
    body: &Value,
) -> Answer {
    let body = match method {
        Method::GET => String::new(),
        _ => body.to_string(),
    };
    let mut request = request(method, path, body);
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let answer = server.answer(ALL, request).await;
    Answer {
        status: answer.status().as_u16(),
        body: serde_json::from_slice(answer.body().whole()).unwrap_or_default(),
    }
}

/// The types of stripped events.
fn types(events: &Value) -> Vec<&str> {
    let events = events["events"].as_array().unwrap().iter();
    events
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

pub(in crate::tests::federation) fn name(server: &str) -> OwnedServerName {
    server.try_into().unwrap()
}
