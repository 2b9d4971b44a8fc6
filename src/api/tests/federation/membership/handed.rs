//! Member events that a hostile server hands over for a room of ours.

use federation::{Failure, Federation, Patience};
use pdu::{Draft, Pdu, RoomRules, SigningKey};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, UserId,
    api::federation::membership::{
        create_join_event, create_knock_event, create_leave_event, prepare_join_event,
        prepare_knock_event, prepare_leave_event,
    },
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    A, C, Person, World, name,
    played::{EVIL, eve},
};
use crate::tests::federation::far::raw;

/// Status and code.
type Refused = (u16, String);

/// Rooms of Alice of ours, and a server whose people want to come in.
struct Door {
    world: World,
    alice: Person,
    peer: Federation,
    rules: &'static RoomRules,
}

impl Door {
    async fn new(version: &str) -> Self {
        let world = World::new();
        let a = world.server(A).await;
        let alice = Person::new(&a, "alice").await;
        let peer = world.network.peer(EVIL, &world.clock).await;
        Self {
            world,
            alice,
            peer,
            rules: RoomRules::named(version).unwrap(),
        }
    }

    async fn room(&self) -> OwnedRoomId {
        let room = json!({ "preset": "public_chat", "room_version": self.rules.version() });
        self.alice.create(room).await.try_into().unwrap()
    }

    /// What our server proposes for somebody's event.
    async fn template(&self, what: &str, room: &RoomId, user: &UserId) -> Result<Draft, Refused> {
        let ours = name(A);
        let (room, user) = (room.to_owned(), user.to_owned());
        let versions: Vec<RoomVersionId> = vec![self.rules.version_id()];
        let event = match what {
            "join" => {
                let mut question = prepare_join_event::v1::Request::new(room, user);
                question.ver = versions;
                let answer = self.peer.ask(&ours, question, Patience::QUERY).await;
                answer.map(|answer| answer.event)
            }
            "leave" => {
                let question = prepare_leave_event::v1::Request::new(room, user);
                let answer = self.peer.ask(&ours, question, Patience::QUERY).await;
                answer.map(|answer| answer.event)
            }
            _ => {
                let mut question = prepare_knock_event::v1::Request::new(room, user);
                question.ver = versions;
                let answer = self.peer.ask(&ours, question, Patience::QUERY).await;
                answer.map(|answer| answer.event)
            }
        };
        let event = event.map_err(refused)?;
        let now = self.world.clock.now();
        Ok(Draft::of_template(event.get().as_bytes(), self.rules, now).unwrap())
    }

    fn sign(&self, draft: &Draft) -> Pdu {
        let key = self.peer.signing_keys().current();
        draft.sign(self.rules, &key, &name(EVIL)).unwrap()
    }

    /// Hands an event over as that of a room and of an id.
    async fn hand(
        &self,
        what: &str,
        room: &RoomId,
        id: &EventId,
        pdu: &Pdu,
    ) -> Result<(), Refused> {
        let ours = name(A);
        let (room, id, event) = (room.to_owned(), id.to_owned(), raw(pdu));
        let answer = match what {
            "join" => {
                let question = create_join_event::v2::Request::new(room, id, event);
                self.peer.ask_raw(&ours, question, Patience::QUERY).await
            }
            "leave" => {
                let question = create_leave_event::v2::Request::new(room, id, event);
                self.peer.ask_raw(&ours, question, Patience::QUERY).await
            }
            _ => {
                let question = create_knock_event::v1::Request::new(room, id, event);
                self.peer.ask_raw(&ours, question, Patience::QUERY).await
            }
        };
        answer.map(drop).map_err(refused)
    }

    async fn hand_it(&self, what: &str, pdu: &Pdu) -> Result<(), Refused> {
        self.hand(what, pdu.room_id(), pdu.event_id(), pdu).await
    }

    /// What Eve is in a room.
    async fn is(&self, room: &RoomId) -> Value {
        let path = format!("/rooms/{room}/state/m.room.member/{}", eve());
        self.alice.get(&path).await.body["membership"].clone()
    }
}

fn refused(failure: Failure) -> Refused {
    match failure {
        Failure::Refused(refusal) => (refusal.status.as_u16(), refusal.errcode().to_owned()),
        failure => panic!("{failure}"),
    }
}

fn invalid() -> Refused {
    (400, "M_INVALID_PARAM".to_owned())
}

