//! Invites that a hostile server brings, into rooms in which we are and into others.

use bytes::Bytes;
use federation::{Failure, Federation, Patience};
use http::{Request, Response};
use pdu::{Draft, Pdu, RoomRules, SigningKey, canonical::Value as Canonical};
use ruma::{
    EventId, OwnedEventId, RoomId, RoomVersionId,
    api::federation::membership::{RawStrippedState, create_invite},
    events::room::member::{MembershipState, RoomMemberEventContent},
};
use serde_json::{Value, json, value::RawValue};

use super::{
    A, B, Person, World, name,
    played::{EVIL, EvilRoom, eve},
    types,
};
use crate::tests::federation::far::raw;

/// A room of the evil server, and Beth of ours whom it invites.
pub(super) struct Trap {
    pub(super) world: World,
    pub(super) peer: Federation,
    pub(super) bob: Person,
    pub(super) beth: Person,
    pub(super) room: EvilRoom,
    /// Bob's join, if he is in the room.
    joined: Option<OwnedEventId>,
}

/// Which endpoint an invite is brought to.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// The one that says no version.
    Old,
    /// The one that says this version.
    New(&'a str),
}

impl Trap {
    pub(super) async fn new(version: &str) -> Self {
        let world = World::new();
        let b = world.server(B).await;
        let (bob, beth) = (Person::new(&b, "bob").await, Person::new(&b, "beth").await);
        let peer = world.network.peer(EVIL, &world.clock).await;
        let room = EvilRoom::new(&peer, version);
        let (template, state) = (room.template(bob.user_id.as_str()), room.state());
        let keys = String::from_utf8(peer.own_keys_answer()).unwrap();
        world
            .network
            .play(&name(EVIL), move |request: Request<Bytes>| {
                let path = request.uri().path();
                let body = if path.contains("/make_join/") {
                    template.to_string()
                } else if path.contains("/send_join/") {
                    state.to_string()
                } else {
                    keys.clone()
                };
                Response::new(body.into())
            });
        Self {
            world,
            peer,
            bob,
            beth,
            room,
            joined: None,
        }
    }

    /// The same, and Bob of ours is in the room.
    async fn shared(version: &str) -> Self {
        let mut trap = Self::new(version).await;
        let room = trap.room.room_id.as_str();
        trap.bob.join(room, &[EVIL]).await.ok();
        let path = format!("/rooms/{room}/messages?dir=b");
        let join = trap.bob.get(&path).await.ok()["chunk"][0]["event_id"].clone();
        trap.joined = Some(join.as_str().unwrap().try_into().unwrap());
        trap
    }

    /// An invite of Beth by Eve, the last thing that happened.
    pub(super) fn draft(&self) -> Draft {
        let beth = Some(self.beth.user_id.as_str());
        let invite = json!({ "membership": "invite" });
        let mut draft = self.room.draft_by(&eve(), "m.room.member", beth, &invite);
        if let Some(joined) = &self.joined {
            draft.prev_events = vec![joined.clone()];
        }
        draft
    }

    /// The event of a draft, as a room of that version has it.
    pub(super) fn sign(&self, draft: &Draft, rules: &RoomRules) -> Pdu {
        let key = self.peer.signing_keys().current();
        draft.sign(rules, &key, &name(EVIL)).unwrap()
    }

    /// The same for the endpoint that says no version, which wants to know from where the event is.
    fn sign_old(&self, draft: &Draft, rules: &RoomRules) -> Pdu {
        let pdu = self.sign(draft, rules);
        let mut event: Value = serde_json::from_slice(pdu.json()).unwrap();
        event["origin"] = json!(EVIL);
        // Since version 11 nobody signs that.
        if rules.redaction.keep_origin_membership_prev_state {
            event.as_object_mut().unwrap().remove("signatures");
            let text = event.to_string();
            let text = Canonical::parse(text.as_bytes(), rules.numbers()).unwrap();
            let key = self.peer.signing_keys().current();
            let signature = key.sign_base64(&text.to_canonical());
            event["signatures"] = json!({ EVIL: { key.key_id().as_str(): signature } });
        }
        Pdu::parse(event.to_string().as_bytes(), rules).unwrap()
    }

