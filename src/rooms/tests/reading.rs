//! Tests of reading rooms: events as clients get them, pages, state, members.

use std::sync::Arc;

use ruma::{
    OwnedUserId, RoomVersionId,
    api::{Direction, client::filter::RoomEventFilter},
};
use serde_json::json;
use storage::{
    Batch, NameHash, Storage,
    schema::{self, Gap, Membership, Place, Sent},
};

use super::{
    alice,
    people::{Seen, accounts, bob, ids, member, on_disk, redaction, visibility},
    public_room, rooms, state, text,
};
use crate::{Draft, EventFormat, Group, PlaceToken, Room, Rooms, Span, Viewer, Wanted};

/// A public room of Alice's, and who looks at it: Alice and Bob.
async fn room_of(storage: Storage, version: &RoomVersionId) -> (Rooms, Arc<Room>, Vec<Viewer>) {
    let viewers = accounts(&storage, &[alice(), bob()]).await;
    let rooms = rooms(storage);
    let room_id = public_room(&rooms, version).await;
    let room = rooms.room(&room_id).await.unwrap();
    (rooms, room, viewers)
}

fn backward(from: PlaceToken, limit: usize) -> Span {
    Span {
        from,
        to: None,
        direction: Direction::Backward,
        limit,
    }
}

const END: PlaceToken = PlaceToken(Place::END);

#[tokio::test]
async fn a_message_says_what_it_is_and_to_its_device_which_transaction() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V11).await;
    let [seen, other] = [&viewers[0], &viewers[1]].map(|viewer| Seen {
        rooms: &rooms,
        room: &room,
        viewer,
    });
    let draft = Draft {
        sent: Some(Sent {
            device: viewers[0].device,
            transaction_id: "\"t\n1".to_owned(),
        }),
        origin_server_ts: Some(rooms.now() - 1_500),
        ..text(&alice(), "سلام \"\\ \u{1}")
    };
    let id = seen.send(draft).await;
    other.send(member(&bob(), &bob(), "join")).await;
    let wanted = json!({
        "type": "m.room.message",
        "event_id": id,
        "room_id": room.room_id,
        "sender": "@alice:example.org",
        "origin_server_ts": 1_699_999_998_500_u64,
        "content": { "msgtype": "m.text", "body": "سلام \"\\ \u{1}" },
        "unsigned": { "age": 1_500, "membership": "join", "transaction_id": "\"t\n1" },
    });
    assert_eq!(seen.event(&id).await, wanted);
    let mut without = wanted.clone();
    without.as_object_mut().unwrap().remove("room_id");
    let format = EventFormat::WithoutRoomId;
    assert_eq!(seen.event_as(&id, format).await, without);
    // To nobody else, not even to another device of the sender.
    let unsigned = json!({ "age": 1_500, "membership": "leave" });
    assert_eq!(other.event(&id).await["unsigned"], unsigned);
    let second = Viewer {
        device: NameHash([9; 16]),
        ..viewers[0].clone()
    };
    let second = Seen {
        viewer: &second,
        ..seen
    };
    let unsigned = json!({ "age": 1_500, "membership": "join" });
    assert_eq!(second.event(&id).await["unsigned"], unsigned);
}

#[tokio::test]
async fn a_state_event_says_what_it_replaced_and_its_content_to_those_who_may() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V11).await;
    let [seen, other] = [&viewers[0], &viewers[1]].map(|viewer| Seen {
        rooms: &rooms,
        room: &room,
        viewer,
    });
    let topic = |topic: &str| state(&alice(), "m.room.topic", "", json!({ "topic": topic }));
    seen.send(visibility("joined")).await;
    let first = seen.send(topic("one")).await;
    seen.send(visibility("world_readable")).await;
    let second = seen.send(topic("two")).await;
    let unsigned = seen.event(&first).await["unsigned"].take();
    assert_eq!(unsigned, json!({ "age": 0, "membership": "join" }));
    let unsigned = seen.event(&second).await["unsigned"].take();
    assert_eq!(unsigned["prev_content"], json!({ "topic": "one" }));
    assert_eq!(unsigned["replaces_state"], json!(first));
    // Who was not there sees the second one, since anybody may, and not the content of the first.
    other.send(member(&bob(), &bob(), "join")).await;
    let unsigned = other.event(&second).await["unsigned"].take();
    let wanted = json!({ "age": 0, "membership": "leave", "replaces_state": first });
    assert_eq!(unsigned, wanted);
    // What stood there when they came they know as the room's state.
    let third = seen.send(topic("three")).await;
    let unsigned = other.event(&third).await["unsigned"].take();
    assert_eq!(unsigned["prev_content"], json!({ "topic": "two" }));
    let left = other.send(member(&bob(), &bob(), "leave")).await;
    let unsigned = other.event(&left).await["unsigned"].take();
    assert_eq!(unsigned["prev_content"], json!({ "membership": "join" }));
    assert_eq!(unsigned["membership"], "leave");
}

