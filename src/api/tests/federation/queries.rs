//! What servers ask each other about people, aliases, published rooms and keys.

use config::Config;
use federation::Patience;
use http::{Method, Request, header};
use ruma::{
    api::federation::{
        discovery::{
            get_remote_server_keys,
            get_remote_server_keys_batch::{self, v2::QueryCriteria},
        },
        query::get_custom_information,
    },
    server_name,
};
use serde_json::{Value, json};
use storage::Clock;

use super::Network;
use crate::{
    Server,
    tests::{ALL, request},
};

fn open() -> Config {
    let mut config = Config::default();
    config.registration.enabled = true;
    config.registration.require_token = false;
    config.rate_limits.enabled = false;
    config
}

/// What a client of a server is told; with this access token, if any.
async fn ask(
    server: &Server,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let path = format!("/_matrix/client/v3{path}");
    let body = if method == Method::GET {
        String::new()
    } else {
        body.to_string()
    };
    let mut asked: Request<_> = request(method, &path, body);
    if let Some(token) = token {
        let token = format!("Bearer {token}").parse().unwrap();
        asked.headers_mut().insert(header::AUTHORIZATION, token);
    }
    let answer = server.answer(ALL, asked).await;
    let status = answer.status().as_u16();
    (status, super::super::json(&answer))
}

async fn register(server: &Server, name: &str) -> String {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": name, "password": "correct horse", "auth": auth });
    let (status, answer) = ask(server, None, Method::POST, "/register", body).await;
    assert_eq!(status, 200, "{answer}");
    answer["access_token"].as_str().unwrap().to_owned()
}

struct World {
    network: Network,
    clock: Clock,
    a: Server,
    b: Server,
    alice: String,
    bob: String,
}

async fn world() -> World {
    let network = Network::default();
    let clock = Clock::standing_at(1_700_000_000_000);
    let a = network.server("a.example", &clock, open()).await;
    let b = network.server("b.example", &clock, open()).await;
    let alice = register(&a, "alice").await;
    let bob = register(&b, "bob").await;
    World {
        network,
        clock,
        a,
        b,
        alice,
        bob,
    }
}

