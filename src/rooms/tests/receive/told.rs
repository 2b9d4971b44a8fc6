//! States that another server tells.

use ruma::RoomVersionId;
use serde_json::json;
use storage::Storage;

use super::{World, cases::message};
use crate::{Received, Standing};

#[tokio::test]
async fn another_create_event_is_no_part_of_a_state() {
    for version in [RoomVersionId::V1, RoomVersionId::V6, RoomVersionId::V11] {
        for first in [true, false] {
            let mut world = World::new(Storage::model(), &version).await;
            world.join(1).await;
            let content = json!({ "room_version": version, "creator": super::alice() });
            let key = Some(String::new());
            let another = world.make(0, "m.room.create", key, &content, Vec::new(), None);
            // By itself it is an event of the room's server as the first one.
            let kept = world.take(&another, Standing::Outlier).await;
            assert_eq!(kept, Received::Accepted);
            let latest = world.latest();
            let unknown = message(&mut world, "not for us", latest);
            let event = message(&mut world, "after", unknown.event_id().to_owned());
            let mut told = world.state_ids();
            let at = if first { 0 } else { told.len() };
            told.insert(at, another.event_id().to_owned());
            let given = Standing::Live {
                state_before: Some(told),
            };
            assert_eq!(world.take(&event, given).await, Received::Accepted);
            // What comes behind it is judged by the room's create event as well.
            let next = message(&mut world, "next", event.event_id().to_owned());
            let live = Standing::Live { state_before: None };
            assert_eq!(world.take(&next, live).await, Received::Accepted);
        }
    }
}
