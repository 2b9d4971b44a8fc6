//! Memberships, account data, and what people do not want to hear.

use rooms::Said;
use serde_json::{json, value::to_raw_value};
use storage::Position;

use super::{World, each};
use crate::{StateForm, v3};

#[tokio::test]
async fn an_invite_is_told_until_it_is_answered() {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    let (_, token) = world.sync(1, None).await;
    let invited = world
        .rooms
        .invite(&room, world.id(0), world.id(1), Said::default());
    invited.await.unwrap();
    let (update, next) = world.sync(1, Some(token)).await;
    let types = each(&update.invited[0].stripped_state, "/type");
    assert!(types.contains(&"m.room.create".to_owned()), "{types:?}");
    assert_eq!(types.last().unwrap(), "m.room.member");
    assert!(world.sync(1, Some(next)).await.0.is_empty(), "told once");
    let (update, _) = world.sync(1, None).await;
    assert_eq!(update.invited.len(), 1, "and to who begins anew");

    world.leave(&room, 1).await;
    let (update, next) = world.sync(1, Some(next)).await;
    assert!(update.invited.is_empty() && update.joined.is_empty());
    let left = &update.left[0];
    assert_eq!(
        each(&left.timeline.events, "/content/membership"),
        ["leave"]
    );
    assert!(
        left.state.is_empty(),
        "the room's state is not theirs to see"
    );
    world.say(&room, 0, "among us").await;
    assert!(world.sync(1, Some(next)).await.0.is_empty());
}

#[tokio::test]
async fn who_is_ignored_is_not_heard_and_does_not_invite() {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    let other = world.room(0, "shared").await;
    world.join(&room, 1).await;
    let ignored = json!({ "ignored_users": { world.id(0).as_str(): {} } });
    let content = to_raw_value(&ignored).unwrap();
    let user = world.people[1].short;
    let ignore = world
        .users
        .set_account_data(user, None, "m.ignored_user_list", &content);
    ignore.await.unwrap();
    let (update, token) = world.sync(1, None).await;
    assert_eq!(
        each(&update.account_data, "/type").len(),
        2,
        "push rules too"
    );
    world.say(&room, 0, "hello?").await;
    let invited = world
        .rooms
        .invite(&other, world.id(0), world.id(1), Said::default());
    invited.await.unwrap();
    let topic = json!({ "topic": "state is shown" });
    world
        .set(&room, 0, "m.room.topic", "", topic)
        .await
        .unwrap();
    let (update, _) = world.sync(1, Some(token)).await;
    assert!(update.invited.is_empty());
    let types = each(&update.joined[0].timeline.events, "/type");
    assert_eq!(types, ["m.room.topic"]);
}

#[tokio::test]
async fn rooms_that_were_left_are_there_for_who_asks_and_forgotten_ones_are_not() {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    world.join(&room, 1).await;
    world.say(&room, 1, "bye").await;
    world.leave(&room, 1).await;
    world.say(&room, 0, "gone").await;
    assert!(world.sync(1, None).await.0.left.is_empty());
    let archived = json!({ "room": { "include_leave": true, "timeline": { "limit": 2 } } });
    let (update, _) = world.ask(&world.request(1, None, archived.clone())).await;
    let left = &update.left[0];
    let types = each(&left.timeline.events, "/type");
    assert_eq!(types, ["m.room.message", "m.room.member"]);
    assert!(left.timeline.limited);
    let state = each(&left.state, "/type");
    assert!(state.contains(&"m.room.create".to_owned()));
    let user = world.people[1].short;
    world.rooms.forget(&room.room_id, user).await.unwrap();
    let (update, _) = world.ask(&world.request(1, None, archived)).await;
    assert!(update.left.is_empty());
}

#[tokio::test]
async fn account_data_is_told_where_it_belongs() {
    let world = World::on_model(&["alice"]).await;
    let room = world.room(0, "shared").await;
    let (_, token) = world.sync(0, None).await;
    let user = world.people[0].short;
    let content = to_raw_value(&json!({ "a": 1 })).unwrap();
    for at in [None, Some(room.short)] {
        let set = world
            .users
            .set_account_data(user, at, "org.example.x", &content);
        set.await.unwrap();
    }
    let (update, token) = world.sync(0, Some(token)).await;
    assert_eq!(each(&update.account_data, "/type"), ["org.example.x"]);
    let of_room = &update.joined[0].account_data;
    assert_eq!(each(of_room, "/content/a"), ["1"]);
    assert!(update.joined[0].timeline.events.is_empty());
    assert!(world.sync(0, Some(token)).await.0.is_empty());
}

#[tokio::test]
async fn a_token_of_another_history_begins_anew() {
    let world = World::on_model(&["alice"]).await;
    world.room(0, "shared").await;
    let (_, mut token) = world.sync(0, None).await;
    assert!(world.sync(0, Some(token)).await.0.is_empty());
    let position = token.position;
    token.position = Position::new(position.epoch() + 1, position.stamp(), position.index());
    let (update, _) = world.sync(0, Some(token)).await;
    assert_eq!(update.joined.len(), 1);
    assert!(!update.account_data.is_empty());
}

#[tokio::test]
async fn the_answer_is_what_the_specification_says() {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    world.join(&room, 1).await;
    for (form, name) in [
        (StateForm::Before, "state"),
        (StateForm::After, "state_after"),
        (StateForm::UnstableAfter, "org.matrix.msc4222.state_after"),
    ] {
        let filter = json!({ "room": { "timeline": { "limit": 1 } } });
        let mut request = world.request(1, None, filter);
        request.state = form;
        let (update, token) = world.ask(&request).await;
        let body = v3::encode(&request, &update, token).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let joined = &body["rooms"]["join"][room.room_id.as_str()];
        assert!(joined[name]["events"].as_array().unwrap().len() > 4);
        assert_eq!(joined["timeline"]["limited"], true);
        assert_eq!(joined["summary"]["m.joined_member_count"], 2);
        assert_eq!(joined["summary"]["m.heroes"], json!([world.id(0)]));
        assert_eq!(joined["unread_notifications"]["notification_count"], 0);
        let parsed: ruma::api::client::sync::sync_events::v3::Rooms =
            serde_json::from_value(body["rooms"].clone()).unwrap();
        assert_eq!(parsed.join.len(), 1);
    }
}
