//! The content repository ([spec](https://spec.matrix.org/v1.19/client-server-api/#content-repository)).

use harness::{Server, User, encode};
use reqwest::{Method, Response, header::HeaderMap};
use serde_json::json;

use crate::{CHAPAR, server};

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// One request with a body of any kind.
async fn ask(
    server: &Server,
    user: Option<&User>,
    method: Method,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
) -> Response {
    let url = format!("{}{path}", server.base());
    let mut request = reqwest::Client::new().request(method, url).body(body);
    if !content_type.is_empty() {
        request = request.header("Content-Type", content_type);
    }
    if let Some(user) = user {
        request = request.bearer_auth(&user.token);
    }
    request.send().await.unwrap()
}

/// Uploads a file; what stands behind `mxc://`.
async fn upload(
    server: &Server,
    user: &User,
    name: &str,
    content_type: &str,
    body: &[u8],
) -> String {
    let path = match name {
        "" => UPLOAD.to_owned(),
        name => format!("{UPLOAD}?filename={}", encode(name)),
    };
    let answer = ask(
        server,
        Some(user),
        Method::POST,
        &path,
        content_type,
        body.to_vec(),
    )
    .await;
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    let uri = answer["content_uri"].as_str().unwrap();
    uri.strip_prefix("mxc://").unwrap().to_owned()
}

/// Status, `errcode`, headers and body of a download.
async fn download(
    server: &Server,
    user: Option<&User>,
    path: &str,
) -> (u16, String, HeaderMap, Vec<u8>) {
    let answer = ask(server, user, Method::GET, path, "", Vec::new()).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await.unwrap().to_vec();
    let error: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let errcode = error["errcode"].as_str().unwrap_or_default().to_owned();
    (status, errcode, headers, body)
}

fn at(file: &str) -> String {
    format!("/_matrix/client/v1/media/download/{file}")
}