    /// Brings an event as that of a room and of an id: what is answered, or status and code.
    async fn bring(
        &self,
        pdu: &Pdu,
        room: &RoomId,
        id: &EventId,
        by: By<'_>,
    ) -> Result<Value, (u16, String)> {
        let answer = match by {
            By::New(version) => {
                let state = self.described();
                return self.bring_described(pdu, (room, id), version, &state).await;
            }
            By::Old => {
                let question = create_invite::v1::RequestInit {
                    room_id: room.to_owned(),
                    event_id: id.to_owned(),
                    sender: pdu.sender().to_owned(),
                    origin: name(EVIL),
                    origin_server_ts: pdu.origin_server_ts(),
                    state_key: self.beth.user_id.clone(),
                    content: RoomMemberEventContent::new(MembershipState::Invite),
                    unsigned: create_invite::v1::UnsignedEventContent::new(),
                };
                let question = create_invite::v1::Request::from(question);
                let body = pdu.json().to_vec();
                let ours = name(B);
                let answer = self.peer.ask_with(&ours, question, body, Patience::QUERY);
                answer.await.map(|answer| answer.event)
            }
        };
        said(answer)
    }

    /// The events that describe the room.
    pub(super) fn described(&self) -> Vec<Value> {
        self.room.state()["state"].as_array().unwrap().clone()
    }

    /// Brings an event as that of a room and of an id, which these events describe.
    pub(super) async fn bring_described(
        &self,
        pdu: &Pdu,
        (room, id): (&RoomId, &EventId),
        version: &str,
        state: &[Value],
    ) -> Result<Value, (u16, String)> {
        let state = state.iter().map(|event| {
            let event = serde_json::value::to_raw_value(event).unwrap();
            RawStrippedState::Pdu(event)
        });
        let question = create_invite::v2::Request::new(
            room.to_owned(),
            id.to_owned(),
            RoomVersionId::try_from(version).unwrap(),
            raw(pdu),
            state.collect(),
        );
        let answer = self.peer.ask(&name(B), question, Patience::QUERY).await;
        said(answer.map(|answer| answer.event))
    }

    /// Brings an event as what it is.
    pub(super) async fn bring_it(&self, pdu: &Pdu, by: By<'_>) -> Result<Value, (u16, String)> {
        self.bring(pdu, pdu.room_id(), pdu.event_id(), by).await
    }

    /// Bob can go on in the room.
    async fn goes_on(&self, what: &str) {
        let room = &self.room.room_id;
        let said = json!({ "msgtype": "m.text", "body": what });
        let path = format!(
            "/rooms/{room}/send/m.room.message/{}",
            what.replace(' ', "_")
        );
        self.bob.put(&path, said).await.ok();
        let page = self.bob.get(&format!("/rooms/{room}/messages?dir=b")).await;
        assert_eq!(page.ok()["chunk"][0]["content"]["body"], what);
        self.bob.get(&format!("/rooms/{room}/state")).await.ok();
    }
}

/// What was said, or status and code of a refusal.
fn said(answer: Result<Box<RawValue>, Failure>) -> Result<Value, (u16, String)> {
    match answer {
        Ok(event) => Ok(serde_json::from_str(event.get()).unwrap()),
        Err(Failure::Refused(refusal)) => {
            Err((refusal.status.as_u16(), refusal.errcode().to_owned()))
        }
        Err(failure) => panic!("{failure}"),
    }
}

fn wrong_version() -> (u16, String) {
    (400, "M_INVALID_PARAM".to_owned())
}

#[tokio::test]
async fn an_invite_of_another_version_does_not_come_into_a_room() {
    for version in ["1", "2", "3", "6", "10", "11", "12"] {
        let trap = Trap::shared(version).await;
        for said in RoomRules::all() {
            let what = format!("{} in {version}", said.version());
            // Made as in a room of the version that is said, and as in the room that it is.
            for rules in [said, trap.room.rules] {
                let invite = trap.sign(&trap.draft(), rules);
                let answer = trap.bring_it(&invite, By::New(said.version())).await;
                match said.version() == version {
                    true => drop(answer.unwrap()),
                    false => assert_eq!(answer.unwrap_err(), wrong_version(), "{what}"),
                }
            }
            trap.goes_on(&what).await;
        }
        assert_eq!(
            trap.bob
                .membership(trap.room.room_id.as_str(), &trap.beth)
                .await,
            "invite"
        );
    }
}

