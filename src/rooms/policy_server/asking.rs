//! Asking a policy server to sign an event ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event

use std::time::Duration;

use federation::{Failure, Patience, Refusal};
use http::StatusCode;
use pdu::{Pdu, PolicyServer};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, api::federation::policy::sign_event};
use serde_json::value::RawValue;

use crate::{Room, Rooms, remote::errcode_or};

/// For an answer of one signature. Policy servers may look at files before they sign; people wait meanwhile.
const PATIENCE: Patience = Patience {
    time: Some(Duration::from_secs(30)),
    bytes: 64 << 10,
    despite_back_off: true,
};
/// For how long one that did not answer is not asked again, in milliseconds: whoever sends something in a room
/// of it does not want to wait for what others have just waited for, nor longer once it is back.
const PAUSE: u64 = 15_000;
/// Policy servers of which it is remembered that they did not answer.
const REMEMBERED_MAX: usize = 1_000;
/// Policy servers that did not answer lately, and when, in milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct Silent(Cache<OwnedServerName, u64>);

impl Default for Silent {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED_MAX))
    }
}

impl Rooms {
    /// An event with the signature of its room's policy server, which is asked for it. Must not be called while
    /// the room's writer is held.
    ///
    /// # Errors
    ///
    /// What the policy server says if it refuses, as it says it; 502 `M_UNKNOWN` if it does not answer, or with
    /// what is no signature of it; 413 `M_TOO_LARGE` if there is no room for a signature.
    pub(crate) async fn fetch_policy_signature(
        &self,
        room: &Room,
        policy: &PolicyServer,
        pdu: &Pdu,
    ) -> error::Result<Pdu> {
        let signature = match policy.via == self.server_name() {
            true => self.own_policy_signature(room, pdu).await?,
            false => self.ask_policy_server(policy, pdu).await?,
        };
        let signed = pdu.with_policy_signature(room.rules, &policy.via, &signature);
        let signed = signed.map_err(|fault| error::too_large(fault.to_string()))?;
        match policy.has_signed(&signed, room.rules) {
            true => Ok(signed),
            false => Err(no_answer(
                "This room's policy server signs with another key than the room says",
            )),
        }
    }

    async fn ask_policy_server(&self, policy: &PolicyServer, pdu: &Pdu) -> error::Result<String> {
        let (via, silent) = (&policy.via, &self.silent().0);
        let lately = silent.get(via).map(|since| since.saturating_add(PAUSE));
        if lately.is_some_and(|until| self.now() < until) {
            return Err(not_reached());
        }
        let event = String::from_utf8_lossy(pdu.json()).into_owned();
        let event = RawValue::from_string(event).map_err(error::internal)?;
        let question = sign_event::v1::Request::new(event);
        let answer = self.federation().ask(via, question, PATIENCE).await;
        let answered = matches!(answer, Ok(_) | Err(Failure::Refused(_)));
        if answered {
            silent.remove(via);
        } else {
            silent.insert(via.clone(), self.now());
        }
        match answer {
            Ok(answer) => answer
                .ed25519_signature(via)
                .map(ToOwned::to_owned)
                .ok_or_else(|| no_answer("This room's policy server does not sign events")),
            Err(Failure::Refused(refusal)) => Err(told(&refusal)),
            Err(failure) => {
                tracing::info!(%via, %failure, "a policy server cannot be asked");
                Err(not_reached())
            }
        }
    }
}

fn no_answer(message: &str) -> error::Error {
    error::unknown(StatusCode::BAD_GATEWAY, message)
}

fn not_reached() -> error::Error {
    no_answer("This room's policy server, which must look at everything first, could not be asked")
}

/// What a policy server says that refuses, as it says it.
///
/// NOTSPEC: not if it would make a client log out, or believe that this server lacks something, or that
/// something of ours failed.
fn told(refusal: &Refusal) -> error::Error {
    let (status, code) = (refusal.status, refusal.errcode());
    if !status.is_client_error() || code == "M_UNRECOGNIZED" {
        return no_answer("This room's policy server does not sign events");
    }
    let (status, code) = match status {
        StatusCode::UNAUTHORIZED => (StatusCode::FORBIDDEN, code),
        status => (status, code),
    };
    let code = errcode_or(code, "M_FORBIDDEN");
    let text = match refusal.error() {
        "" => "This room's policy server does not let this through",
        text => text,
    };
    let more = refusal.body.iter();
    let more = more.filter(|(name, _)| *name != "errcode" && *name != "error");
    more.fold(error::other(status, code, text), |error, (name, value)| {
        error.with_member(name, value.clone())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use serde_json::{Value, json};

    use super::*;

    fn answered(status: u16, body: Value) -> (u16, Value) {
        let Value::Object(body) = body else {
            panic!("{body}")
        };
        let refusal = Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            body,
        };
        let response = told(&refusal).into_response();
        let body = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), body)
    }

    #[test]
    fn a_refusal_is_passed_on_word_for_word() {
        for (status, body) in [
            (400, json!({ "errcode": "M_FORBIDDEN", "error": "Spam" })),
            (403, json!({ "errcode": "M_FORBIDDEN", "error": "Denied" })),
            (
                404,
                json!({ "errcode": "M_NOT_FOUND", "error": "Unknown room" }),
            ),
            (
                429,
                json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Slow", "retry_after_ms": 77 }),
            ),
            (
                400,
                json!({ "errcode": "ORG.EXAMPLE_SAFETY", "error": "No", "harms": ["spam"] }),
            ),
            (
                418,
                json!({ "errcode": "M_TEAPOT", "error": "Short and stout" }),
            ),
        ] {
            assert_eq!(answered(status, body.clone()), (status, body));
        }
    }

    #[test]
    fn it_says_nothing_about_sessions_or_about_us() {
        let (status, body) = answered(
            401,
            json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Go", "soft_logout": false }),
        );
        assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
        assert_eq!(body["error"], "Go");
        let (status, body) = answered(404, json!({ "errcode": "M_UNRECOGNIZED", "error": "x" }));
        assert_eq!((status, &body["errcode"]), (502, &json!("M_UNKNOWN")));
        let (status, _) = answered(500, json!({ "errcode": "M_UNKNOWN", "error": "x" }));
        assert_eq!(status, 502);
        let (status, body) = answered(418, json!({}));
        assert_eq!((status, &body["errcode"]), (418, &json!("M_FORBIDDEN")));
        assert!(body["error"].as_str().unwrap().len() > 10);
    }
}
