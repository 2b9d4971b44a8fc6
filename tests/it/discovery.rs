//! Versions, capabilities, and what is said to those who ask for what is not there.

use reqwest::Method;
use serde_json::json;

use crate::{list, server};

#[tokio::test]
async fn tells_its_versions_to_anyone() {
    let server = server().await;
    let versions = server
        .ask(Method::GET, "/_matrix/client/versions", None)
        .await
        .ok();
    assert!(
        list(&versions, "versions").iter().any(|v| v == "v1.11"),
        "{versions}"
    );
    assert_eq!(versions["unstable_features"]["org.matrix.msc3391"], true);
}

#[tokio::test]
async fn tells_which_room_versions_there_are() {
    let server = server().await;
    let alice = server.user("alice").await;
    let all = alice.get("/capabilities").await.ok();
    let rooms = &all["capabilities"]["m.room_versions"];
    assert_eq!(rooms["default"], "12");
    for version in 1..=12 {
        assert_eq!(rooms["available"][version.to_string()], "stable");
    }
    let password = &all["capabilities"]["m.change_password"];
    assert_eq!(*password, json!({"enabled": true}));
}

#[tokio::test]
async fn what_is_not_there_is_unrecognized() {
    let server = server().await;
    for path in [
        "/_matrix/client/v3/nothing",
        "/_matrix/nothing",
        "/_matrix/client/v99/sync",
        "/_matrix/client/v3",
    ] {
        server
            .ask(Method::GET, path, None)
            .await
            .refused(404, "M_UNRECOGNIZED");
    }
    let put = server
        .ask(Method::PUT, "/_matrix/client/v3/sync", Some(&json!({})))
        .await;
    put.refused(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let server = server().await;
    let allowed =
        |answer: &harness::Answer| answer.headers.get("access-control-allow-origin").cloned();
    let asked = server
        .ask(Method::OPTIONS, "/_matrix/client/v3/sync", None)
        .await;
    assert!([200, 204].contains(&asked.status), "{asked}");
    assert_eq!(allowed(&asked).unwrap(), "*");
    let methods = asked.headers["access-control-allow-methods"]
        .to_str()
        .unwrap();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    let headers = asked.headers["access-control-allow-headers"]
        .to_str()
        .unwrap()
        .to_lowercase();
    for header in ["x-requested-with", "content-type", "authorization"] {
        assert!(headers.contains(header), "{headers}");
    }
    let refused = server.get("/account/whoami").await;
    assert_eq!(refused.status, 401);
    assert_eq!(allowed(&refused).unwrap(), "*");
    assert_eq!(allowed(&server.get("/login").await).unwrap(), "*");
}
