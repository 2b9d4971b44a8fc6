//! What devices do for encryption while the server is killed: they upload one-time keys, claim those of
//! others, and send each other messages.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use harness::{Server, User};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::ask;

/// How many claim keys of the same device.
const CLAIMERS: usize = 3;

/// Devices at work.
pub(crate) struct Encryption {
    uploader: JoinHandle<()>,
    claimers: Vec<JoinHandle<Vec<String>>>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<u64>>,
}

/// Lets devices work until it is over.
pub(crate) async fn begin(server: &Server, over: &Arc<AtomicBool>) -> Encryption {
    let (carol, dave) = (server.user("carol").await, server.user("dave").await);
    let claimers = (0..CLAIMERS)
        .map(|_| tokio::spawn(claim(dave.clone(), carol.clone(), Arc::clone(over))))
        .collect();
    Encryption {
        uploader: tokio::spawn(upload(carol.clone(), Arc::clone(over))),
        claimers,
        sender: tokio::spawn(send(carol, dave.clone(), Arc::clone(over))),
        receiver: tokio::spawn(receive(dave)),
    }
}

impl Encryption {
    /// Checks what they saw.
    pub(crate) async fn check(self) {
        self.uploader.await.unwrap();
        let mut claimed = Vec::new();
        for claimer in self.claimers {
            claimed.extend(claimer.await.unwrap());
        }
        let different: BTreeSet<_> = claimed.iter().collect();
        assert!(!claimed.is_empty());
        assert_eq!(different.len(), claimed.len(), "a key was given out twice");
        let sent = self.sender.await.unwrap();
        let received = self.receiver.await.unwrap();
        assert_eq!(received, (0..=sent).collect::<Vec<_>>());
    }
}

/// Uploads more keys as long as there are few.
async fn upload(user: User, over: Arc<AtomicBool>) {
    let mut next = 0;
    while !over.load(Ordering::Relaxed) {
        let keys: serde_json::Map<_, _> = (next..next + 10)
            .map(|name| {
                let key = json!({"key": format!("key {name}"), "signatures": {}});
                (format!("signed_curve25519:{name:06}"), key)
            })
            .collect();
        let body = json!({"one_time_keys": keys});
        let answer = ask(&user, &Method::POST, "/keys/upload", Some(&body)).await;
        next += 10;
        let mut left = answer["one_time_key_counts"]["signed_curve25519"].clone();
        while left.as_u64().is_some_and(|left| left > 100) && !over.load(Ordering::Relaxed) {
            let answer = ask(&user, &Method::POST, "/keys/upload", Some(&json!({}))).await;
            left = answer["one_time_key_counts"]["signed_curve25519"].clone();
        }
    }
}

/// Claims one key after the other; the ids of those that it got.
async fn claim(user: User, of: User, over: Arc<AtomicBool>) -> Vec<String> {
    let mut claimed = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let body = json!({"one_time_keys": {&of.id: {&of.device: "signed_curve25519"}}});
        let answer = ask(&user, &Method::POST, "/keys/claim", Some(&body)).await;
        let keys = &answer["one_time_keys"][&of.id][&of.device];
        claimed.extend(
            keys.as_object()
                .into_iter()
                .flatten()
                .map(|(id, _)| id.clone()),
        );
    }
    claimed
}

/// Sends numbers to a device, those not answered again under their transaction id; the last one.
async fn send(user: User, to: User, over: Arc<AtomicBool>) -> u64 {
    let mut number: u64 = 0;
    loop {
        let last = over.load(Ordering::Relaxed);
        let path = format!("/sendToDevice/org.example.number/{number}");
        let content = json!({"number": number, "last": last});
        let body = json!({"messages": {&to.id: {&to.device: content}}});
        ask(&user, &Method::PUT, &path, Some(&body)).await;
        if last {
            return number;
        }
        number += 1;
    }
}

/// Receives numbers up to the last one.
async fn receive(user: User) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut since = String::new();
    loop {
        let path = format!("/sync?timeout=2000{since}");
        let answer = ask(&user, &Method::GET, &path, None).await;
        let events = answer["to_device"]["events"].as_array();
        let contents: Vec<&Value> = events
            .into_iter()
            .flatten()
            .map(|event| &event["content"])
            .collect();
        numbers.extend(contents.iter().map(|c| c["number"].as_u64().unwrap()));
        if contents.iter().any(|content| content["last"] == true) {
            return numbers;
        }
        since = format!("&since={}", answer["next_batch"].as_str().unwrap());
    }
}
