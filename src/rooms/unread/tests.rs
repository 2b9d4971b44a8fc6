//! Unread counts against a naive count by Ruma's evaluation of push rules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use ruma::{
    OwnedEventId, OwnedUserId, RoomVersionId,
    events::{AnySyncTimelineEvent, receipt::ReceiptThread},
    push::{
        Action, NewPatternedPushRule, NewPushRule, NewSimplePushRule, PushConditionPowerLevelsCtx,
        PushConditionRoomCtx, RuleKind, Ruleset,
    },
    serde::Raw,
    uint,
};
use serde_json::{Value, json, value::to_raw_value};
use storage::{
    Batch, NameHash, ShortRoomId, ShortUserId, Storage,
    schema::{self, AccountDataRow, ReceiptKind},
};

use super::{Count, UNREAD_SCAN, Unread};
use crate::{
    Draft, Group, NewReceipt, ReadUpTo, Room, Rooms, Viewer,
    tests::{alice, public_room, rooms, state},
};

/// A person of this server.
pub(crate) async fn person(rooms: &Rooms, name: &str) -> Viewer {
    let user_id: OwnedUserId = format!("@{name}:example.org").try_into().unwrap();
    let mut short = [0; 8];
    short[..name.len()].copy_from_slice(name.as_bytes());
    let viewer = Viewer {
        short: ShortUserId(short),
        device: NameHash::NONE,
        user_id,
    };
    let mut batch = Batch::new();
    let hash = rooms.storage().user_hash(&viewer.user_id);
    batch.put(&schema::USER_BY_NAME, &hash, &viewer.short);
    rooms.storage().commit(batch).await.unwrap();
    viewer
}

/// A room that these people are in, and Alice, who made it.
pub(crate) async fn room_of(
    rooms: &Rooms,
    version: &RoomVersionId,
    people: &[&Viewer],
) -> Arc<Room> {
    let room_id = public_room(rooms, version).await;
    let room = rooms.room(&room_id).await.unwrap();
    for person in people {
        let user = &person.user_id;
        let join = state(
            user,
            "m.room.member",
            user.as_str(),
            json!({ "membership": "join" }),
        );
        rooms.send(&room, Group::one(join)).await.unwrap();
    }
    room
}

/// Sends an event that is no state.
pub(crate) async fn send(
    rooms: &Rooms,
    room: &Arc<Room>,
    sender: &OwnedUserId,
    event_type: &str,
    content: &Value,
) -> OwnedEventId {
    let content = to_raw_value(content).unwrap();
    let draft = Draft::message(sender.clone(), event_type, content);
    rooms.send(room, Group::one(draft)).await.unwrap().remove(0)
}

async fn set_account_data(rooms: &Rooms, viewer: &Viewer, event_type: &str, content: &Value) {
    let row = AccountDataRow {
        event_type: event_type.to_owned(),
        json: content.to_string(),
    };
    let key = (
        viewer.short,
        ShortRoomId::NONE,
        rooms.storage().type_hash(event_type),
    );
    let mut batch = Batch::new();
    batch.put_stamped(&schema::ACCOUNT_DATA_BY_USER, &key, 0, row);
    rooms.storage().commit(batch).await.unwrap();
}

async fn unread(rooms: &Rooms, viewer: &Viewer, room: &Arc<Room>) -> Unread {
    let snapshot = rooms.snapshot().await.unwrap();
    let one = [Arc::clone(room)];
    rooms
        .unread(&snapshot, viewer, &one)
        .await
        .unwrap()
        .remove(0)
}

/// What Bob changed of his rules.
#[derive(Clone, Copy, Debug)]
enum Rules {
    Default,
    MutedRoom,
    MentionsOnly,
    Loud,
    Keyword,
    NoMessages,
    NoRoomMentions,
    IgnoresCarol,
    AllOff,
}

