//! Answers with lists of events, of a server whose answers come in pieces.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fmt, sync::Arc};

use futures_util::{future::BoxFuture, stream};
use http::StatusCode;
use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, api::federation::event::get_room_state, server_name,
};
use serde_json::json;
use storage::{Clock, Random, Storage};

use super::*;
use crate::{Parts, Transport};

type Piece = Result<&'static str, Broken>;

/// A server that answers with this, whatever it is asked.
struct Far(StatusCode, Vec<Piece>);

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Far")
    }
}

impl Transport for Far {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        _: Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        Box::pin(async {
            Err(Broken::Unreachable(
                "it is asked for pieces alone".to_owned(),
            ))
        })
    }

    fn send_for_pieces<'a>(
        &'a self,
        _: &'a ServerName,
        _: Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<Response<Pieces>, Broken>> {
        let pieces = self.1.clone().into_iter();
        let pieces = pieces.map(|piece| piece.map(|text| Bytes::from_static(text.as_bytes())));
        let answer = Response::builder().status(self.0);
        let answer = answer.body(stream::iter(pieces).boxed()).unwrap();
        Box::pin(async move { Ok(answer) })
    }
}

type Answer = Result<(get_room_state::v1::Response, [Vec<Pdu>; 2]), Failure>;

/// What comes of asking for a state of at most two events, and whether the server is left alone afterwards.
async fn ask(status: StatusCode, pieces: Vec<Piece>) -> (Answer, bool) {
    let (us, far) = (server_name!("us.example"), server_name!("far.example"));
    let clock = Clock::standing_at(1_700_000_000_000);
    let federation = Federation::open(Parts {
        transport: Arc::new(Far(status, pieces)),
        ..Parts::alone(&Storage::model(), us, &clock, &Random::seeded(1))
    });
    let federation = federation.await.unwrap();
    let room = OwnedRoomId::try_from("!r:far.example").unwrap();
    let event = OwnedEventId::try_from("$e").unwrap();
    let lists = EventLists {
        names: ["pdus", "auth_chain"],
        rules: RoomRules::of(&RoomVersionId::V11).unwrap(),
        most: 2,
    };
    let question = get_room_state::v1::Request::new(event, room);
    let answer = federation.ask_for_events(far, question, lists, Patience::STATE);
    let answer = answer.await;
    (answer, federation.backing_off(far).is_some())
}

#[tokio::test]
async fn events_are_parsed_wherever_the_pieces_end() {
    let create = json!({
        "type": "m.room.create", "state_key": "", "room_id": "!r:far.example", "sender": "@a:far.example",
        "content": {}, "prev_events": [], "auth_events": [], "depth": 1, "origin_server_ts": 1,
        "hashes": { "sha256": "A".repeat(43) }, "signatures": {},
    });
    let create: &'static str = create.to_string().leak();
    let (begin, end) = create.split_at(30);
    let pieces = [
        "{\"pdus\":[",
        begin,
        end,
        ",{\"x\":",
        "1}], \"auth_chain\":[]}",
    ];
    let (answer, _) = ask(StatusCode::OK, pieces.map(Ok).to_vec()).await;
    let (rest, [state, chain]) = answer.unwrap();
    assert!(rest.pdus.is_empty() && chain.is_empty());
    let types: Vec<_> = state
        .iter()
        .map(|pdu| pdu.event_type().to_string())
        .collect();
    assert_eq!(types, ["m.room.create"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let lost = || Broken::Unreachable("it is gone".to_owned());
    let (answer, left_alone) = ask(StatusCode::OK, vec![Ok("{\"pdus\":[{}"), Err(lost())]).await;
    assert!(matches!(answer, Err(Failure::Unreachable(_))), "{answer:?}");
    assert!(left_alone);
    // It says itself that this is all.
    let (answer, left_alone) = ask(StatusCode::OK, vec![Ok("{\"pdus\":[{}")]).await;
    assert!(matches!(answer, Err(Failure::BadAnswer(_))), "{answer:?}");
    assert!(!left_alone);
}

#[tokio::test]
async fn no_more_events_are_read_than_are_wanted() {
    let begin = Ok("{\"pdus\":[{},{}],\"auth_chain\":[");
    let (answer, _) = ask(StatusCode::OK, vec![begin.clone(), Ok("]}")]).await;
    assert!(answer.is_ok(), "{answer:?}");
    let endless = std::iter::repeat_n(Ok("{},"), 1_000);
    let pieces = std::iter::once(begin).chain(endless).collect();
    let (answer, _) = ask(StatusCode::OK, pieces).await;
    assert!(matches!(answer, Err(Failure::BadAnswer(_))), "{answer:?}");
}

#[tokio::test]
async fn who_refuses_is_heard() {
    let pieces = ["{\"errcode\":\"M_FORB", "IDDEN\",\"error\":\"no\"}"];
    let (answer, left_alone) = ask(StatusCode::FORBIDDEN, pieces.map(Ok).to_vec()).await;
    let Err(Failure::Refused(refusal)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((refusal.errcode(), left_alone), ("M_FORBIDDEN", false));
}
