//! What other servers send: events of rooms, and what is told beside them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#transactions

use std::collections::BTreeMap;

use error::Result;
use futures_util::{StreamExt as _, stream};
use ruma::{
    OwnedEventId, OwnedRoomId, ServerName, api::federation::transactions::send_transaction_message,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::{Batch, CommitError, OnceKey, schema::ONCE_BY_DAY};

use super::edus::receive_edu;
use crate::{Call, Server};

/// Events in one transaction, at most.
const PDUS_MAX: usize = 50;
/// What is told beside them in one, at most.
const EDUS_MAX: usize = 100;
/// Rooms of one transaction that are worked on side by side.
const ROOMS_AT_ONCE: usize = 8;

/// What became of the events of a transaction; for those that are not taken, why.
type Answer = BTreeMap<OwnedEventId, Result<(), String>>;

/// [`PUT /send/{txnId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid).
///
/// A transaction that is sent again is answered as it was. Its id is written last: what was done of one that
/// was broken off is known event by event.
pub(super) async fn send_transaction_message(
    server: Server,
    call: Call<send_transaction_message::v1::Request>,
) -> Result<send_transaction_message::v1::Response> {
    if call.pdus.len() > PDUS_MAX || call.edus.len() > EDUS_MAX {
        return Err(error::bad_json(format!(
            "A transaction has at most {PDUS_MAX} events and {EDUS_MAX} of what is told beside them"
        )));
    }
    let origin = &*call.caller;
    let _turn = server.transaction_turns.take(origin).await?;
    let name = [origin.as_str(), "\0", call.transaction_id.as_str()].concat();
    let once = OnceKey {
        day: OnceKey::day_of(server.rooms.now()),
        name: server.storage.hash("transaction of a server", name),
    };
    if let Some(answer) = find_answer(&server, once).await? {
        return Ok(send_transaction_message::v1::Response::new(answer));
    }
    let answer = receive_pdus(&server, origin, call.request.pdus).await?;
    for edu in &call.request.edus {
        receive_edu(&server, origin, edu).await?;
    }
    remember(&server, once, &answer).await?;
    Ok(send_transaction_message::v1::Response::new(answer))
}

/// Gives each room its events, in their order; rooms are worked on side by side.
async fn receive_pdus(
    server: &Server,
    origin: &ServerName,
    pdus: Vec<Box<RawValue>>,
) -> Result<Answer> {
    #[derive(Deserialize)]
    struct OfRoom {
        room_id: OwnedRoomId,
    }
    let mut by_room: BTreeMap<OwnedRoomId, Vec<Box<RawValue>>> = BTreeMap::new();
    for pdu in pdus {
        match serde_json::from_str::<OfRoom>(pdu.get()) {
            Ok(OfRoom { room_id }) => by_room.entry(room_id).or_default().push(pdu),
            // Without its room nobody can tell which version's rules it follows, nor its id.
            Err(error) => tracing::debug!(%origin, %error, "an event without a room"),
        }
    }
    let rooms = by_room.into_iter().map(|(room_id, pdus)| async move {
        server.rooms.receive_pdus(origin, &room_id, pdus).await
    });
    let mut rooms = stream::iter(rooms).buffer_unordered(ROOMS_AT_ONCE);
    let mut answer = Answer::new();
    while let Some(taken) = rooms.next().await {
        answer.extend(taken?);
    }
    Ok(answer)
}

/// What was answered to a transaction before.
async fn find_answer(server: &Server, once: OnceKey) -> Result<Option<Answer>> {
    let snapshot = server.rooms.snapshot().await?;
    let rows = snapshot.multi_get(&ONCE_BY_DAY, &once.keys()).await?;
    let Some(row) = rows.into_iter().flatten().next() else {
        return Ok(None);
    };
    let answer: BTreeMap<OwnedEventId, Option<String>> =
        serde_json::from_slice(&row.value.value.answer).map_err(error::internal)?;
    let answer = answer
        .into_iter()
        .map(|(id, refusal)| (id, refusal.map_or(Ok(()), Err)));
    Ok(Some(answer.collect()))
}

async fn remember(server: &Server, once: OnceKey, answer: &Answer) -> Result<()> {
    let answer: BTreeMap<_, _> = answer
        .iter()
        .map(|(id, taken)| (id, taken.as_ref().err()))
        .collect();
    let answer = serde_json::to_vec(&answer).map_err(error::internal)?;
    let mut batch = Batch::new();
    batch.once(once, answer);
    match server.storage.commit(batch).await {
        // Who asks again is answered by what was written, or does it all again, which changes nothing.
        Ok(_) | Err(CommitError::Done(_) | CommitError::Unknown) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