impl Rules {
    fn ruleset(self, bob: &OwnedUserId, room: &Room) -> Ruleset {
        let mut rules = users::default_rules(bob);
        let room_rule =
            |actions| NewPushRule::Room(NewSimplePushRule::new(room.room_id.clone(), actions));
        let (over, under) = (RuleKind::Override, RuleKind::Underride);
        match self {
            Self::Default | Self::IgnoresCarol => {}
            Self::MutedRoom => {
                let condition = json!({
                    "kind": "event_match", "key": "room_id", "pattern": room.room_id,
                });
                let condition = serde_json::from_value(condition).unwrap();
                let rule = ruma::push::NewConditionalPushRule::new(
                    "mute".to_owned(),
                    vec![condition],
                    vec![],
                );
                rules
                    .insert(NewPushRule::Override(rule), None, None)
                    .unwrap();
            }
            Self::MentionsOnly => rules.insert(room_rule(vec![]), None, None).unwrap(),
            Self::Loud => rules
                .insert(room_rule(vec![Action::Notify]), None, None)
                .unwrap(),
            Self::Keyword => {
                let actions =
                    serde_json::from_value(json!(["notify", { "set_tweak": "highlight" }]));
                let rule = NewPatternedPushRule::new(
                    "word".to_owned(),
                    "word".to_owned(),
                    actions.unwrap(),
                );
                rules
                    .insert(NewPushRule::Content(rule), None, None)
                    .unwrap();
            }
            Self::NoMessages => rules.set_enabled(under, ".m.rule.message", false).unwrap(),
            Self::NoRoomMentions => {
                rules
                    .set_enabled(over, ".m.rule.is_room_mention", false)
                    .unwrap();
            }
            Self::AllOff => rules.set_enabled(over, ".m.rule.master", true).unwrap(),
        }
        rules
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Send {
        sender: usize,
        kind: u8,
        mention: u8,
        /// Which earlier event it relates to, and how.
        relation: Option<(prop::sample::Index, u8)>,
    },
    Receipt {
        event: prop::sample::Index,
        private: bool,
        thread: u8,
    },
    /// Alice redacts something.
    Redact(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let relation = prop::option::of((any::<prop::sample::Index>(), 0..4u8));
    let send =
        (0..3usize, 0..11u8, 0..5u8, relation).prop_map(|(sender, kind, mention, relation)| {
            Step::Send {
                sender,
                kind,
                mention,
                relation,
            }
        });
    let receipt = (any::<prop::sample::Index>(), any::<bool>(), 0..3u8);
    let receipt = receipt.prop_map(|(event, private, thread)| Step::Receipt {
        event,
        private,
        thread,
    });
    let redact = any::<prop::sample::Index>().prop_map(Step::Redact);
    prop_oneof![8 => send, 2 => receipt, 1 => redact]
}

fn a_rule_set() -> impl Strategy<Value = Rules> {
    prop_oneof![
        4 => Just(Rules::Default),
        1 => Just(Rules::MutedRoom),
        2 => Just(Rules::MentionsOnly),
        1 => Just(Rules::Loud),
        2 => Just(Rules::Keyword),
        1 => Just(Rules::NoMessages),
        1 => Just(Rules::NoRoomMentions),
        1 => Just(Rules::IgnoresCarol),
        1 => Just(Rules::AllOff),
    ]
}

/// An event as the naive count knows it.
struct Known {
    event_id: OwnedEventId,
    sender: OwnedUserId,
    json: Value,
    /// The root of its thread.
    thread: Option<usize>,
    /// What it relates to.
    parent: Option<usize>,
    redacted: bool,
}

/// Everything there is, and up to where Bob has read it: all, the main timeline, threads.
#[derive(Default)]
struct Naive {
    events: Vec<Known>,
    all: Option<usize>,
    scopes: BTreeMap<Option<usize>, usize>,
}

impl Naive {
    fn is_read(&self, index: usize) -> bool {
        let scope = self.scopes.get(&self.events[index].thread);
        self.all.is_some_and(|all| all >= index) || scope.is_some_and(|read| *read >= index)
    }

    fn read_scope(&mut self, scope: Option<usize>, index: usize) {
        let read = self.scopes.entry(scope).or_insert(index);
        *read = index.max(*read);
    }

    async fn unread(
        &self,
        rules: &Ruleset,
        context: &PushConditionRoomCtx,
        ignored: &str,
    ) -> Unread {
        let mut unread = Unread::default();
        for (index, event) in self.events.iter().enumerate() {
            if self.is_read(index) || event.redacted || event.sender == ignored {
                continue;
            }
            let raw = Raw::<AnySyncTimelineEvent>::from_json(to_raw_value(&event.json).unwrap());
            let actions = rules.get_actions(&raw, context).await;
            if !actions.iter().any(Action::should_notify) {
                continue;
            }
            let count = Count {
                notifications: 1,
                highlights: u64::from(actions.iter().any(Action::is_highlight)),
            };
            let thread = event.thread.map(|root| self.events[root].event_id.clone());
            match thread {
                Some(root) => unread.threads.entry(root).or_default().add(count),
                None => unread.main.add(count),
            }
        }
        unread
    }
}

fn content_of(
    kind: u8,
    mention: u8,
    bob: &OwnedUserId,
) -> (&'static str, Option<&'static str>, Value) {
    let (event_type, state_key, mut content) = match kind {
        0 | 1 => (
            "m.room.message",
            None,
            json!({ "msgtype": "m.text", "body": "hi" }),
        ),
        2 => (
            "m.room.message",
            None,
            json!({ "msgtype": "m.text", "body": "a word!" }),
        ),
        3 => (
            "m.room.message",
            None,
            json!({ "msgtype": "m.notice", "body": "hi" }),
        ),
        4 => (
            "m.room.encrypted",
            None,
            json!({ "algorithm": "m.megolm.v1.aes-sha2" }),
        ),
        5 => ("m.reaction", None, json!({})),
        6 => ("m.call.invite", None, json!({ "call_id": "1" })),
        7 => ("org.matrix.msc3381.poll.start", None, json!({})),
        8 => ("org.matrix.msc3381.poll.response", None, json!({})),
        9 => ("org.matrix.msc3381.poll.end", None, json!({})),
        _ => ("org.example.state", Some(""), json!({ "n": 1 })),
    };
    match mention {
        0 => content["m.mentions"] = json!({ "user_ids": [bob] }),
        1 => content["m.mentions"] = json!({ "room": true }),
        2 => content["m.mentions"] = json!({ "room": true, "user_ids": [bob] }),
        _ => {}
    }
    (event_type, state_key, content)
}

async fn send_step(
    rooms: &Rooms,
    room: &Arc<Room>,
    naive: &mut Naive,
    sender: &OwnedUserId,
    bob: &Viewer,
    step: (u8, u8, Option<(prop::sample::Index, u8)>),
) {
    let (kind, mention, relation) = step;
    // Only Alice may change the room's state.
    let kind = if *sender == alice() {
        kind
    } else {
        kind.min(9)
    };
    let (event_type, state_key, mut content) = content_of(kind, mention, &bob.user_id);
    content["n"] = json!(naive.events.len());
    let (mut thread, mut parent) = (None, None);
    if let Some((target, how)) = relation
        && !naive.events.is_empty()
    {
        let target = target.index(naive.events.len());
        let rel_type = ["m.thread", "m.thread", "m.replace", "m.reference"][usize::from(how)];
        let event_id = &naive.events[target].event_id;
        content["m.relates_to"] = json!({ "rel_type": rel_type, "event_id": event_id });
        thread = if rel_type == "m.thread" {
            Some(target)
        } else {
            naive.events[target].thread
        };
        parent = Some(target);
    }
    let draft = Draft {
        state_key: state_key.map(ToOwned::to_owned),
        ..Draft::message(sender.clone(), event_type, to_raw_value(&content).unwrap())
    };
    let event_id = rooms.send(room, Group::one(draft)).await.unwrap().remove(0);
    let mut json = json!({ "type": event_type, "sender": sender, "content": content });
    if let Some(state_key) = state_key {
        json["state_key"] = json!(state_key);
    }
    let index = naive.events.len();
    naive.events.push(Known {
        event_id,
        sender: sender.clone(),
        json,
        thread,
        parent,
        redacted: false,
    });
    if *sender == bob.user_id {
        naive.read_scope(thread, index);
    }
}

async fn receipt_step(
    rooms: &Rooms,
    room: &Arc<Room>,
    naive: &mut Naive,
    bob: &Viewer,
    (event, private, thread): (prop::sample::Index, bool, u8),
) {
    if naive.events.is_empty() {
        return;
    }
    let index = event.index(naive.events.len());
    let known = &naive.events[index];
    let root = known.thread.unwrap_or(index);
    let root_id = naive.events[root].event_id.clone();
    let has_thread = |root: usize| {
        naive.events.iter().any(|event| {
            event.parent == Some(root)
                && !event.redacted
                && event.json["content"]["m.relates_to"]["rel_type"] == "m.thread"
        })
    };
    let (thread, valid) = match thread {
        0 => (ReceiptThread::Unthreaded, true),
        1 => (ReceiptThread::Main, known.thread.is_none()),
        _ => (
            ReceiptThread::Thread(root_id),
            known.thread.is_some() || has_thread(root),
        ),
    };
    let kind = if private {
        ReceiptKind::ReadPrivate
    } else {
        ReceiptKind::Read
    };
    let wish = ReadUpTo {
        receipts: vec![NewReceipt {
            kind,
            event_id: known.event_id.clone(),
            thread: thread.clone(),
        }],
        fully_read: None,
    };
    let answer = rooms.read_up_to(room, bob, &wish).await;
    assert_eq!(answer.is_ok(), valid, "{answer:?}");
    match thread {
        _ if !valid => {}
        ReceiptThread::Unthreaded => naive.all = naive.all.max(Some(index)),
        ReceiptThread::Main => naive.read_scope(None, index),
        _ => naive.read_scope(Some(root), index),
    }
}

async fn redact_step(
    rooms: &Rooms,
    room: &Arc<Room>,
    naive: &mut Naive,
    event: prop::sample::Index,
) {
    if naive.events.is_empty() {
        return;
    }
    let index = event.index(naive.events.len());
    let content = json!({ "redacts": naive.events[index].event_id, "n": naive.events.len() });
    let draft = Draft {
        redacts: Some(naive.events[index].event_id.clone()),
        ..Draft::message(alice(), "m.room.redaction", to_raw_value(&content).unwrap())
    };
    let event_id = rooms.send(room, Group::one(draft)).await.unwrap().remove(0);
    naive.events[index].redacted = true;
    naive.events.push(Known {
        event_id,
        sender: alice(),
        json: json!({ "type": "m.room.redaction", "sender": alice(), "content": content }),
        thread: None,
        parent: None,
        redacted: false,
    });
}

/// Everything that can happen, each step compared with the naive count.
async fn run(storage: Storage, version: RoomVersionId, rules: Rules, steps: Vec<Step>) {
    let rooms = rooms(storage);
    let (bob, carol) = (person(&rooms, "bob").await, person(&rooms, "carol").await);
    person(&rooms, "alice").await;
    let room = room_of(&rooms, &version, &[&bob, &carol]).await;
    let ruleset = rules.ruleset(&bob.user_id, &room);
    if !matches!(rules, Rules::Default) {
        let content = json!({ "global": ruleset });
        set_account_data(&rooms, &bob, users::PUSH_RULES, &content).await;
    }
    let mut ignored = "";
    if matches!(rules, Rules::IgnoresCarol) {
        ignored = carol.user_id.as_str();
        let content = json!({ "ignored_users": { ignored: {} } });
        set_account_data(&rooms, &bob, "m.ignored_user_list", &content).await;
    }
    let auth = version.rules().unwrap().authorization;
    let creators = ruma::events::room::power_levels::RoomPowerLevels::new(
        Option::<ruma::events::room::power_levels::RoomPowerLevelsEventContent>::None.into(),
        &auth,
        [alice()],
    );
    let users = if auth.explicitly_privilege_room_creators {
        BTreeMap::new()
    } else {
        BTreeMap::from([(alice(), ruma::int!(100))])
    };
    let levels = PushConditionPowerLevelsCtx::new(
        users,
        ruma::int!(0),
        creators.notifications,
        creators.rules,
    );
    let context = PushConditionRoomCtx::new(
        room.room_id.clone(),
        uint!(3),
        bob.user_id.clone(),
        "bob".to_owned(),
    )
    .with_power_levels(levels);
    let people = [alice(), bob.user_id.clone(), carol.user_id.clone()];
    let mut naive = Naive::default();
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Step::Send {
                sender,
                kind,
                mention,
                relation,
            } => {
                let sender = &people[sender];
                let what = (kind, mention, relation);
                send_step(&rooms, &room, &mut naive, sender, &bob, what).await;
            }
            Step::Receipt {
                event,
                private,
                thread,
            } => {
                let what = (event, private, thread);
                receipt_step(&rooms, &room, &mut naive, &bob, what).await;
            }
            Step::Redact(event) => redact_step(&rooms, &room, &mut naive, event).await,
        }
        // Not after each step: what was not counted for a while is counted together.
        if at % 3 == 0 {
            let expected = naive.unread(&ruleset, &context, ignored).await;
            assert_eq!(
                unread(&rooms, &bob, &room).await,
                expected,
                "after step {at}"
            );
        }
    }
    let expected = naive.unread(&ruleset, &context, ignored).await;
    assert_eq!(unread(&rooms, &bob, &room).await, expected);
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future);
}

