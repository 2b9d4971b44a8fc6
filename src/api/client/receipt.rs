//! Receipts.

use std::sync::Arc;

use error::Result;
use rooms::Room;
use ruma::{
    EventId,
    api::client::receipt::create_receipt::{self, v3::ReceiptType},
    events::receipt::ReceiptThread,
};
use storage::schema::ReceiptKind;
use users::Requester;

use super::{joined_room, reading::viewer};
use crate::{Call, Server};

/// [`POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid).
pub(super) async fn create_receipt(
    server: Server,
    call: Call<create_receipt::v3::Request>,
) -> Result<create_receipt::v3::Response> {
    let room = joined_room(&server, &call.room_id, &call.caller.user_id).await?;
    let (event_id, thread) = (&call.event_id, &call.thread);
    if !matches!(
        thread,
        ReceiptThread::Unthreaded | ReceiptThread::Main | ReceiptThread::Thread(_)
    ) {
        return Err(error::invalid_param("thread_id is \"main\" or an event ID"));
    }
    let kind = match &call.receipt_type {
        ReceiptType::Read => ReceiptKind::Read,
        ReceiptType::ReadPrivate => ReceiptKind::ReadPrivate,
        ReceiptType::FullyRead if *thread == ReceiptThread::Unthreaded => {
            set_marker(&server, &call.caller, &room, event_id).await?;
            return Ok(create_receipt::v3::Response::new());
        }
        ReceiptType::FullyRead => {
            return Err(error::invalid_param("m.fully_read has no thread_id"));
        }
        other => {
            return Err(error::invalid_param(format!(
                "There is no receipt type {:?}; choose m.read, m.read.private or m.fully_read",
                other.as_str()
            )));
        }
    };
    let viewer = viewer(&server, &call.caller);
    server
        .rooms
        .set_receipt(&room, &viewer, kind, event_id, thread)
        .await?;
    Ok(create_receipt::v3::Response::new())
}

/// Sets the marker of a room up to which its reader has read all.
pub(super) async fn set_marker(
    server: &Server,
    requester: &Requester,
    room: &Arc<Room>,
    event_id: &EventId,
) -> Result<()> {
    server
        .users
        .set_fully_read(requester.user, room.short, event_id)
        .await
}
