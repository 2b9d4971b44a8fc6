//! Receipts.

use error::Result;
use rooms::{NewReceipt, ReadUpTo};
use ruma::{
    api::client::receipt::create_receipt::{self, v3::ReceiptType},
    events::receipt::ReceiptThread,
};
use storage::schema::ReceiptKind;

use super::reading::viewer;
use crate::{Call, Server};

/// `thread_id` must be a word where there is one.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM`.
pub(super) fn has_thread_id(body: &[u8]) -> Result<()> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("thread_id") {
        None => Ok(()),
        Some(serde_json::Value::String(id)) if !id.is_empty() => Ok(()),
        Some(_) => Err(error::invalid_param(
            "`thread_id` is `main` or the id of the event that a thread begins with",
        )),
    }
}

/// [`POST /rooms/{roomId}/receipt/{receiptType}/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid).
pub(super) async fn create_receipt(
    server: Server,
    call: Call<create_receipt::v3::Request>,
) -> Result<create_receipt::v3::Response> {
    let viewer = viewer(&server, &call.caller);
    let request = call.request;
    let receipt = |kind| NewReceipt {
        kind,
        event_id: request.event_id.clone(),
        thread: request.thread.clone(),
    };
    let mut wish = ReadUpTo::default();
    match request.receipt_type {
        ReceiptType::Read => wish.receipts.push(receipt(ReceiptKind::Read)),
        ReceiptType::ReadPrivate => wish.receipts.push(receipt(ReceiptKind::ReadPrivate)),
        ReceiptType::FullyRead if request.thread != ReceiptThread::Unthreaded => {
            return Err(error::invalid_param(
                "`m.fully_read` is of a whole room: it has no `thread_id`",
            ));
        }
        ReceiptType::FullyRead => wish.fully_read = Some(request.event_id.clone()),
        _ => {
            return Err(error::invalid_param(
                "The type of a receipt is `m.read`, `m.read.private` or `m.fully_read`",
            ));
        }
    }
    let room = server.rooms.room(&request.room_id).await?;
    server.rooms.read_up_to(&room, &viewer, &wish).await?;
    server.rooms.is_active(&viewer).await;
    Ok(create_receipt::v3::Response::new())
}