#[tokio::test]
async fn a_backup_has_the_files() {
    let mut server = server().await;
    let alice = server.user("alice").await;
    let text = b"said once".as_slice();
    let files = [
        (upload(&server, &alice, "", "text/plain", text).await, text),
        (upload(&server, &alice, "", "image/gif", PIXEL).await, PIXEL),
    ];
    let smaller = |file: &str| {
        let path = at(file).replace("download", "thumbnail");
        format!("{path}?width=32&height=32&method=crop")
    };
    let (status, _, _, made) = download(&server, Some(&alice), &smaller(&files[1].0)).await;
    assert_eq!(status, 200);
    let backup = server.folder().join("backup");
    let backed_up = server.command(&["backup", backup.to_str().unwrap()]);
    assert!(backed_up.status.success(), "{backed_up:?}");
    let late = upload(&server, &alice, "", "text/plain", b"too late").await;
    assert!(server.terminate().await.success());
    // Not moved: what is shared with the backup may go.
    std::fs::remove_dir_all(server.folder().join("data")).unwrap();
    let restored = server.command(&["restore", backup.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}");
    server.restart().await;
    for (file, content) in &files {
        let (status, _, _, body) = download(&server, Some(&alice), &at(file)).await;
        assert_eq!((status, body.as_slice()), (200, *content));
    }
    let (status, _, _, again) = download(&server, Some(&alice), &smaller(&files[1].0)).await;
    assert_eq!((status, again), (200, made));
    let (status, errcode, ..) = download(&server, Some(&alice), &at(&late)).await;
    assert_eq!((status, &*errcode), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn a_file_is_given_out_as_it_came() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let file = upload(&server, &alice, "نامه ✉.png", "image/png", &bytes).await;
    let (status, _, headers, body) = download(&server, Some(&bob), &at(&file)).await;
    assert_eq!((status, body), (200, bytes));
    assert_eq!(headers["content-type"], "image/png");
    let name = "inline; filename*=utf-8''%D9%86%D8%A7%D9%85%D9%87%20%E2%9C%89.png";
    assert_eq!(headers["content-disposition"], name);
    assert_eq!(headers["cross-origin-resource-policy"], "cross-origin");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("sandbox; default-src 'none'"),
        "{policy}"
    );
    let (.., headers, _) = download(&server, Some(&bob), &format!("{}/other.png", at(&file))).await;
    assert_eq!(headers["content-disposition"], "inline; filename=other.png");
    // What a browser would run is saved and not shown.
    for kind in ["text/html", "image/svg+xml", "application/javascript"] {
        let file = upload(&server, &alice, "", kind, b"<script>").await;
        let (.., headers, _) = download(&server, Some(&bob), &at(&file)).await;
        assert_eq!(headers["content-disposition"], "attachment", "{kind}");
    }
    // An empty file, and one without a type.
    let file = upload(&server, &alice, "", "", b"").await;
    let (status, _, headers, body) = download(&server, Some(&bob), &at(&file)).await;
    assert_eq!((status, body.len()), (200, 0));
    assert_eq!(headers["content-type"], "application/octet-stream");
}

#[tokio::test]
async fn files_are_for_those_with_an_account() {
    let server = server().await;
    let alice = server.user("alice").await;
    let file = upload(&server, &alice, "", "text/plain", b"secret").await;
    let (status, errcode, ..) = download(&server, None, &at(&file)).await;
    assert_eq!((status, &*errcode), (401, "M_MISSING_TOKEN"));
    let anonymous = ask(
        &server,
        None,
        Method::POST,
        UPLOAD,
        "text/plain",
        b"x".to_vec(),
    )
    .await;
    assert_eq!(anonymous.status(), 401);
    for version in ["v3", "r0"] {
        let old = format!("/_matrix/media/{version}/download/{file}");
        let (status, errcode, ..) = download(&server, None, &old).await;
        assert_eq!((status, &*errcode), (404, "M_NOT_FOUND"), "{version}");
    }
    // Where the operator says so, the old paths answer everybody.
    let open = "[registration]\nenabled = true\nrequire_token = false\n[media]\nallow_unauthenticated = true\n";
    let server = Server::start_with(CHAPAR, open).await;
    let alice = server.user("alice").await;
    let file = upload(&server, &alice, "", "text/plain", b"open").await;
    for version in ["v3", "r0"] {
        let old = format!("/_matrix/media/{version}/download/{file}");
        let (status, _, _, body) = download(&server, None, &old).await;
        assert_eq!((status, &*body), (200, &b"open"[..]), "{version}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = server().await;
    let alice = server.user("alice").await;
    for (nowhere, expected) in [
        ("localhost/nosuch", (404, "M_NOT_FOUND")),
        ("elsewhere.invalid/abc", (502, "M_UNKNOWN")),
    ] {
        let (status, errcode, ..) = download(&server, Some(&alice), &at(nowhere)).await;
        assert_eq!((status, &*errcode), expected, "{nowhere}");
    }
    for wrong in [
        "localhost/..%2F..%2Fetc%2Fpasswd",
        "localhost/%2e%2e",
        "localhost/a%00b",
        "not%20a%20server/x",
    ] {
        let (status, ..) = download(&server, Some(&alice), &at(wrong)).await;
        assert!(status == 400 || status == 404, "{wrong}: {status}");
    }
}

#[tokio::test]
async fn files_have_a_limit() {
    let small = "[registration]\nenabled = true\nrequire_token = false\n[media]\nmax_upload_size = \"2 KiB\"\n";
    let server = Server::start_with(CHAPAR, small).await;
    let alice = server.user("alice").await;
    let config = alice
        .ask(Method::GET, "/_matrix/client/v1/media/config", None)
        .await
        .ok();
    assert_eq!(config, json!({"m.upload.size": 2048}));
    let config = alice
        .ask(Method::GET, "/_matrix/media/v3/config", None)
        .await
        .ok();
    assert_eq!(config, json!({"m.upload.size": 2048}));
    upload(&server, &alice, "", "text/plain", &[b'x'; 2048]).await;
    let large = ask(
        &server,
        Some(&alice),
        Method::POST,
        UPLOAD,
        "text/plain",
        vec![b'x'; 2049],
    )
    .await;
    assert_eq!(large.status(), 413);
    let error: serde_json::Value = large.json().await.unwrap();
    assert_eq!(error["errcode"], "M_TOO_LARGE");
}

#[tokio::test]
async fn an_id_may_come_before_its_file() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let created = alice
        .ask(Method::POST, "/_matrix/media/v1/create", Some(&json!({})))
        .await
        .ok();
    assert!(created["unused_expires_at"].is_u64());
    let file = created["content_uri"]
        .as_str()
        .unwrap()
        .strip_prefix("mxc://")
        .unwrap()
        .to_owned();
    let (status, errcode, ..) =
        download(&server, Some(&bob), &format!("{}?timeout_ms=0", at(&file))).await;
    assert_eq!((status, &*errcode), (504, "M_NOT_YET_UPLOADED"));
    let put = format!("{UPLOAD}/{file}");
    let by_bob = ask(
        &server,
        Some(&bob),
        Method::PUT,
        &put,
        "text/plain",
        b"x".to_vec(),
    )
    .await;
    assert_eq!(by_bob.status(), 403);
    // Who waits gets it as soon as it is there.
    let waiting = tokio::spawn({
        let (base, token, path) = (server.base().to_owned(), bob.token.clone(), at(&file));
        async move {
            let url = format!("{base}{path}?timeout_ms=20000");
            let client = reqwest::Client::new();
            client.get(url).bearer_auth(token).send().await.unwrap()
        }
    });
    let answer = ask(
        &server,
        Some(&alice),
        Method::PUT,
        &put,
        "text/plain",
        b"late".to_vec(),
    )
    .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(waiting.await.unwrap().bytes().await.unwrap(), "late");
    let again = ask(
        &server,
        Some(&alice),
        Method::PUT,
        &put,
        "text/plain",
        b"again".to_vec(),
    )
    .await;
    assert_eq!(again.status(), 409);
    let error: serde_json::Value = again.json().await.unwrap();
    assert_eq!(error["errcode"], "M_CANNOT_OVERWRITE_MEDIA");
    let unknown = ask(
        &server,
        Some(&alice),
        Method::PUT,
        &format!("{UPLOAD}/localhost/nosuch"),
        "",
        b"x".to_vec(),
    )
    .await;
    assert!([403, 404].contains(&unknown.status().as_u16()));
}

/// A GIF of one pixel.
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\x00\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

#[tokio::test]
async fn pictures_have_thumbnails_and_other_files_have_none() {
    let server = server().await;
    let alice = server.user("alice").await;
    let picture = upload(&server, &alice, "", "image/gif", PIXEL).await;
    let text = upload(&server, &alice, "", "text/plain", b"no picture").await;
    let thumbnail =
        |file: &str, query: &str| format!("/_matrix/client/v1/media/thumbnail/{file}?{query}");
    let size = "width=32&height=32&method=scale";
    let (status, _, headers, body) =
        download(&server, Some(&alice), &thumbnail(&picture, size)).await;
    assert_eq!(status, 200);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("image/")
    );
    assert!(!body.is_empty());
    let (status, ..) = download(&server, Some(&alice), &thumbnail(&text, size)).await;
    assert!((400..500).contains(&status), "{status}");
    for wrong in [
        "width=0&height=0",
        "width=x&height=1",
        "height=1",
        "width=32&height=32&method=odd",
    ] {
        let (status, ..) = download(&server, Some(&alice), &thumbnail(&picture, wrong)).await;
        assert!(status < 500, "{wrong}: {status}");
    }
}

#[tokio::test]
async fn what_was_uploaded_survives_a_kill() {
    let mut server = server().await;
    let alice = server.user("alice").await;
    let file = upload(&server, &alice, "", "text/plain", b"kept").await;
    server.kill9();
    server.restart().await;
    let (status, _, _, body) = download(&server, Some(&alice), &at(&file)).await;
    assert_eq!((status, &*body), (200, &b"kept"[..]));
}
