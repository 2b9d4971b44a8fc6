//! Files of other servers.

use std::time::Duration;

use bytes::Bytes;
use config::Config;
use http::{Method, Response, header};
use http_body_util::BodyExt as _;
use ruma::{ServerName, server_name};
use serde_json::{Value, json};
use storage::Clock;
use tempfile::TempDir;

use super::Network;
use crate::{
    Server,
    tests::{ALL, request},
};

struct World {
    network: Network,
    a: Server,
    b: Server,
    /// A token of somebody at each.
    alice: String,
    bob: String,
    _folders: [TempDir; 2],
}

async fn world() -> World {
    let network = Network::default();
    let clock = Clock::standing_at(1_700_000_000_000);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = |folder: &TempDir| {
        let mut config = Config::default();
        config.registration.enabled = true;
        config.registration.require_token = false;
        config.rate_limits.enabled = false;
        config.storage.data = folder.path().to_owned();
        config
    };
    let a = network
        .server("a.example", &clock, config(&folders[0]))
        .await;
    let mut open = config(&folders[1]);
    open.media.allow_unauthenticated = true;
    let b = network.server("b.example", &clock, open).await;
    let (alice, bob) = (register(&a).await, register(&b).await);
    World {
        network,
        a,
        b,
        alice,
        bob,
        _folders: folders,
    }
}