#[tokio::test]
async fn redactions_name_their_target_twice_and_the_target_names_them() {
    for version in [RoomVersionId::V1, RoomVersionId::V10, RoomVersionId::V12] {
        let (rooms, room, viewers) = room_of(Storage::model(), &version).await;
        let seen = Seen {
            rooms: &rooms,
            room: &room,
            viewer: &viewers[0],
        };
        let target = seen.send(text(&alice(), "oh")).await;
        let draft = Draft {
            sent: Some(Sent {
                device: viewers[0].device,
                transaction_id: "r".to_owned(),
            }),
            ..redaction(&alice(), &target)
        };
        let id = seen.send(draft).await;
        let event = seen.event(&id).await;
        assert_eq!(event["redacts"], json!(target), "{version}");
        let content = json!({ "reason": "because", "redacts": target });
        assert_eq!(event["content"], content, "{version}");

        let pruned = seen.event(&target).await;
        assert_eq!(pruned["content"], json!({}));
        let because = &pruned["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], json!(id));
        assert_eq!(because["type"], "m.room.redaction");
        assert_eq!(because["room_id"], json!(room.room_id));
        assert_eq!(because["content"], content);
        let unsigned = json!({ "age": 0, "transaction_id": "r" });
        assert_eq!(because["unsigned"], unsigned);
    }
}

#[tokio::test]
async fn an_event_in_the_federation_format_is_as_it_lies() {
    for version in [RoomVersionId::V1, RoomVersionId::V5, RoomVersionId::V12] {
        let (rooms, room, viewers) = room_of(Storage::model(), &version).await;
        let seen = Seen {
            rooms: &rooms,
            room: &room,
            viewer: &viewers[0],
        };
        let id = seen.send(text(&alice(), "hi")).await;
        let mut event = seen.event_as(&id, EventFormat::Federation).await;
        let event = event.as_object_mut().unwrap();
        let unsigned = event.remove("unsigned").unwrap();
        assert_eq!(unsigned, json!({ "age": 0, "membership": "join" }));
        assert_eq!(event["event_id"], json!(id), "{version}");
        for key in [
            "auth_events",
            "prev_events",
            "hashes",
            "signatures",
            "depth",
        ] {
            assert!(event.contains_key(key), "{key} in {version}");
        }
    }
}

#[tokio::test]
async fn fractions_of_old_rooms_come_out_as_they_went_in() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V5).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[0],
    };
    let number = "12345678901234567890123";
    let content = format!(r#"{{"half":0.5,"many":{number}}}"#);
    let content = |_: u8| serde_json::value::RawValue::from_string(content.clone()).unwrap();
    let draft = || Draft::state(alice(), "org.example.odd", "", content(0));
    seen.send(draft()).await;
    let other = state(&alice(), "org.example.odd", "", json!({}));
    let id = seen.send(other).await;
    let (snapshot, look) = seen.look().await;
    let event = room.find_event(&rooms, &snapshot, &id).await.unwrap();
    let written = room
        .client_events(
            &rooms,
            &snapshot,
            &viewers[0],
            &look,
            &[event.unwrap()],
            EventFormat::Client.into(),
        )
        .await
        .unwrap();
    let before = format!(r#""prev_content":{{"half":0.5,"many":{number}}}"#);
    assert!(written[0].get().contains(&before), "{}", written[0]);
}

#[tokio::test]
async fn filters_choose_and_pages_end_where_nothing_is_left() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V11).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[0],
    };
    let rare = || state(&alice(), "m.room.topic", "", json!({ "topic": "t" }));
    let first = seen.send(rare()).await;
    let group = |from: usize| Group {
        drafts: (from..from + 900)
            .map(|i| text(&alice(), &i.to_string()))
            .collect(),
        ..Group::default()
    };
    for part in 0..3 {
        rooms.send(&room, group(part * 900)).await.unwrap();
    }
    let with_url = Draft::message(
        alice(),
        "m.room.message",
        serde_json::value::to_raw_value(&json!({ "url": "mxc://a/b" })).unwrap(),
    );
    let with_url = seen.send(with_url).await;

    let read = |filter: serde_json::Value, from| {
        let filter: RoomEventFilter = serde_json::from_value(filter).unwrap();
        let seen = &seen;
        async move {
            let page = seen.page(backward(from, 3), &filter).await.unwrap();
            let ids = ids(&page.events).into_iter().map(ToOwned::to_owned);
            (ids.collect::<Vec<String>>(), page.next)
        }
    };
    // So many that do not pass are not all looked at on one page; the next one goes on from there.
    let topics = json!({ "types": ["m.room.t*"] });
    let (none, next) = read(topics.clone(), END).await;
    assert!(none.is_empty());
    let (found, next) = read(topics, next.unwrap()).await;
    assert_eq!((found, next), (vec![first.to_string()], None));
    let (found, _) = read(json!({ "contains_url": true }), END).await;
    assert_eq!(found, [with_url.as_str()]);
    let (found, next) = read(json!({ "not_senders": [alice()] }), END).await;
    assert!(found.is_empty() && next.is_some());
    let (found, next) = read(json!({ "not_rooms": [room.room_id] }), END).await;
    assert!(found.is_empty() && next.is_none());
    let (found, _) = read(
        json!({ "types": ["m.room.message"], "not_types": ["*"] }),
        END,
    )
    .await;
    assert!(found.is_empty());
}

