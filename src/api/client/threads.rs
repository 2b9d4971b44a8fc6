//! The threads of a room.

use error::Result;
use rooms::{PlaceToken, Span};
use ruma::api::{
    Direction,
    client::threads::get_threads::{self, v1::IncludeThreads},
};
use storage::schema::Place;

use super::{reading::Reading, relations::page_limit};
use crate::{Call, Server};

/// [`GET /rooms/{roomId}/threads`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads).
pub(super) async fn get_threads(
    server: Server,
    call: Call<get_threads::v1::Request>,
) -> Result<get_threads::v1::Response> {
    let limit = page_limit(call.limit)?;
    let only_participated = match call.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => {
            return Err(error::invalid_param("`include` is `all` or `participated`"));
        }
    };
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let Reading {
        room,
        snapshot,
        viewer,
        look,
        ..
    } = &reading;
    let from = match &call.from {
        Some(token) => reading.boundary(token).await?,
        None => PlaceToken(Place::END),
    };
    let span = Span {
        from,
        to: None,
        direction: Direction::Backward,
        limit,
    };
    let page = room
        .threads(
            &server.rooms,
            snapshot,
            (viewer, look),
            only_participated,
            span,
        )
        .await?;
    let mut response = get_threads::v1::Response::new(reading.events(&page.events).await?);
    response.next_batch = page.next.map(|next| next.to_string());
    Ok(response)
}
