//! What somebody is, or was, notified of.

use error::Result;
use futures_util::future::try_join_all;
use rooms::{NotificationQuery, Notified};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, api::client::push::get_notifications,
    events::AnySyncTimelineEvent, serde::Raw,
};
use storage::{Position, Snapshot};

use crate::{
    Call, Server,
    client::reading::{Reading, viewer},
};

/// How many notifications a page has at most, and where the client does not say.
const MOST: usize = 500;
const PAGE: usize = 50;

/// [`GET /notifications`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3notifications).
pub(in crate::client) async fn get_notifications(
    server: Server,
    call: Call<get_notifications::v3::Request>,
) -> Result<get_notifications::v3::Response> {
    let before = call.from.as_deref().map(position_of).transpose()?;
    let limit = call.limit.map_or(PAGE, |limit| {
        usize::try_from(u64::from(limit)).unwrap_or(MOST)
    });
    let query = NotificationQuery {
        before,
        limit: limit.clamp(1, MOST),
        highlights: call.only.as_deref() == Some("highlight"),
    };
    let viewer = viewer(&server, &call.caller);
    let page = server.rooms.notifications(&viewer, query).await?;
    let notifications = page.snapshot.gathered(async |snapshot| {
        let all = page.notified.iter();
        try_join_all(all.map(|one| notification(&server, &call, &snapshot, one))).await
    });
    let notifications = notifications.await?;
    let mut response = get_notifications::v3::Response::new(notifications);
    response.next_token = page.next.map(token);
    Ok(response)
}

async fn notification(
    server: &Server,
    call: &Call<get_notifications::v3::Request>,
    snapshot: &Snapshot,
    notified: &Notified,
) -> Result<get_notifications::v3::Notification> {
    let reading = Reading {
        server: server.clone(),
        room: notified.room.clone(),
        snapshot: snapshot.clone(),
        viewer: viewer(server, &call.caller),
        look: notified.look.clone(),
    };
    let written = reading
        .events(std::slice::from_ref(&notified.event))
        .await?;
    let event: Option<Raw<AnySyncTimelineEvent>> = written.into_iter().next();
    let received = notified.event.row.header.received_ts;
    Ok(get_notifications::v3::Notification::new(
        notified.actions.clone(),
        event.ok_or_else(|| error::internal("an event was not written"))?,
        notified.read,
        notified.room.room_id.clone(),
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(received)),
    ))
}

/// A place in all that notifies: `n`, and the position.
fn token(position: Position) -> String {
    format!("n{:032x}", u128::from_be_bytes(position.to_bytes()))
}

fn position_of(token: &str) -> Result<Position> {
    let number = token.strip_prefix('n').filter(|number| number.len() == 32);
    let number = number.and_then(|number| u128::from_str_radix(number, 16).ok());
    let position = number.map(|number| Position::from_bytes(number.to_be_bytes()));
    position.ok_or_else(|| {
        error::invalid_param("`from` is no token that this server has given out for notifications")
    })
}
