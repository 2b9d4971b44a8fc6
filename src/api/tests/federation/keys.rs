//! Keys of other servers: of whom they are believed, and events that are checked with them.

use std::time::Duration;

use config::Config;
use federation::{Federation, PduFault};
use pdu::{RoomRules, SignatureError};
use ruma::{MilliSecondsSinceUnixEpoch, ServerName, server_name};
use serde_json::{Value, json, value::RawValue};
use storage::Clock;

use super::Network;
use crate::Server;

fn far_name() -> &'static ServerName {
    server_name!("far.example")
}

async fn world(settings: &str) -> (Network, Clock, Server, Federation) {
    let network = Network::default();
    let clock = Clock::standing_at(1_700_000_000_000);
    let config = Config::from_toml(&format!("[federation]\n{settings}")).unwrap();
    let server = network.server("a.example", &clock, config).await;
    let far = network.peer(far_name().as_str(), &clock).await;
    (network, clock, server, far)
}

fn rules(version: &str) -> &'static RoomRules {
    RoomRules::named(version).unwrap()
}

/// A message of somebody at the far server, at a time, signed by its key of now.
fn event(far: &Federation, rules: &RoomRules, at: MilliSecondsSinceUnixEpoch) -> Box<RawValue> {
    let content = serde_json::value::to_raw_value(&json!({ "body": "hi" })).unwrap();
    let draft = pdu::Draft {
        room_id: Some("!room:far.example".try_into().unwrap()),
        sender: "@x:far.example".try_into().unwrap(),
        event_type: "m.room.message".into(),
        state_key: None,
        content,
        prev_events: vec!["$a:far.example".try_into().unwrap()],
        auth_events: vec!["$b:far.example".try_into().unwrap()],
        depth: 3,
        origin_server_ts: at,
        redacts: None,
        reference_hashes: Default::default(),
    };
    let key = far.signing_keys().current();
    let pdu = draft.sign(rules, &key, far.server_name()).unwrap();
    let json = String::from_utf8(pdu.json().to_vec()).unwrap();
    RawValue::from_string(json).unwrap()
}

async fn check(server: &Server, version: &str, event: &RawValue) -> Result<pdu::Pdu, PduFault> {
    let events = vec![event.to_owned()];
    let mut checked = server
        .federation
        .check_pdus(rules(version), events)
        .await
        .unwrap();
    checked.pop().unwrap()
}

#[tokio::test]
async fn events_are_what_their_server_signed_or_nothing() {
    let (_, clock, server, far) = world("").await;
    let event = event(&far, rules("11"), clock.now());
    let whole = check(&server, "11", &event).await.unwrap();
    assert_eq!(whole.content_bytes(), br#"{"body":"hi"}"#);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_str(event.get()).unwrap();
        change(&mut value);
        serde_json::value::to_raw_value(&value).unwrap()
    };
    // What is not covered by the signature is lost with the event's hash: it counts as redacted.
    let redacted = changed(&|event| event["content"]["body"] = json!("ho"));
    let redacted = check(&server, "11", &redacted).await.unwrap();
    assert_eq!(redacted.content_bytes(), b"{}");
    assert_eq!(redacted.event_id(), whole.event_id());
    let later = changed(&|event| event["depth"] = json!(4));
    let fault = check(&server, "11", &later).await.unwrap_err();
    assert!(matches!(
        fault,
        PduFault::Signature {
            fault: SignatureError::Mismatch(..),
            ..
        }
    ));
    let bare = changed(&|event| event["signatures"] = json!({}));
    let fault = check(&server, "11", &bare).await.unwrap_err();
    assert!(matches!(
        fault,
        PduFault::Signature {
            fault: SignatureError::Missing(_),
            ..
        }
    ));
    let none = changed(&|event| event["depth"] = json!("deep"));
    assert!(matches!(
        check(&server, "11", &none).await,
        Err(PduFault::Form(_))
    ));
}

#[tokio::test]
async fn keys_end_where_the_rooms_version_says_so() {
    let (_, clock, server, far) = world("").await;
    let now = clock.now();
    let before = event(&far, rules("11"), now);
    far.signing_keys().rotate(now).await.unwrap();
    clock.advance(Duration::from_secs(60));
    // An event of the time of the old key, and one that is later than that: only the first is believed.
    assert!(check(&server, "11", &before).await.is_ok());
    let (_, clock, server, far) = world("").await;
    let late = clock.now();
    clock.advance(Duration::from_secs(60));
    let late = MilliSecondsSinceUnixEpoch(late.get() + ruma::uint!(30_000));
    let (new, old) = (
        event(&far, rules("11"), late),
        event(&far, rules("3"), late),
    );
    let ended = MilliSecondsSinceUnixEpoch(late.get() - ruma::uint!(1));
    far.signing_keys().rotate(ended).await.unwrap();
    let fault = check(&server, "11", &new).await.unwrap_err();
    assert!(matches!(
        fault,
        PduFault::Signature {
            fault: SignatureError::Expired(_),
            ..
        }
    ));
    assert!(check(&server, "3", &old).await.is_ok());
}

#[tokio::test]
async fn many_events_of_a_dead_server_are_believed_by_a_notary() {
    let (network, clock, server, far) = world("notaries = [\"notary.example\"]").await;
    let notary = network
        .server("notary.example", &clock, Config::default())
        .await;
    let events: Vec<_> = (0..80_u32)
        .map(|number| {
            let at = MilliSecondsSinceUnixEpoch(clock.now().get() + number.into());
            event(&far, rules("11"), at)
        })
        .collect();
    let check = async |server: &Server| {
        let checked = server.federation.check_pdus(rules("11"), events.clone());
        let checked = checked.await.unwrap();
        checked.iter().filter(|event| event.is_ok()).count()
    };
    assert_eq!(check(&notary).await, 80);
    network.take_away(far_name());
    assert_eq!(check(&server).await, 80);
    let asked = network.asked_of(server_name!("notary.example"));
    let queries = asked.iter().filter(|what| what.contains("/key/v2/query"));
    assert_eq!(queries.count(), 1);
}
