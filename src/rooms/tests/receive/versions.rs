//! A room of which somebody had told a wrong version.

use std::{collections::BTreeMap, sync::Arc};

use pdu::{Pdu, RoomRules, SigningKey};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, RoomId, UInt};
use serde_json::{json, value::to_raw_value};
use storage::Storage;

use crate::{Incoming, Standing, tests::rooms, writer::lay_down};

/// The first event of a room of Carol's.
fn create(room: &RoomId, rules: &RoomRules) -> Arc<Pdu> {
    let carol: OwnedUserId = "@carol:far.example".try_into().unwrap();
    let content = json!({ "room_version": rules.version(), "creator": carol });
    let draft = pdu::Draft {
        room_id: Some(room.to_owned()),
        sender: carol.clone(),
        event_type: "m.room.create".into(),
        state_key: Some(String::new()),
        content: to_raw_value(&content).unwrap(),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_u32)),
        redacts: None,
        reference_hashes: BTreeMap::new(),
    };
    let key = SigningKey::from_seed(&[3; 32], "a").unwrap();
    Arc::new(draft.sign(rules, &key, carol.server_name()).unwrap())
}

#[tokio::test]
async fn what_was_read_by_rules_that_were_replaced_is_not_written() {
    let rooms = rooms(Storage::model());
    let room_id = RoomId::parse("!far:far.example").unwrap();
    let [first, second] = ["11", "1"].map(|version| RoomRules::named(version).unwrap());
    let stale = rooms.known_or_new_room(&room_id, first).await.unwrap();
    let event = create(&room_id, first);
    let outlier = |pdu: &Arc<Pdu>| Incoming {
        pdu: Arc::clone(pdu),
        standing: Standing::Outlier,
    };
    // Somebody invites into the room, and says another version, while somebody else is on the way into it.
    let room = rooms.known_or_new_room(&room_id, second).await.unwrap();
    assert_eq!(room.short, stale.short);
    let laid = lay_down(&rooms, &stale, std::slice::from_ref(&event)).await;
    assert_eq!(laid.unwrap_err().status(), 502);
    let received = rooms.receive(&stale, outlier(&event)).await;
    assert_eq!(received.unwrap_err().status(), 502);
    // What is in memory of the room by then is what its row says.
    let room = rooms.find_room(&room_id).await.unwrap().unwrap();
    assert_eq!(room.rules.version(), "1");
    let event = create(&room_id, second);
    let laid = lay_down(&rooms, &room, std::slice::from_ref(&event)).await;
    assert_eq!(laid.unwrap().len(), 1);
    let begun = rooms.known_or_new_room(&room_id, first).await;
    assert_eq!(begun.unwrap_err().status(), 502);
}