async fn register(server: &Server) -> String {
    let auth = json!({ "type": "m.login.dummy" });
    let body = json!({ "username": "somebody", "password": "correct horse", "auth": auth });
    let path = "/_matrix/client/v3/register";
    let answer = server
        .answer(ALL, request(Method::POST, path, body.to_string()))
        .await;
    super::super::json(&answer)["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What a server answers to somebody: the head, and the body.
async fn ask(
    server: &Server,
    token: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Response<Bytes> {
    let mut asked = request(method, path, body);
    let token = format!("Bearer {token}").parse().unwrap();
    asked.headers_mut().insert(header::AUTHORIZATION, token);
    asked
        .headers_mut()
        .insert(header::CONTENT_TYPE, "image/png".parse().unwrap());
    let (head, body) = server.answer(ALL, asked).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, body)
}

async fn upload(world: &World, name: &str, file: &[u8]) -> String {
    let path = format!("/_matrix/media/v3/upload{name}");
    let file = Bytes::copy_from_slice(file);
    let answer = ask(&world.b, &world.bob, Method::POST, &path, file).await;
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    let uri = answer["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

async fn download(world: &World, file: &str) -> Response<Bytes> {
    let path = format!("/_matrix/client/v1/media/download/{file}");
    ask(&world.a, &world.alice, Method::GET, &path, Bytes::new()).await
}

fn of_media(world: &World, server: &ServerName) -> usize {
    let asked = world.network.asked_of(server);
    asked.iter().filter(|what| what.contains("/media/")).count()
}

#[tokio::test]
async fn files_of_other_servers_are_fetched_once_whatever_they_are_called() {
    let world = world().await;
    let b = server_name!("b.example");
    let long = vec![7; 300_000];
    for (name, disposition, file) in [
        ("", "inline", &b"nameless"[..]),
        (
            "?filename=cat.png",
            "inline; filename=cat.png",
            b"\r\n--a\r\n",
        ),
        (
            "?filename=%F0%9F%90%94",
            "inline; filename*=utf-8''%F0%9F%90%94",
            &long,
        ),
        ("?filename=empty", "inline; filename=empty", b""),
    ] {
        let uri = upload(&world, name, file).await;
        let before = of_media(&world, b);
        for _ in 0..2 {
            let answer = download(&world, &uri).await;
            assert_eq!(answer.status(), 200, "{answer:?}");
            assert_eq!(answer.body(), file);
            assert_eq!(answer.headers()["content-type"], "image/png");
            assert_eq!(answer.headers()["content-disposition"], disposition);
        }
        assert_eq!(of_media(&world, b), before + 1, "it is kept");
    }
    let none = download(&world, "b.example/nothing").await;
    assert_eq!(none.status(), 404);
    let gone = download(&world, "gone.example/nothing").await;
    assert_eq!(gone.status(), 502);
}

#[tokio::test]
async fn who_asks_at_the_same_time_waits_for_the_same_file() {
    let world = world().await;
    let uri = upload(&world, "", b"file").await;
    let (one, two) = tokio::join!(download(&world, &uri), download(&world, &uri));
    assert_eq!((one.body(), two.body()), (&Bytes::from("file"), one.body()));
    assert_eq!(of_media(&world, server_name!("b.example")), 1);
}

#[tokio::test]
async fn servers_that_do_not_know_the_new_path_are_asked_by_the_old_one() {
    let world = world().await;
    let old = server_name!("old.example");
    for (status, body, found) in [
        (404, r#"{"errcode":"M_UNRECOGNIZED","error":"no"}"#, true),
        (404, "", true),
        (400, "", true),
        (404, r#"{"errcode":"M_NOT_FOUND","error":"no"}"#, false),
        (403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#, false),
    ] {
        world.network.play(old, move |request| {
            let answer = Response::builder();
            let answer = if request
                .uri()
                .path()
                .starts_with("/_matrix/media/v3/download/")
            {
                assert!(
                    request
                        .uri()
                        .query()
                        .unwrap()
                        .contains("allow_remote=false")
                );
                let answer = answer.header("content-type", "text/plain");
                let name = "attachment; filename=old.txt";
                answer
                    .header("content-disposition", name)
                    .body(Bytes::from("old"))
            } else {
                answer.status(status).body(Bytes::from(body))
            };
            answer.unwrap()
        });
        let answer = download(&world, &format!("old.example/id{status}{}", body.len())).await;
        if !found {
            assert!(answer.status().is_client_error() || answer.status() == 502);
            continue;
        }
        assert_eq!(answer.status(), 200, "{status} {body}");
        assert_eq!(&answer.body()[..], b"old");
        assert_eq!(answer.headers()["content-type"], "text/plain");
        let disposition = &answer.headers()["content-disposition"];
        assert_eq!(disposition, "inline; filename=old.txt");
    }
}

/// A file that its server answers in parts.
fn in_parts(file: &[u8]) -> Response<Bytes> {
    let body = [&b"--a\r\n\r\n{}\r\n--a\r\n\r\n"[..], file, b"\r\n--a--"].concat();
    let answer = Response::builder().header("content-type", "multipart/mixed; boundary=a");
    answer.body(body.into()).unwrap()
}

#[tokio::test]
async fn servers_that_never_answer_hold_up_nobody_else() {
    let world = std::sync::Arc::new(world().await);
    let uri = upload(&world, "", b"file").await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..12 {
        let server = ServerName::parse(format!("tar{number}.example")).unwrap();
        world.network.hush(&server);
        for file in 0..3 {
            let (world, server) = (std::sync::Arc::clone(&world), server.clone());
            waiting.spawn(async move { download(&world, &format!("{server}/{file}")).await });
        }
    }
    let asked = || -> usize {
        let servers = (0..12).map(|number| ServerName::parse(format!("tar{number}.example")));
        let of = servers.map(|server| of_media(&world, &server.unwrap()));
        of.sum()
    };
    while asked() < 24 {
        tokio::task::yield_now().await;
    }
    let soon = Duration::from_secs(20);
    let answer = tokio::time::timeout(soon, download(&world, &uri)).await;
    assert_eq!(answer.expect("it waits behind others").body(), "file");
    assert_eq!(asked(), 24, "two of each at a time");
    assert!(waiting.try_join_next().is_none());
}

#[tokio::test]
async fn more_than_so_many_do_not_wait_for_one_server() {
    let world = std::sync::Arc::new(world().await);
    let server = server_name!("tar.example");
    world.network.hush(server);
    let mut waiting = tokio::task::JoinSet::new();
    for file in 0..101 {
        let world = std::sync::Arc::clone(&world);
        waiting.spawn(async move { download(&world, &format!("tar.example/{file}")).await });
    }
    let refused = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(waiting.len(), 100);
}

#[tokio::test]
async fn a_large_file_is_fetched_in_a_second_go() {
    let world = world().await;
    let server = server_name!("large.example");
    let file = vec![b'x'; 10 << 20];
    let told = file.clone();
    world.network.play(server, move |_| in_parts(&told));
    let answer = download(&world, "large.example/id").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.body() == &file[..]);
    assert_eq!(of_media(&world, server), 2);
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_says_nothing_against_its_server() {
    let world = world().await;
    let server = server_name!("slow.example");
    let not_yet = r#"{"errcode":"M_NOT_YET_UPLOADED","error":"Not yet"}"#;
    let unwell = r#"{"errcode":"M_UNKNOWN","error":"Internal server error"}"#;
    for (number, (status, body, told, left_alone)) in [
        (504, not_yet, 504, false),
        (
            502,
            r#"{"errcode":"M_TOO_LARGE","error":"Too large"}"#,
            413,
            false,
        ),
        (500, unwell, 502, true),
    ]
    .into_iter()
    .enumerate()
    {
        world.network.play(server, move |_| {
            let answer = Response::builder().status(status);
            answer.body(Bytes::from(body)).unwrap()
        });
        let answer = download(&world, &format!("slow.example/{number}")).await;
        assert_eq!(answer.status(), told, "{body}");
        let until = world.a.federation.backing_off(server);
        assert_eq!(until.is_some(), left_alone, "{body}");
    }
}

#[tokio::test]
async fn what_is_no_file_or_too_much_of_one_is_not_kept() {
    let world = world().await;
    let bad = server_name!("bad.example");
    let large = vec![b'x'; 60 << 20];
    for (number, (kind, body)) in [
        ("text/plain", &b"no parts"[..]),
        ("multipart/mixed", b"--a\r\n"),
        ("multipart/mixed; boundary=a", b""),
        ("multipart/mixed; boundary=a", b"--a\r\n\r\n{}\r\n--a"),
        (
            "multipart/mixed; boundary=a",
            b"--a\r\n\r\n{}\r\n--a\r\nX: \xff\r\n",
        ),
        (
            "multipart/mixed; boundary=a",
            b"--a\r\n\r\nno\r\n--a\r\n\r\nfile\r\n--a--",
        ),
        ("multipart/mixed; boundary=a", &large),
    ]
    .into_iter()
    .enumerate()
    {
        let body = Bytes::copy_from_slice(body);
        world.network.play(bad, move |_| {
            let answer = Response::builder().header("content-type", kind);
            answer.body(body.clone()).unwrap()
        });
        let answer = download(&world, &format!("bad.example/{number}")).await;
        assert_eq!(answer.status(), 502, "{number}");
    }
}

#[tokio::test]
async fn thumbnails_are_made_here_and_by_whoever_has_the_file() {
    let world = world().await;
    let mut png = std::io::Cursor::new(Vec::new());
    let picture = image::DynamicImage::new_rgb8(200, 200);
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let uri = upload(&world, "", png.get_ref()).await;
    let path = format!("/_matrix/client/v1/media/thumbnail/{uri}?width=32&height=32&method=crop");
    let answer = ask(&world.a, &world.alice, Method::GET, &path, Bytes::new()).await;
    assert_eq!(answer.status(), 200);
    let small = image::load_from_memory(answer.body()).unwrap();
    assert_eq!((small.width(), small.height()), (32, 32));
    let id = uri.strip_prefix("b.example/").unwrap();
    let mut question =
        ruma::api::federation::authenticated_media::get_content_thumbnail::v1::Request::new(
            id.to_owned(),
            ruma::uint!(32),
            ruma::uint!(32),
        );
    question.timeout_ms = Duration::ZERO;
    let to = server_name!("b.example");
    let patience = federation::Patience::QUERY;
    let answer = world
        .a
        .federation
        .ask(to, question, patience)
        .await
        .unwrap();
    let ruma::api::federation::authenticated_media::FileOrLocation::File(file) = answer.content
    else {
        panic!("no file");
    };
    assert!(image::load_from_memory(&file.file).unwrap().width() <= 32);
}

#[tokio::test]
async fn the_old_path_gives_out_what_is_here_only_where_others_must_not_be_asked() {
    let world = world().await;
    let uri = upload(&world, "", b"file").await;
    let get = async |file: &str| {
        let path = format!("/_matrix/media/v3/download/{file}?allow_remote=false");
        let answer = world.b.answer(ALL, request(Method::GET, &path, "")).await;
        answer.status().as_u16()
    };
    assert_eq!(get(&uri).await, 200);
    assert_eq!(get("a.example/id").await, 404);
    assert_eq!(of_media(&world, server_name!("a.example")), 0);
}
