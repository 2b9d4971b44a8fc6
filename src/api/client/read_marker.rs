//! The read marker.

use error::Result;
use ruma::{api::client::read_marker::set_read_marker, events::receipt::ReceiptThread};
use storage::schema::ReceiptKind;

use super::{joined_room, reading::viewer, receipt::set_marker};
use crate::{Call, Server};

/// [`POST /rooms/{roomId}/read_markers`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers).
pub(super) async fn set_read_marker(
    server: Server,
    call: Call<set_read_marker::v3::Request>,
) -> Result<set_read_marker::v3::Response> {
    let room = joined_room(&server, &call.room_id, &call.caller.user_id).await?;
    if let Some(event_id) = &call.fully_read {
        set_marker(&server, &call.caller, &room, event_id).await?;
    }
    let viewer = viewer(&server, &call.caller);
    let receipts = [
        (ReceiptKind::Read, &call.read_receipt),
        (ReceiptKind::ReadPrivate, &call.private_read_receipt),
    ];
    for (kind, event_id) in receipts {
        let Some(event_id) = event_id else { continue };
        server
            .rooms
            .set_receipt(&room, &viewer, kind, event_id, &ReceiptThread::Unthreaded)
            .await?;
    }
    Ok(set_read_marker::v3::Response::new())
}