/// Events that are not what a draft is.
fn lies(door: &Door, draft: &Draft, other: &Federation) -> Vec<(String, Pdu)> {
    let changed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = draft.clone();
        change(&mut draft);
        draft
    };
    let mut lies = Vec::new();
    let own: Value = serde_json::from_str(draft.content.get()).unwrap();
    for membership in ["join", "leave", "knock", "invite", "ban", "none"] {
        if own["membership"] != membership {
            let content = to_raw_value(&json!({ "membership": membership })).unwrap();
            let lie = changed(&|draft| draft.content = content.clone());
            lies.push((membership.to_owned(), door.sign(&lie)));
        }
    }
    let topic = changed(&|draft| draft.event_type = "m.room.topic".into());
    lies.push(("another type".to_owned(), door.sign(&topic)));
    let message = changed(&|draft| draft.state_key = None);
    lies.push(("no state".to_owned(), door.sign(&message)));
    let about = changed(&|draft| draft.state_key = Some("@adam:evil.example".to_owned()));
    lies.push(("about somebody else".to_owned(), door.sign(&about)));
    let alice = changed(&|draft| {
        draft.sender = "@alice:a.example".try_into().unwrap();
        draft.state_key = Some("@alice:a.example".to_owned());
    });
    lies.push(("in our name".to_owned(), door.sign(&alice)));
    let theirs = changed(&|draft| {
        draft.sender = "@carl:c.example".try_into().unwrap();
        draft.state_key = Some("@carl:c.example".to_owned());
    });
    lies.push(("in another's name".to_owned(), door.sign(&theirs)));
    let key = other.signing_keys().current();
    let passed_on = theirs.sign(door.rules, &key, &name(C)).unwrap();
    lies.push(("of another server".to_owned(), passed_on));
    let by_other = draft.sign(door.rules, &key, &name(C)).unwrap();
    lies.push(("signed by another server".to_owned(), by_other));
    let key = door.peer.signing_keys().current();
    let key = SigningKey::from_seed(&[9; 32], key.key_id().key_name().as_str()).unwrap();
    let forged = draft.sign(door.rules, &key, &name(EVIL)).unwrap();
    lies.push(("signed with another key".to_owned(), forged));
    lies
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_taken() {
    for version in ["7", "11", "12"] {
        let door = Door::new(version).await;
        let other = door.world.network.peer(C, &door.world.clock).await;
        let (room, another) = (door.room().await, door.room().await);
        let mut before = json!(null);
        for what in ["join", "leave", "knock"] {
            if what == "knock" {
                let rule = json!({ "join_rule": "knock" });
                door.alice
                    .set(room.as_str(), "m.room.join_rules", rule)
                    .await;
            }
            let draft = door.template(what, &room, &eve()).await.unwrap();
            for (lie, pdu) in lies(&door, &draft, &other) {
                let answer = door.hand_it(what, &pdu).await;
                assert_eq!(answer.unwrap_err(), invalid(), "{version} {what} {lie}");
            }
            let sound = door.sign(&draft);
            let id = EventId::parse("$another:evil.example").unwrap();
            for (room, id) in [(&*another, sound.event_id()), (&*room, &*id)] {
                let answer = door.hand(what, room, id, &sound).await;
                assert_eq!(answer.unwrap_err(), invalid(), "{version} {what}");
            }
            assert_eq!(door.is(&room).await, before, "{version} {what}");
            assert_eq!(door.is(&another).await, json!(null));
            door.hand_it(what, &sound).await.unwrap();
            // Again it changes nothing.
            door.hand_it(what, &sound).await.unwrap();
            assert_eq!(door.is(&room).await, what);
            before = json!(what);
        }
    }
}

#[tokio::test]
async fn nobody_of_ours_vouches_for_who_may_not_join() {
    for version in ["8", "11", "12"] {
        let door = Door::new(version).await;
        let (club, room) = (door.room().await, door.room().await);
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let rule = json!({ "join_rule": "restricted", "allow": allow });
        door.alice
            .set(room.as_str(), "m.room.join_rules", rule)
            .await;
        let refused = door.template("join", &room, &eve()).await.unwrap_err();
        assert_eq!(refused.0, 403, "{version}: {refused:?}");
        // It makes the event without a template: of one of another room.
        let club_join = door.template("join", &club, &eve()).await.unwrap();
        let mut draft = door
            .template("join", &door.room().await, &eve())
            .await
            .unwrap();
        let path = format!("/rooms/{room}/state");
        let state = door.alice.get(&path).await.ok();
        let find = |kind: &str| -> Vec<OwnedEventId> {
            let events = state.as_array().unwrap().iter();
            let of_kind = events.filter(|event| event["type"] == kind);
            let ids = of_kind.map(|event| event["event_id"].as_str().unwrap());
            ids.map(|id| id.try_into().unwrap()).collect()
        };
        draft.room_id = Some(room.clone());
        draft.prev_events = find("m.room.join_rules");
        draft.auth_events = ["m.room.power_levels", "m.room.join_rules", "m.room.member"]
            .into_iter()
            .flat_map(find)
            .collect();
        if !door.rules.room_id_is_create_event_id() {
            draft.auth_events.extend(find("m.room.create"));
        }
        for voucher in [
            Some("@alice:a.example"),
            Some("@nobody:a.example"),
            Some("@carl:c.example"),
            Some("@eve:evil.example"),
            Some("nobody"),
            None,
        ] {
            let mut content = json!({ "membership": "join" });
            if let Some(voucher) = voucher {
                content["join_authorised_via_users_server"] = json!(voucher);
            }
            draft.content = to_raw_value(&content).unwrap();
            let refused = door.hand_it("join", &door.sign(&draft)).await;
            let (status, _) = refused.unwrap_err();
            assert!(
                matches!(status, 400 | 403),
                "{version} {voucher:?}: {status}"
            );
            assert_eq!(door.is(&room).await, json!(null), "{version} {voucher:?}");
        }
        // Who is in the club is vouched for, by whom the event names.
        door.hand_it("join", &door.sign(&club_join)).await.unwrap();
        let join = door.template("join", &room, &eve()).await.unwrap();
        let content: Value = serde_json::from_str(join.content.get()).unwrap();
        assert_eq!(
            content["join_authorised_via_users_server"],
            "@alice:a.example"
        );
        door.hand_it("join", &door.sign(&join)).await.unwrap();
        assert_eq!(door.is(&room).await, "join");
    }
}