#[tokio::test]
async fn an_invite_that_says_no_version_is_read_by_the_rules_of_the_room() {
    for version in ["1", "2", "3", "6", "10", "11", "12"] {
        let trap = Trap::shared(version).await;
        let mut taken = 0;
        for rules in RoomRules::all() {
            let what = format!("{} in {version}", rules.version());
            let invite = trap.sign_old(&trap.draft(), rules);
            // Versions that follow each other have many events in common.
            let read = Pdu::parse(invite.json(), trap.room.rules);
            let same = read.is_ok_and(|read| read.event_id() == invite.event_id());
            let answer = trap.bring_it(&invite, By::Old).await;
            assert_eq!(answer.is_ok(), same, "{what}: {answer:?}");
            if let Ok(event) = answer {
                assert!(event["event"]["signatures"][B].is_object(), "{event}");
                taken += 1;
            }
            trap.goes_on(&what).await;
        }
        assert!((1..RoomRules::all().count()).contains(&taken), "{version}");
        let room = trap.room.room_id.as_str();
        assert_eq!(trap.bob.membership(room, &trap.beth).await, "invite");
    }
}

#[tokio::test]
async fn where_nothing_has_happened_the_latest_word_about_the_version_counts() {
    let trap = Trap::new("11").await;
    let room = trap.room.room_id.as_str();
    let old = trap.sign_old(&trap.draft(), RoomRules::named("1").unwrap());
    trap.bring_it(&old, By::Old).await.unwrap();
    assert!(trap.beth.rooms("invite").await[room].is_object());
    let new = trap.sign(&trap.draft(), trap.room.rules);
    trap.bring_it(&new, By::New("11")).await.unwrap();
    trap.bob.join(room, &[EVIL]).await.ok();
    let refused = trap.bring_it(&old, By::New("1")).await.unwrap_err();
    assert_eq!(refused, wrong_version());
    trap.goes_on("after all").await;
}

#[tokio::test]
async fn what_is_no_invite_of_theirs_for_ours_is_not_signed() {
    for version in ["2", "11", "12"] {
        for shared in [true, false] {
            let trap = match shared {
                true => Trap::shared(version).await,
                false => Trap::new(version).await,
            };
            let other = trap.world.network.peer(A, &trap.world.clock).await;
            let wrong = lies(&trap, &other);
            for (what, pdu) in &wrong {
                let refused = trap.bring_it(pdu, By::New(version)).await.unwrap_err();
                let expected = (400, "M_INVALID_PARAM".to_owned());
                assert_eq!(refused, expected, "{version} {shared} {what}");
            }
            // A sound one, which the path says to be another.
            let sound = trap.sign(&trap.draft(), trap.room.rules);
            let room = RoomId::parse("!another:evil.example").unwrap();
            let id = EventId::parse("$another:evil.example").unwrap();
            for (room, id) in [(&*room, sound.event_id()), (&*trap.room.room_id, &*id)] {
                let refused = trap.bring(&sound, room, id, By::New(version)).await;
                assert_eq!(refused.unwrap_err().0, 400, "{version} {shared}");
            }
            assert!(trap.beth.rooms("invite").await[trap.room.room_id.as_str()].is_null());
            let mut nobody = trap.draft();
            nobody.state_key = Some("@nobody:b.example".to_owned());
            let nobody = trap.sign(&nobody, trap.room.rules);
            let refused = trap.bring_it(&nobody, By::New(version)).await.unwrap_err();
            assert_eq!(refused, (404, "M_NOT_FOUND".to_owned()));
            trap.bring_it(&sound, By::New(version)).await.unwrap();
            assert!(trap.beth.rooms("invite").await[trap.room.room_id.as_str()].is_object());
        }
    }
}