fn version() -> impl Strategy<Value = RoomVersionId> {
    prop_oneof![Just(RoomVersionId::V11), Just(RoomVersionId::V12)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn counts_are_those_of_push_rules(
        version in version(),
        rules in a_rule_set(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        block_on(run(Storage::model(), version, rules, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn counts_are_those_of_push_rules_on_rocksdb(
        version in version(),
        rules in a_rule_set(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let options = storage::Options {
            block_cache: 1 << 20,
            memory_budget: 16 << 20,
            ..storage::Options::default()
        };
        let storage = Storage::open(folder.path().join("db"), &options).unwrap();
        block_on(run(storage, version, rules, steps));
    }
}

#[tokio::test]
async fn what_is_too_much_for_one_look_is_counted_in_the_background() {
    let rooms = rooms(Storage::model());
    let bob = person(&rooms, "bob").await;
    person(&rooms, "alice").await;
    let room = room_of(&rooms, &RoomVersionId::V11, &[&bob]).await;
    let ruleset = Rules::Loud.ruleset(&bob.user_id, &room);
    set_account_data(
        &rooms,
        &bob,
        users::PUSH_RULES,
        &json!({ "global": ruleset }),
    )
    .await;
    let sent = UNREAD_SCAN + 500;
    for chunk in 0..3 {
        let drafts = (0..sent / 3).map(|n| crate::tests::text(&alice(), &format!("{chunk} {n}")));
        let group = Group {
            drafts: drafts.collect(),
            ..Group::default()
        };
        rooms.send(&room, group).await.unwrap();
    }
    let first = unread(&rooms, &bob, &room).await;
    assert_eq!(first.main.notifications, UNREAD_SCAN as u64);
    let sent = (sent / 3 * 3) as u64;
    let mut tries = 0;
    while unread(&rooms, &bob, &room).await.main.notifications < sent {
        tokio::task::yield_now().await;
        tries += 1;
        assert!(tries < 1_000, "the rest is never counted");
    }
    assert_eq!(unread(&rooms, &bob, &room).await.main.notifications, sent);
}