#[tokio::test]
async fn people_of_other_servers_have_profiles() {
    let world = world().await;
    let path = "/profile/@bob:b.example/displayname";
    let named = json!({ "displayname": "Bob" });
    let set = ask(&world.b, Some(&world.bob), Method::PUT, path, named.clone()).await;
    assert_eq!(set.0, 200, "{set:?}");
    let get = async |path: &str| ask(&world.a, None, Method::GET, path, json!({})).await;
    assert_eq!(get("/profile/@bob:b.example").await, (200, named.clone()));
    assert_eq!(get(path).await, (200, named));
    let (status, refused) = get("/profile/@nobody:b.example").await;
    assert_eq!((status, &refused["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, refused) = get("/profile/@bob:gone.example").await;
    assert_eq!((status, &refused["errcode"]), (502, &json!("M_UNKNOWN")));
    world.network.take_away(server_name!("b.example"));
    assert_eq!(get(path).await.0, 502);
}

#[tokio::test]
async fn aliases_and_published_rooms_of_other_servers_are_found() {
    let world = world().await;
    let room = json!({ "preset": "public_chat", "visibility": "public", "name": "Bazaar",
                       "room_alias_name": "bazaar" });
    let (_, room) = ask(
        &world.b,
        Some(&world.bob),
        Method::POST,
        "/createRoom",
        room,
    )
    .await;
    let room_id = &room["room_id"];
    let get =
        async |path: &str| ask(&world.a, Some(&world.alice), Method::GET, path, json!({})).await;
    let (status, alias) = get("/directory/room/%23bazaar:b.example").await;
    assert_eq!(status, 200, "{alias}");
    assert_eq!(
        alias,
        json!({ "room_id": room_id, "servers": ["b.example"] })
    );
    let (status, refused) = get("/directory/room/%23none:b.example").await;
    assert_eq!((status, &refused["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, page) = get("/publicRooms?server=b.example&limit=5").await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(page["chunk"][0]["room_id"], *room_id);
    assert_eq!(page["chunk"][0]["name"], "Bazaar");
    assert_eq!(page["total_room_count_estimate"], 1);
    let search = async |word: &str| {
        let filter = json!({ "filter": { "generic_search_term": word } });
        let path = "/publicRooms?server=b.example";
        let (_, page) = ask(&world.a, Some(&world.alice), Method::POST, path, filter).await;
        page["chunk"].as_array().unwrap().len()
    };
    assert_eq!(search("bazaar").await, 1);
    assert_eq!(search("mosque").await, 0);
    let (status, _) = get("/publicRooms?server=gone.example").await;
    assert_eq!(status, 502);
}

#[tokio::test]
async fn other_queries_are_answered_by_nobody() {
    let world = world().await;
    let question = || {
        let kind = "org.example.weather".to_owned();
        get_custom_information::v1::Request::new(kind, [].into())
    };
    let to = server_name!("b.example");
    let asked = world.a.federation.ask(to, question(), Patience::QUERY);
    let refused = asked.await.unwrap_err().to_string();
    assert!(
        refused.contains("404") && refused.contains("M_NOT_FOUND"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_notary_passes_on_what_servers_said_also_when_they_are_gone() {
    let world = world().await;
    let far = server_name!("far.example");
    let _peer = world.network.peer(far.as_str(), &world.clock).await;
    let notary = server_name!("b.example");
    let ask_one = async || {
        let now = world.clock.now();
        let question = get_remote_server_keys::v2::Request::new(far.to_owned(), now);
        let asked = world.a.federation.ask(notary, question, Patience::QUERY);
        asked.await.unwrap().server_keys
    };
    let said = ask_one().await;
    assert_eq!(said.len(), 1);
    let said: Value = serde_json::from_str(said[0].json().get()).unwrap();
    assert_eq!(said["server_name"], "far.example");
    let signers = said["signatures"].as_object().unwrap();
    assert_eq!(
        signers.keys().collect::<Vec<_>>(),
        ["b.example", "far.example"]
    );
    world.network.take_away(far);
    world
        .clock
        .advance(std::time::Duration::from_secs(48 * 60 * 60));
    assert_eq!(ask_one().await.len(), 1, "what it last said");
    let several = [far, server_name!("gone.example"), notary].map(|server| {
        let any = "ed25519:x".try_into().unwrap();
        (server.to_owned(), [(any, QueryCriteria::new())].into())
    });
    let question = get_remote_server_keys_batch::v2::Request::new(several.into());
    let asked = world.a.federation.ask(notary, question, Patience::QUERY);
    assert_eq!(asked.await.unwrap().server_keys.len(), 2);
}

#[tokio::test]
async fn spaces_of_other_servers_are_looked_into_as_far_as_they_are_open() {
    let world = world().await;
    let create = async |body: Value| {
        let (status, room) = ask(
            &world.b,
            Some(&world.bob),
            Method::POST,
            "/createRoom",
            body,
        )
        .await;
        assert_eq!(status, 200, "{room}");
        room["room_id"].as_str().unwrap().to_owned()
    };
    let open = create(json!({ "preset": "public_chat", "name": "Open" })).await;
    let closed = create(json!({ "preset": "private_chat", "name": "Closed" })).await;
    let child = |room: &str| json!({ "type": "m.space.child", "state_key": room, "content": { "via": ["b.example"] } });
    let space = |preset: &str, name: &str, rooms: &[&str]| {
        let children: Vec<_> = rooms.iter().map(|room| child(room)).collect();
        json!({ "preset": preset, "name": name, "initial_state": children,
                "creation_content": { "type": "m.space" } })
    };
    let inner = create(space("public_chat", "Inner", &[&open])).await;
    let outer = create(space("public_chat", "Outer", &[&closed, &inner])).await;
    let secret = create(space("private_chat", "Secret", &[&open])).await;
    let look = async |path: &str| {
        let path = format!("/_matrix/client/v1/rooms/{path}");
        let mut asked: Request<_> = request(Method::GET, &path, "");
        let token = format!("Bearer {}", world.alice).parse().unwrap();
        asked.headers_mut().insert(header::AUTHORIZATION, token);
        let answer = world.a.answer(ALL, asked).await;
        (answer.status().as_u16(), super::super::json(&answer))
    };
    let (status, page) = look(&format!("{outer}/hierarchy")).await;
    // Versions since 12 do not name a server in the room's id: nobody knows whom to ask.
    let named = outer.contains(':');
    if named {
        assert_eq!(status, 200, "{page}");
    } else {
        assert_eq!(status, 403, "{page}");
    }
    // A space of our own leads there.
    let own = space("public_chat", "Own", &[&outer, &secret]);
    let (_, own) = ask(
        &world.a,
        Some(&world.alice),
        Method::POST,
        "/createRoom",
        own,
    )
    .await;
    let own = own["room_id"].as_str().unwrap();
    let (status, page) = look(&format!("{own}/hierarchy")).await;
    assert_eq!(status, 200, "{page}");
    let names: Vec<_> = page["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Own", "Outer", "Inner", "Open"]);
    let path = format!("/_matrix/client/v1/room_summary/{open}?via=b.example");
    let answer = world.a.answer(ALL, request(Method::GET, &path, "")).await;
    assert_eq!(super::super::json(&answer)["name"], "Open");
    let answer = world
        .a
        .answer(ALL, request(Method::GET, &path.replace(&open, &closed), ""))
        .await;
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn a_token_proves_to_a_service_who_somebody_is() {
    let world = world().await;
    let path = "/user/@bob:b.example/openid/request_token";
    let (status, token) = ask(&world.b, Some(&world.bob), Method::POST, path, json!({})).await;
    assert_eq!(status, 200, "{token}");
    assert_eq!(token["matrix_server_name"], "b.example");
    assert_eq!(token["token_type"], "Bearer");
    let info = async |token: &str| {
        let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
        let answer = world.b.answer(ALL, request(Method::GET, &path, "")).await;
        (answer.status().as_u16(), super::super::json(&answer))
    };
    let token = token["access_token"].as_str().unwrap();
    assert_eq!(info(token).await, (200, json!({ "sub": "@bob:b.example" })));
    let (status, refused) = info("x").await;
    assert_eq!(
        (status, &refused["errcode"]),
        (401, &json!("M_UNKNOWN_TOKEN"))
    );
    // It is no access token, and nobody makes one for somebody else.
    let (status, _) = ask(
        &world.b,
        Some(token),
        Method::GET,
        "/account/whoami",
        json!({}),
    )
    .await;
    assert_eq!(status, 401);
    let other = "/user/@alice:b.example/openid/request_token";
    let (status, _) = ask(&world.b, Some(&world.bob), Method::POST, other, json!({})).await;
    assert_eq!(status, 403);
    world.clock.advance(std::time::Duration::from_secs(60 * 60));
    assert_eq!(info(token).await.0, 401);
}
