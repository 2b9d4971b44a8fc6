//! Events as another server sends them, all of one room.

use std::sync::Arc;

use pdu::{Pdu, claimed_event_id};
use ruma::{OwnedEventId, RoomId, ServerName};
use serde_json::value::RawValue;
use storage::{
    Reads,
    schema::{self, Outcome, Standing as StoredStanding},
};

use crate::{Incoming, Received, Room, Rooms, ServerAcl, StoredEvent, server_acl::denied};

/// What became of an event that a server sent: it has it off its hands, or why it is not taken.
pub type Taken = Result<(), String>;

/// Whether a server's events are taken in a room.
enum Admission {
    Admitted,
    Denied(String),
    /// None of ours is in the room.
    Outside,
}

/// An event as it came, and what it is.
struct Sent {
    raw: Box<RawValue>,
    event_id: OwnedEventId,
    /// It is here, as more than an outlier.
    known: bool,
}

impl Rooms {
    /// Takes in events of one room that a server sent, in their order: what became of each of which the id
    /// can be told. Those that lack what they follow, or what allows them, or the signature of the room's policy
    /// server, wait until that was fetched.
    ///
    /// Rejected and soft-failed ones are off the server's hands as well ([spec]).
    ///
    /// # Errors
    ///
    /// Storage fails.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/server-server-api/#rejection
    pub async fn receive_pdus(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        raw: Vec<Box<RawValue>>,
    ) -> error::Result<Vec<(OwnedEventId, Taken)>> {
        // What is not of a room that is known here cannot be understood.
        let Some(room) = self.find_room(room_id).await? else {
            return Ok(Vec::new());
        };
        let (mut sent, mut taken) = read(&room, raw);
        match self.admission(&room, origin, &mut sent).await? {
            Admission::Admitted => {}
            Admission::Denied(reason) => {
                let all = sent.into_iter();
                taken.extend(all.map(|one| (one.event_id, Err(reason.clone()))));
                return Ok(taken);
            }
            Admission::Outside => {
                taken.extend(self.take_from_outside(&room, sent).await?);
                return Ok(taken);
            }
        }
        let (known, new): (Vec<_>, Vec<_>) = sent.into_iter().partition(|one| one.known);
        taken.extend(known.into_iter().map(|one| (one.event_id, Ok(()))));
        let (ids, raw): (Vec<_>, Vec<_>) =
            new.into_iter().map(|one| (one.event_id, one.raw)).unzip();
        let checked = self
            .federation()
            .check_pdus(room.rules, raw.clone())
            .await?;
        let (mut sound, mut incoming) = (Vec::new(), Vec::new());
        for ((event_id, raw), checked) in ids.into_iter().zip(raw).zip(checked) {
            match checked {
                Ok(pdu) => {
                    sound.push((event_id, raw));
                    incoming.push(Incoming::live(pdu.into()));
                }
                Err(fault) => taken.push((event_id, Err(fault.to_string()))),
            }
        }
        let received = self.receive_all(&room, incoming).await?;
        let mut waiting = Vec::new();
        for ((event_id, raw), received) in sound.into_iter().zip(received) {
            match received {
                Received::Missing { .. } | Received::ToSign(_) => waiting.push((event_id, raw)),
                received => {
                    log(&room, origin.as_str(), &event_id, &received);
                    taken.push((event_id, Ok(())));
                }
            }
        }
        taken.extend(self.keep_waiting(&room, origin, waiting).await?);
        Ok(taken)
    }

    /// Keeps events that wait for what they follow, as far as there is room for them: what became of each.
    async fn keep_waiting(
        &self,
        room: &Arc<Room>,
        origin: &ServerName,
        waiting: Vec<(OwnedEventId, Box<RawValue>)>,
    ) -> error::Result<Vec<(OwnedEventId, Taken)>> {
        let (ids, raw): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let json = raw.iter().map(|raw| raw.get().to_owned()).collect();
        let kept = self.let_wait(room, origin, json).await?;
        let full =
            "Too many events of this room, or of your server in it, wait for what they follow";
        let taken = ids.into_iter().enumerate().map(|(index, id)| {
            let outcome = if index < kept {
                Ok(())
            } else {
                Err(full.to_owned())
            };
            (id, outcome)
        });
        Ok(taken.collect())
    }

    /// Takes note of events of a room in which we are not, if they concern somebody who is invited there or
    /// knocks.
    async fn take_from_outside(
        &self,
        room: &Room,
        sent: Vec<Sent>,
    ) -> error::Result<Vec<(OwnedEventId, Taken)>> {
        let (ids, raw): (Vec<_>, Vec<_>) =
            sent.into_iter().map(|one| (one.event_id, one.raw)).unzip();
        let checked = self.federation().check_pdus(room.rules, raw).await?;
        let mut taken = Vec::new();
        for (event_id, checked) in ids.into_iter().zip(checked) {
            let outcome = match checked {
                Ok(pdu) if self.hear_from_outside(&pdu).await? => Ok(()),
                Ok(_) => Err("Nobody of this server is in the room".to_owned()),
                Err(fault) => Err(fault.to_string()),
            };
            taken.push((event_id, outcome));
        }
        Ok(taken)
    }

