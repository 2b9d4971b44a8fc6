//! What the events on the way of a message cost: reading, hashing, signing, authorising, redacting.
//!
//! `cargo bench -p chapar-pdu --bench event`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use pdu::{
    Draft, Pdu, PublicKey, RoomRules, SigningKey, check_auth, check_content_hash, verify_signatures,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, UInt, UserId, events::StateEventType, server_name,
};
use serde_json::{Value as Json, json, value::to_raw_value};

/// How many people of the room its power levels name.
const LISTED: usize = 50;

struct Room {
    rules: &'static RoomRules,
    key: SigningKey,
    create: Arc<Pdu>,
    state: HashMap<(StateEventType, String), Arc<Pdu>>,
}

impl Room {
    fn new() -> Self {
        let rules = RoomRules::named("12").unwrap();
        let key = SigningKey::from_seed(&[7; 32], "1").unwrap();
        let mut draft = draft(
            "@creator:a",
            "m.room.create",
            Some(""),
            &json!({ "room_version": "12" }),
        );
        draft.room_id = None;
        draft.prev_events.clear();
        let create = Arc::new(draft.sign(rules, &key, server_name!("a")).unwrap());
        let mut room = Self {
            rules,
            key,
            create,
            state: HashMap::new(),
        };
        let users: serde_json::Map<String, Json> = (0..LISTED)
            .map(|n| (format!("@user{n}:example.org"), Json::from(n)))
            .collect();
        room.put(
            "m.room.member",
            "@creator:a",
            &json!({ "membership": "join", "displayname": "Creator" }),
        );
        room.put(
            "m.room.power_levels",
            "",
            &json!({ "users": users, "events": { "m.room.name": 50 } }),
        );
        room
    }

    fn draft(&self, event_type: &str, state_key: Option<&str>, content: &Json) -> Draft {
        let mut draft = draft("@creator:a", event_type, state_key, content);
        draft.room_id = Some(self.create.room_id().to_owned());
        draft.auth_events = self
            .state
            .values()
            .map(|event| event.event_id().to_owned())
            .collect();
        draft
    }

    fn put(&mut self, event_type: &str, state_key: &str, content: &Json) {
        let draft = self.draft(event_type, Some(state_key), content);
        let pdu = draft
            .sign(self.rules, &self.key, server_name!("a"))
            .unwrap();
        self.state
            .insert((event_type.into(), state_key.to_owned()), pdu.into());
    }
}

fn draft(sender: &str, event_type: &str, state_key: Option<&str>, content: &Json) -> Draft {
    Draft {
        room_id: None,
        sender: UserId::parse(sender).unwrap(),
        event_type: event_type.into(),
        state_key: state_key.map(str::to_owned),
        content: to_raw_value(content).unwrap(),
        prev_events: vec![EventId::parse("$acR1l0raoZnm60CBwAVgqbZqoO_mYU81xysh1u7XcJk").unwrap()],
        auth_events: Vec::new(),
        depth: 5,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000_u32)),
        redacts: None,
        reference_hashes: Default::default(),
    }
}

fn events(criterion: &mut Criterion) {
    let room = Room::new();
    let content = json!({ "msgtype": "m.text", "body": "Here is the message, of a usual length.\n".repeat(4) });
    let draft = room.draft("m.room.message", None, &content);
    let made = draft
        .sign(room.rules, &room.key, server_name!("a"))
        .unwrap();
    let public = PublicKey {
        key: room.key.verify_key(),
        valid_until: MilliSecondsSinceUnixEpoch(UInt::MAX),
    };

    criterion.bench_function("draft, hash and sign a message", |b| {
        b.iter(|| {
            black_box(&draft)
                .sign(room.rules, &room.key, server_name!("a"))
                .unwrap()
        });
    });
    criterion.bench_function("sign the same bytes only", |b| {
        b.iter(|| room.key.sign(black_box(made.json())));
    });
    criterion.bench_function("parse a message and name it", |b| {
        b.iter(|| Pdu::parse(black_box(made.json()), room.rules).unwrap());
    });
    criterion.bench_function("make a message of what was stored", |b| {
        b.iter(|| {
            let id = made.event_id().to_owned();
            Pdu::from_stored(id, black_box(made.json()).clone(), room.rules, false).unwrap()
        });
    });
    criterion.bench_function("check the content hash", |b| {
        b.iter(|| check_content_hash(black_box(&made)));
    });
    criterion.bench_function("verify the signature", |b| {
        b.iter(|| verify_signatures(black_box(&made), room.rules, &|_, _| Some(public)).unwrap());
    });
    criterion.bench_function("redact", |b| {
        b.iter(|| black_box(&made).redacted(room.rules).unwrap());
    });
    let find = |event_type: &StateEventType, state_key: &str| {
        room.state
            .get(&(event_type.clone(), state_key.to_owned()))
            .cloned()
    };
    criterion.bench_function("authorise a message", |b| {
        b.iter(|| check_auth(black_box(&made), room.rules, &room.create, find).unwrap());
    });
    let ruma_find = |event_type: &StateEventType, state_key: &str| match event_type {
        StateEventType::RoomCreate => Some(room.create.clone()),
        _ => find(event_type, state_key),
    };
    criterion.bench_function("authorise a message by Ruma's rules", |b| {
        let rules = &room.rules.authorization;
        b.iter(|| {
            ruma::state_res::check_state_dependent_auth_rules(rules, black_box(&made), ruma_find)
                .unwrap();
        });
    });
}

criterion_group!(benches, events);
criterion_main!(benches);
