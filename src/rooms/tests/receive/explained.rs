//! What operators are told of a room's state at an event.

use ruma::{EventId, RoomVersionId};
use serde_json::json;
use storage::Storage;

use super::{World, alice, cases::message, person};
use crate::{Differing, Received, Standing};

#[tokio::test]
async fn what_was_chosen_and_what_was_lost_is_told() {
    let mut world = World::new(Storage::model(), &RoomVersionId::V6).await;
    world.join(1).await;
    let first = world.latest();
    let (bob, users) = (person(1).to_string(), |users| json!({ "users": users }));
    let join = world.model.current[&("m.room.member".into(), bob.clone())];
    let join = world.model.known(join).pdu.event_id().to_string();
    let levels = world.model.current[&("m.room.power_levels".into(), String::new())];
    let levels = world.model.known(levels).pdu.event_id().to_string();
    // Bob is put out, then made powerful; beside that he says something.
    let kick = json!({ "membership": "leave" });
    let key = Some(bob.clone());
    let kick = world.make(0, "m.room.member", key, &kick, vec![first.clone()], None);
    world.receive(kick.clone()).await;
    let raised = users(json!({ alice().as_str(): 100, bob.as_str(): 100 }));
    let prev = vec![kick.event_id().to_owned()];
    let key = Some(String::new());
    let raised = world.make(0, "m.room.power_levels", key, &raised, prev, None);
    world.receive(raised.clone()).await;
    let beside = message(&mut world, "still here", first);
    world.receive(beside.clone()).await;
    let none = world.rooms.explain(raised.event_id(), None).await.unwrap();
    assert_eq!((none.differing.len(), none.resets), (0, 0));
    // Who answers both brings him back: the levels come first, and then nobody may put him out.
    let prev = [&raised, &beside].map(|event| event.event_id().to_owned());
    let content = json!({ "msgtype": "m.text", "body": "both" });
    let both = world.make(0, "m.room.message", None, &content, prev.to_vec(), None);
    world.receive(both.clone()).await;
    world.compare().await;
    let told = world.rooms.explain(both.event_id(), None).await.unwrap();
    assert_eq!(told.event.verdict, "accepted");
    let verdicts: Vec<_> = told.prev.iter().map(|one| one.verdict.as_str()).collect();
    assert_eq!(verdicts[0], "accepted");
    assert!(verdicts[1].starts_with("soft-failed: "), "{verdicts:?}");
    let id = |event: &pdu::Pdu| Some(event.event_id().to_string());
    let expected = [
        Differing {
            event_type: "m.room.member".to_owned(),
            state_key: bob.clone(),
            candidates: vec![id(&kick), Some(join.clone())],
            chosen: Some(join.clone()),
        },
        Differing {
            event_type: "m.room.power_levels".to_owned(),
            state_key: String::new(),
            candidates: vec![id(&raised), Some(levels)],
            chosen: id(&raised),
        },
    ];
    assert_eq!(told.differing, expected);
    assert_eq!(told.resets, 1);
    assert_eq!(told.ends, [both.event_id().as_str()]);
    assert!(
        told.state
            .iter()
            .all(|one| one.event_type != "m.room.member")
    );
    let members = world.rooms.explain(both.event_id(), Some("m.room.member"));
    let members = members.await.unwrap().state;
    let ids: Vec<_> = members.iter().map(|one| &one.event_id).collect();
    assert!(ids.contains(&&join) && members.len() == 2, "{members:?}");
    // Of what is not in the graph the state is not known, and of what is not here nothing.
    let outlier = message(&mut world, "nobody's", both.event_id().to_owned());
    let received = world.take(&outlier, Standing::Outlier).await;
    assert_eq!(received, Received::Accepted);
    let told = world.rooms.explain(outlier.event_id(), None).await.unwrap();
    assert_eq!(told.entries, None);
    let unknown = <&EventId>::try_from("$unknown").unwrap();
    let refused = world.rooms.explain(unknown, None).await.unwrap_err();
    assert_eq!(refused.status(), 404);
}