    /// Whether a server's events are taken in a room: this server takes part in it, and the room's access
    /// control list does not deny the other one. Marks the events that are here.
    async fn admission(
        &self,
        room: &Room,
        origin: &ServerName,
        sent: &mut [Sent],
    ) -> error::Result<Admission> {
        let snapshot = self.snapshot().await?;
        let acl = ServerAcl::key();
        let keys = std::slice::from_ref(&acl);
        let (head, numbers) = room.current_numbers(self, &snapshot, keys).await?;
        let mut reads = Reads::new();
        let ours = self.storage().server_hash(self.server_name());
        let ours = reads.get(
            &schema::SERVER_BY_ROOM,
            &(room.short, head.generation, ours),
        );
        let numbers: Vec<_> = numbers.into_iter().flatten().collect();
        let keys: Vec<_> = numbers.iter().map(|one| (room.short, *one)).collect();
        let acl = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        let names = sent
            .iter()
            .map(|one| self.storage().event_hash(&one.event_id));
        let names: Vec<_> = names.collect();
        let refs = reads.get_all(&schema::NUMBER_BY_EVENT, &names);
        let answers = snapshot.read(&reads).await?;
        if answers.one(&ours)?.is_none_or(|row| row.value.joined == 0) {
            return Ok(Admission::Outside);
        }
        for (number, row) in numbers.into_iter().zip(answers.all(&acl)?) {
            let Some(row) = row else { continue };
            let event = StoredEvent::from_row(number, row.value, room.rules, false)?;
            if !ServerAcl::of(event.pdu.content_bytes()).allows(origin) {
                return Ok(Admission::Denied(denied().to_string()));
            }
        }
        let mut here = Vec::new();
        for (one, row) in sent.iter_mut().zip(answers.all(&refs)?) {
            let row = row
                .map(|row| row.value)
                .filter(|row| row.room == room.short);
            if let Some(number) = row.and_then(|row| row.number) {
                here.push((one, (room.short, number)));
            }
        }
        let keys: Vec<_> = here.iter().map(|(_, key)| *key).collect();
        let verdicts = snapshot.multi_get(&schema::VERDICT_BY_EVENT, &keys).await?;
        for ((one, _), verdict) in here.into_iter().zip(verdicts) {
            one.known = verdict.is_none_or(|row| {
                let verdict = row.value;
                // What was rejected may be allowed now.
                verdict.standing != StoredStanding::Outlier && verdict.outcome != Outcome::Rejected
            });
        }
        Ok(Admission::Admitted)
    }
}

/// The events of a room among what was sent, and what is to be said of the rest of which the id can be told.
fn read(room: &Room, raw: Vec<Box<RawValue>>) -> (Vec<Sent>, Vec<(OwnedEventId, Taken)>) {
    let (mut sent, mut wrong) = (Vec::new(), Vec::new());
    for raw in raw {
        let text = raw.get().as_bytes();
        let fault = match Pdu::parse(text, room.rules) {
            Ok(pdu) if pdu.room_id() == room.room_id => {
                let event_id = pdu.event_id().to_owned();
                sent.push(Sent {
                    raw,
                    event_id,
                    known: false,
                });
                continue;
            }
            Ok(_) => "The event is of another room".to_owned(),
            Err(fault) => fault.to_string(),
        };
        if let Some(event_id) = claimed_event_id(text, room.rules) {
            wrong.push((event_id, Err(fault)));
        }
    }
    // What is wrong under an id is not said of an event that has it.
    wrong.retain(|(id, _)| !sent.iter().any(|one| one.event_id == *id));
    (sent, wrong)
}

/// Says in the log what became of an event that did not simply pass.
pub(super) fn log(room: &Room, origin: &str, event_id: &OwnedEventId, received: &Received) {
    let room = &room.room_id;
    match received {
        Received::Accepted | Received::Known => {}
        Received::Rejected(reason) => {
            tracing::info!(%room, %origin, event = %event_id, reason, "an event was rejected");
        }
        Received::SoftFailed(reason) => {
            tracing::info!(%room, %origin, event = %event_id, reason, "an event was soft-failed");
        }
        Received::ToSign(policy) => {
            let via = &policy.via;
            tracing::info!(%room, %origin, event = %event_id, %via, "an event is not signed by a policy server that changes too fast, it is dropped");
        }
        Received::Missing { auth, prev } => {
            let (auth, prev) = (auth.len(), prev.len());
            tracing::info!(%room, %origin, event = %event_id, auth, prev, "what an event lacks cannot be had, it is dropped");
        }
    }
}
