//! Tags: under what a user files their rooms.

use error::Result;
use ruma::api::client::tag::{create_tag, delete_tag, get_tags};
use serde_json::value::to_raw_value;
use users::AccountData;

use super::{check_own, config::own_room};
use crate::{Call, Server};

/// The account data that tags are.
const TAG: &str = "m.tag";

/// The longest name of a tag, in bytes ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#events-17
const LONGEST: usize = 255;

/// What the account data holds.
type Tags = serde_json::Map<String, serde_json::Value>;

/// [`GET /user/{userId}/rooms/{roomId}/tags`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags).
pub(super) async fn get_tags(
    server: Server,
    call: Call<get_tags::v3::Request>,
) -> Result<get_tags::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let room = own_room(&server, &call.caller, &call.room_id).await?;
    let user = call.caller.user;
    let found = server
        .users
        .find_account_data(user, Some(room), TAG)
        .await?;
    let tags = tags_in(found.as_ref())
        .into_iter()
        .filter_map(|(name, tag)| {
            let tag = serde_json::from_value(tag).ok()?;
            Some((name.into(), tag))
        });
    Ok(get_tags::v3::Response::new(tags.collect()))
}

/// [`PUT /user/{userId}/rooms/{roomId}/tags/{tag}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag).
pub(super) async fn create_tag(
    server: Server,
    call: Call<create_tag::v3::Request>,
) -> Result<create_tag::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    if call.tag.len() > LONGEST {
        return Err(error::invalid_param(format!(
            "The name of a tag has at most {LONGEST} bytes"
        )));
    }
    let room = own_room(&server, &call.caller, &call.room_id).await?;
    let tag = serde_json::to_value(&call.tag_info).map_err(error::internal)?;
    let change = |tags: &mut Tags| drop(tags.insert(call.tag.clone(), tag.clone()));
    change_tags(&server, call.caller.user, room, change).await?;
    Ok(create_tag::v3::Response::new())
}

/// [`DELETE /user/{userId}/rooms/{roomId}/tags/{tag}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag).
pub(super) async fn delete_tag(
    server: Server,
    call: Call<delete_tag::v3::Request>,
) -> Result<delete_tag::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let room = own_room(&server, &call.caller, &call.room_id).await?;
    let change = |tags: &mut Tags| drop(tags.remove(&call.tag));
    change_tags(&server, call.caller.user, room, change).await?;
    Ok(delete_tag::v3::Response::new())
}

fn tags_in(data: Option<&AccountData>) -> Tags {
    #[derive(serde::Deserialize)]
    struct Content {
        tags: Tags,
    }
    // A client may have written anything there.
    data.and_then(|data| serde_json::from_str::<Content>(data.content.get()).ok())
        .map(|content| content.tags)
        .unwrap_or_default()
}

async fn change_tags(
    server: &Server,
    user: storage::ShortUserId,
    room: storage::ShortRoomId,
    change: impl Fn(&mut Tags) + Send + Sync,
) -> Result<()> {
    server
        .users
        .change_account_data(user, Some(room), TAG, |data| {
            let mut tags = tags_in(data);
            change(&mut tags);
            to_raw_value(&serde_json::json!({ "tags": tags })).map_err(error::internal)
        })
        .await
}

/// Files a room of a user under a tag, for the server itself.
pub(crate) async fn add_tag(
    server: &Server,
    user: storage::ShortUserId,
    room: storage::ShortRoomId,
    tag: &str,
) -> Result<()> {
    let change = |tags: &mut Tags| drop(tags.insert(tag.to_owned(), serde_json::json!({})));
    change_tags(server, user, room, change).await
}
