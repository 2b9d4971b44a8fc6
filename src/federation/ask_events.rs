//! Asking another server for lists of events, which are as long as a room is large: they are parsed while the answer
//! comes in, so that its text is never there whole.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use pdu::{Pdu, RoomRules};
use ruma::ServerName;

use crate::{
    Broken, Failure, Federation, Limits, Patience, Proof, Question,
    ask::{read_answer, written},
    lists::Lists,
    pdus::spread,
    transport::{Pieces, whole},
};

/// So many events are parsed together at most, or such as have so many bytes together.
const EVENTS_AT_ONCE: usize = 1_024;
const BYTES_AT_ONCE: usize = 4 << 20;
/// The longest answer of a server that refuses, in bytes.
const REFUSAL_MAX: usize = 1 << 20;

/// Which lists of an answer hold events of what kind of room, and how many.
#[derive(Clone, Copy, Debug)]
pub struct EventLists<const N: usize> {
    /// The names of the lists.
    pub names: [&'static str; N],
    /// The rules of the room.
    pub rules: &'static RoomRules,
    /// The most events of all lists together.
    pub most: usize,
}

impl Federation {
    /// Asks another server for lists of events. The answer without the events, and the events of each list that are
    /// well formed; their signatures are not looked at, see [`Federation::verify_pdus`].
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn ask_for_events<R: Question, const N: usize>(
        &self,
        to: &ServerName,
        question: R,
        lists: EventLists<N>,
        patience: Patience,
    ) -> Result<(R::IncomingResponse, [Vec<Pdu>; N]), Failure> {
        let request = written(question)?;
        let request = self.prepare(to, request, <R::Authentication as Proof>::SIGNED, patience)?;
        let limits = self.limits(patience);
        let began = self.now();
        let told = self.read_events(to, request, &lists, limits);
        let (answer, events) = match tokio::time::timeout(limits.time, told).await {
            Ok(Ok((answer, events))) => (Ok(answer), events),
            Ok(Err(broken)) => (Err(broken), Ok(none())),
            Err(_) => (Err(Broken::late(limits)), Ok(none())),
        };
        let answer = self.judge(to, began, answer).await?;
        let events = events.map_err(Failure::BadAnswer)?;
        Ok((read_answer::<R>(answer)?, events))
    }

    /// An answer without events, and these; the inner error says why they cannot be read.
    async fn read_events<const N: usize>(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        lists: &EventLists<N>,
        limits: Limits,
    ) -> Result<(Response<Bytes>, Result<[Vec<Pdu>; N], String>), Broken> {
        let answer = self
            .transport()
            .send_for_pieces(to, request, limits)
            .await?;
        let (head, pieces) = answer.into_parts();
        if !head.status.is_success() {
            let body = whole(pieces, REFUSAL_MAX).await?;
            return Ok((Response::from_parts(head, body), Ok(none())));
        }
        Ok(match parsed(pieces, lists).await? {
            Ok((rest, events)) => (Response::from_parts(head, rest), Ok(events)),
            Err(why) => (Response::from_parts(head, Bytes::new()), Err(why)),
        })
    }
}

/// Lists without events.
fn none<const N: usize>() -> [Vec<Pdu>; N] {
    [(); N].map(|()| Vec::new())
}

/// Parses the events of lists as they come. What remains of the answer, and the events; the inner error says why
/// there are none.
async fn parsed<const N: usize>(
    mut pieces: Pieces,
    lists: &EventLists<N>,
) -> Result<Result<(Bytes, [Vec<Pdu>; N]), String>, Broken> {
    let mut cut = Lists::new(&lists.names);
    let mut lot = Vec::new();
    let mut bytes = 0;
    let mut events = none();
    let mut count: usize = 0;
    loop {
        let piece = pieces.next().await.transpose()?;
        let taken = cut.take(piece.as_deref().unwrap_or_default(), |list, text| {
            bytes += text.len();
            count += 1;
            lot.push((list, text));
        });
        if let Err(fault) = taken {
            return Ok(Err(fault.to_string()));
        }
        if count > lists.most {
            return Ok(Err(format!("there are more than {} events", lists.most)));
        }
        if piece.is_none() || lot.len() >= EVENTS_AT_ONCE || bytes >= BYTES_AT_ONCE {
            let rules = lists.rules;
            let parse = move |(list, text): (usize, Vec<u8>)| (list, Pdu::parse(&text, rules));
            let parsed = match spread(std::mem::take(&mut lot), parse).await {
                Ok(parsed) => parsed,
                Err(fault) => return Ok(Err(fault.to_string())),
            };
            for (list, event) in parsed {
                match (event, events.get_mut(list)) {
                    (Ok(event), Some(events)) => events.push(event),
                    (Err(fault), _) => tracing::debug!(%fault, "an event of an answer is left out"),
                    (Ok(_), None) => {}
                }
            }
            bytes = 0;
        }
        if piece.is_none() {
            break;
        }
    }
    Ok(match cut.end() {
        Ok(rest) => Ok((Bytes::from(rest), events)),
        Err(fault) => Err(fault.to_string()),
    })
}