#[tokio::test]
async fn a_gap_ends_a_page_and_the_next_one_begins_behind_it() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V11).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[0],
    };
    // Slots 5 to 10.
    for i in 0..6 {
        seen.send(text(&alice(), &i.to_string())).await;
    }
    let mut batch = Batch::new();
    let gap = Place::live(7);
    let missing = vec!["$missing".to_owned()];
    batch.put(&schema::GAP_BY_PLACE, &(room.short, gap), &Gap { missing });
    rooms.storage().commit(batch).await.unwrap();
    let slots = |page: &crate::Page| -> Vec<u64> {
        let all = page.events.iter();
        all.map(|event| event.row.header.place.unwrap().slot)
            .collect()
    };
    let all = RoomEventFilter::default();
    let page = seen.page(backward(END, 100), &all).await.unwrap();
    assert_eq!((slots(&page), page.gap), (vec![10, 9, 8, 7], Some(gap)));
    let rest = seen.page(backward(page.next.unwrap(), 100), &all).await;
    let rest = rest.unwrap();
    assert_eq!(slots(&rest), [6, 5, 4, 3, 2, 1]);
    assert_eq!((rest.gap, rest.next), (None, None));
    let forward = |from| Span {
        direction: Direction::Forward,
        ..backward(from, 100)
    };
    let page = seen.page(forward(PlaceToken(Place::live(4))), &all).await;
    let page = page.unwrap();
    assert_eq!((slots(&page), page.gap), (vec![5, 6], Some(gap)));
    let rest = seen.page(forward(page.next.unwrap()), &all).await.unwrap();
    assert_eq!(slots(&rest), [7, 8, 9, 10]);
    assert_eq!((rest.gap, rest.next), (None, None));
}

#[tokio::test]
async fn a_look_with_a_page_sees_what_both_see_apart() {
    let (_folder, storage) = on_disk();
    let (rooms, room, viewers) = room_of(storage, &RoomVersionId::V11).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[1],
    };
    seen.send(member(&bob(), &bob(), "join")).await;
    seen.send(text(&alice(), "before")).await;
    let left = seen.send(member(&bob(), &bob(), "leave")).await;
    for i in 0..20 {
        seen.send(text(&alice(), &i.to_string())).await;
    }
    let filter = RoomEventFilter::default();
    for (viewer, newest) in [(&viewers[0], None), (&viewers[1], Some(&left))] {
        for direction in [Direction::Backward, Direction::Forward] {
            let snapshot = rooms.snapshot().await.unwrap();
            let wanted = Wanted {
                to: None,
                direction,
                limit: 5,
                filter: &filter,
                relations: None,
            };
            let (look, start, page) = room
                .look_at_page(&snapshot, viewer, None, &wanted)
                .await
                .unwrap();
            let span = Span {
                from: start,
                to: None,
                direction,
                limit: 5,
            };
            let apart = room
                .timeline(&snapshot, viewer, &look, span, &filter, None)
                .await;
            let apart = apart.unwrap();
            assert_eq!(ids(&page.events), ids(&apart.events));
            assert_eq!(page.next, apart.next);
            assert_eq!(page.events.len(), 5);
            if let (Direction::Backward, Some(newest)) = (direction, newest) {
                assert_eq!(ids(&page.events)[0], newest.as_str());
            }
        }
    }
}

