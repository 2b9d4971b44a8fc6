//! Invites of people of whom only an address was known.

use error::Result;
use rooms::BoundInvite;
use ruma::{
    api::federation::thirdparty::{bind_callback, exchange_invite},
    events::StateEventType,
};

use crate::{Call, Server};

/// [`PUT /3pid/onbind`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind).
pub(super) async fn bind_callback(
    server: Server,
    call: Call<bind_callback::v1::Request>,
) -> Result<bind_callback::v1::Response> {
    let request = call.request;
    let invites = request.invites.into_iter().map(|invite| BoundInvite {
        room_id: invite.room_id,
        sender: invite.sender,
        signed: invite.signed.into_json(),
    });
    let invites = invites.collect();
    server
        .rooms
        .take_bound_invites(&request.mxid, invites)
        .await?;
    Ok(bind_callback::v1::Response::new())
}

/// [`PUT /exchange_third_party_invite/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid).
pub(super) async fn exchange_invite(
    server: Server,
    call: Call<exchange_invite::v1::Request>,
) -> Result<exchange_invite::v1::Response> {
    if call.kind != StateEventType::RoomMember {
        return Err(error::invalid_param("`type` must be `m.room.member`"));
    }
    let (room_id, sender, invitee) = (&call.room_id, &call.sender, &call.state_key);
    let content = call.content.json();
    server
        .rooms
        .exchange_invite(&call.caller, room_id, sender, invitee, content)
        .await?;
    Ok(exchange_invite::v1::Response::new())
}
