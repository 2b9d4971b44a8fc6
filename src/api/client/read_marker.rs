//! The fully-read marker.

use error::Result;
use rooms::{NewReceipt, ReadUpTo};
use ruma::{api::client::read_marker::set_read_marker, events::receipt::ReceiptThread};
use storage::schema::ReceiptKind;

use super::reading::viewer;
use crate::{Call, Server};

/// [`POST /rooms/{roomId}/read_markers`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers).
pub(super) async fn set_read_marker(
    server: Server,
    call: Call<set_read_marker::v3::Request>,
) -> Result<set_read_marker::v3::Response> {
    let viewer = viewer(&server, &call.caller);
    let request = call.request;
    let kinds = [
        (ReceiptKind::Read, request.read_receipt),
        (ReceiptKind::ReadPrivate, request.private_read_receipt),
    ];
    let receipts = kinds.into_iter().filter_map(|(kind, event_id)| {
        Some(NewReceipt {
            kind,
            event_id: event_id?,
            thread: ReceiptThread::Unthreaded,
        })
    });
    let wish = ReadUpTo {
        receipts: receipts.collect(),
        fully_read: request.fully_read,
    };
    let room = server.rooms.room(&request.room_id).await?;
    server.rooms.read_up_to(&room, &viewer, &wish).await?;
    server.rooms.is_active(&viewer).await;
    Ok(set_read_marker::v3::Response::new())
}