/// Events that are no invites of people of ours by people of the evil server.
fn lies(trap: &Trap, other: &Federation) -> Vec<(String, Pdu)> {
    let changed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = trap.draft();
        change(&mut draft);
        draft
    };
    let rules = trap.room.rules;
    let mut lies = Vec::new();
    for membership in ["join", "leave", "ban", "knock", "none"] {
        let content = json!({ "membership": membership });
        let content = serde_json::value::to_raw_value(&content).unwrap();
        let draft = changed(&|draft| draft.content = content.clone());
        lies.push((membership.to_owned(), trap.sign(&draft, rules)));
    }
    let topic = changed(&|draft| draft.event_type = "m.room.topic".into());
    lies.push(("no member event".to_owned(), trap.sign(&topic, rules)));
    let message = changed(&|draft| draft.state_key = None);
    lies.push(("no state".to_owned(), trap.sign(&message, rules)));
    let theirs = changed(&|draft| draft.state_key = Some("@carl:a.example".to_owned()));
    lies.push(("of another server".to_owned(), trap.sign(&theirs, rules)));
    // Somebody of another server really sent it, but not through the evil one.
    let sender = changed(&|draft| draft.sender = "@alice:a.example".try_into().unwrap());
    let key = other.signing_keys().current();
    let pdu = sender.sign(rules, &key, &name(A)).unwrap();
    lies.push(("another sender".to_owned(), pdu));
    // It says so itself.
    lies.push(("a forged sender".to_owned(), trap.sign(&sender, rules)));
    let forged = {
        let key_name = trap.peer.signing_keys().current();
        let key_name = key_name.key_id().key_name().to_string();
        let key = SigningKey::from_seed(&[9; 32], &key_name).unwrap();
        trap.draft().sign(rules, &key, &name(EVIL)).unwrap()
    };
    lies.push(("a forged signature".to_owned(), forged));
    lies
}

#[tokio::test]
async fn a_room_is_described_by_its_own_events_or_not_at_all() {
    for version in ["11", "12"] {
        let trap = Trap::new(version).await;
        let state = trap.described();
        let other = EvilRoom::at(&trap.peer, version, 1_500_000_000);
        let others = other.state()["state"].as_array().unwrap().clone();
        let changed = |change: &dyn Fn(&mut Vec<Value>)| {
            let mut state = state.clone();
            change(&mut state);
            state
        };
        let lies = [
            ("nothing", Vec::new()),
            ("no create event", changed(&|state| drop(state.remove(0)))),
            (
                "another room's",
                changed(&|state| state[0] = others[0].clone()),
            ),
            (
                "another room's name",
                changed(&|state| state.push(others[4].clone())),
            ),
            (
                "no signature",
                changed(&|state| state[4]["signatures"] = json!({})),
            ),
            (
                "a forged sender",
                changed(&|state| state[4]["sender"] = json!("@alice:a.example")),
            ),
            (
                "stripped events",
                changed(&|state| {
                    let sender = eve();
                    state[0] = json!({
                        "type": "m.room.create", "state_key": "", "sender": sender,
                        "content": { "room_version": version },
                    });
                }),
            ),
        ];
        let room = trap.room.room_id.clone();
        let invite = trap.sign(&trap.draft(), trap.room.rules);
        let to = (&*room, invite.event_id());
        for (what, state) in &lies {
            let answer = trap.bring_described(&invite, to, version, state).await;
            let invited = trap.beth.rooms("invite").await[room.as_str()].clone();
            if version == "12" {
                let refused = (400, "M_INVALID_PARAM".to_owned());
                assert_eq!(answer.unwrap_err(), refused, "{what}");
                assert!(invited.is_null(), "{what}");
                continue;
            }
            // In the versions before, the invite counts, and what proves nothing is not shown.
            answer.unwrap();
            let shown = types(&invited["invite_state"]);
            let name = shown.iter().filter(|kind| **kind == "m.room.name").count();
            let proven = usize::from(state.iter().any(|event| *event == trap.described()[4]));
            assert_eq!(name, proven, "{what}: {shown:?}");
        }
        trap.bring_described(&invite, to, version, &state)
            .await
            .unwrap();
        let invited = trap.beth.rooms("invite").await[room.as_str()].clone();
        assert!(types(&invited["invite_state"]).contains(&"m.room.name"));
    }
}