#[tokio::test]
async fn state_and_members_then_and_now() {
    let (_folder, storage) = on_disk();
    let (rooms, room, viewers) = room_of(storage, &RoomVersionId::V11).await;
    let [seen, other] = [&viewers[0], &viewers[1]].map(|viewer| Seen {
        rooms: &rooms,
        room: &room,
        viewer,
    });
    let topic = |topic: &str| state(&alice(), "m.room.topic", "", json!({ "topic": topic }));
    other.send(member(&bob(), &bob(), "join")).await;
    seen.send(topic("then")).await;
    let (_, then) = seen.look().await;
    let at = rooms.snapshot().await.unwrap().position();
    other.send(member(&bob(), &bob(), "leave")).await;
    seen.send(topic("now")).await;
    let carol: OwnedUserId = "@carol:example.org".try_into().unwrap();
    seen.send(member(&carol, &carol, "join")).await;

    let (snapshot, look) = other.look().await;
    let root = look.root().unwrap();
    let state = room.state_at(&rooms, &snapshot, &look, root).await;
    let state = state.unwrap();
    let of = |wanted: &str| {
        let found = state.iter().find(|event| event.is_state(wanted)).unwrap();
        String::from_utf8(found.content().to_vec()).unwrap()
    };
    assert_eq!(of("m.room.topic"), r#"{"topic":"then"}"#);
    assert_eq!(state.len(), 6, "create, levels, rules, topic, two members");

    let (snapshot, look) = seen.look().await;
    let root = look.root().unwrap();
    let now = room.state_at(&rooms, &snapshot, &look, root).await;
    assert_eq!(now.unwrap().len(), 7);
    let joined = room.members(&snapshot, &look, &[Membership::Join]).await;
    let joined: Vec<_> = joined.unwrap().into_iter().map(|row| row.user_id).collect();
    assert_eq!(joined.len(), 2);
    assert!(joined.contains(&carol.to_string()));
    let lazy = std::collections::BTreeSet::from([carol.to_string()]);
    let some = room
        .state_with_members(&rooms, &snapshot, &look, root, &lazy)
        .await
        .unwrap();
    assert_eq!(some.len(), 5, "create, levels, rules, topic, Carol");
    let old = room
        .state_with_members(&rooms, &snapshot, &look, then.head.root, &lazy)
        .await
        .unwrap();
    assert_eq!(old.len(), 4, "Carol was not there");

    // Both kinds of tokens lead to the state that was there.
    assert_eq!(
        room.root_at(&snapshot, at).await.unwrap(),
        Some(then.head.root)
    );
    let boundary = room.place_at(&snapshot, at).await.unwrap();
    assert_eq!(boundary, PlaceToken(then.end().unwrap()));
    let root = room.root_at_place(&snapshot, boundary).await.unwrap();
    assert_eq!(root, Some(then.head.root));
    let none = room
        .root_at_place(&snapshot, PlaceToken(Place::START))
        .await;
    assert_eq!(none.unwrap(), None);
}

#[tokio::test]
async fn an_invited_one_and_one_who_forgot_see_nothing() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V11).await;
    let other = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[1],
    };
    let refused = async || {
        let filter = RoomEventFilter::default();
        let page = other.page(backward(END, 5), &filter).await;
        let status = page.unwrap_err().status();
        assert_eq!(status, 403);
    };
    refused().await;
    other.send(member(&alice(), &bob(), "invite")).await;
    refused().await;
    other.send(member(&bob(), &bob(), "join")).await;
    other.send(member(&bob(), &bob(), "leave")).await;
    let filter = RoomEventFilter::default();
    let page = other.page(backward(END, 5), &filter).await.unwrap();
    assert_eq!(page.events.len(), 5);
    rooms.forget(&room.room_id, viewers[1].short).await.unwrap();
    refused().await;
}

#[tokio::test]
async fn what_another_server_sent_without_knowing_of_a_membership_is_judged_by_its_own_state() {
    let (rooms, room, viewers) = room_of(Storage::model(), &RoomVersionId::V11).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[1],
    };
    seen.send(visibility("joined")).await;
    let before = seen.send(text(&alice(), "before")).await;
    seen.send(member(&bob(), &bob(), "join")).await;
    let during = seen.send(text(&alice(), "during")).await;
    let find = async |id| {
        let snapshot = rooms.snapshot().await.unwrap();
        let event = room.find_event(&rooms, &snapshot, id).await;
        event.unwrap().unwrap()
    };
    let visible = async |event: &crate::ReadEvent| {
        let (snapshot, look) = seen.look().await;
        let events = std::slice::from_ref(event);
        let visible = room.visible(&snapshot, &viewers[1], &look, events).await;
        visible.unwrap()[0]
    };
    let (earlier, here) = (find(&before).await, find(&during).await);
    seen.send(text(&alice(), "later")).await;
    assert!(visible(&here).await);
    // It came after they had joined, from where that was not known.
    let mut fork = here.clone();
    fork.row.header.sender = "@carol:elsewhere.example".to_owned();
    assert!(visible(&fork).await);
    fork.roots = earlier.roots;
    assert!(!visible(&fork).await);
    // It came after they had left, from where they were still thought to be in the room.
    seen.send(member(&bob(), &bob(), "leave")).await;
    let after = seen.send(text(&alice(), "after")).await;
    let mut fork = find(&after).await;
    assert!(!visible(&fork).await);
    fork.row.header.sender = "@carol:elsewhere.example".to_owned();
    fork.roots = here.roots;
    assert!(!visible(&fork).await);
    assert!(visible(&here).await);
}
