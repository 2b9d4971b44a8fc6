//! Asking another server, and what comes of it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ruma::{
    ServerName,
    api::{
        IncomingResponse as _, OutgoingBody as _, OutgoingRequest, auth_scheme::NoAuthentication,
        federation::authentication::ServerSignatures, path_builder::SinglePath,
    },
};
use serde_json::{Value, value::RawValue};

use crate::{Broken, Federation, Limits, policy::class_of_path, sign};
use config::{Class, Direction};

/// What we are called.
const AGENT: &str = concat!("Chapar/", env!("CARGO_PKG_VERSION"));

/// What a server says with a status of 500 or more that does its work: that what is asked for is not there, or too
/// large to be passed on ([spec]). Strangers can have us ask for such things.
///
/// [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid
const ANSWERS: [&str; 5] = [
    "M_NOT_YET_UPLOADED",
    "M_NOT_FOUND",
    "M_TOO_LARGE",
    "M_FORBIDDEN",
    "M_UNRECOGNIZED",
];

/// How much the answer to a request may take, and whether it is worth asking a server that did not answer
/// lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The time until the answer must have come in whole; that of the settings if none.
    pub time: Option<Duration>,
    /// The longest answer, in bytes.
    pub bytes: usize,
    /// Whether to ask although the server is left alone for now, because it did not answer.
    pub despite_back_off: bool,
}

impl Patience {
    /// For answers of a few events, or of none.
    pub const QUERY: Self = Self {
        time: None,
        bytes: 4 << 20,
        despite_back_off: false,
    };

    /// For somebody who waits in front of a screen.
    pub const SHORT: Self = Self {
        time: Some(Duration::from_secs(20)),
        ..Self::QUERY
    };

    /// For answers with all the state of a room.
    pub const STATE: Self = Self {
        time: Some(Duration::from_secs(600)),
        bytes: 512 << 20,
        despite_back_off: false,
    };

    /// The same, and the server is asked even if it did not answer lately.
    #[must_use]
    pub const fn despite_back_off(self) -> Self {
        Self {
            despite_back_off: true,
            ..self
        }
    }
}

/// Why another server did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// We do not ask this server for this: the operator does not want it, or it is ourselves.
    #[error("{0} is not asked for this")]
    Forbidden(ruma::OwnedServerName),
    /// The server did not answer lately, and is left alone until then, in milliseconds since 1970.
    #[error("the server did not answer lately and is left alone until {0}")]
    BackingOff(u64),
    /// No answer came.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refuses.
    #[error("the server refuses: {0}")]
    Refused(Refusal),
    /// The server's answer has more bytes than these.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// What the server answers is not what it should.
    #[error("the server's answer is not what it should be: {0}")]
    BadAnswer(String),
}

/// What a server said that refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status, 300 or more.
    pub status: StatusCode,
    /// The body, if it is a JSON object; empty otherwise.
    pub body: serde_json::Map<String, Value>,
}

impl Refusal {
    /// Reads an answer.
    fn of(response: &Response<Bytes>) -> Self {
        Self {
            status: response.status(),
            body: serde_json::from_slice(response.body()).unwrap_or_default(),
        }
    }

    /// The `errcode`; empty if there is none.
    pub fn errcode(&self) -> &str {
        self.text("errcode")
    }

    /// The sentence for people; empty if there is none.
    pub fn error(&self) -> &str {
        self.text("error")
    }

    /// Whether the server says that it does not know the endpoint
    /// ([spec](https://spec.matrix.org/v1.19/server-server-api/#unsupported-endpoints)), as current and older
    /// ones say it.
    pub fn is_unrecognized(&self) -> bool {
        let code = self.errcode();
        let unknown = matches!(self.status.as_u16(), 404 | 405);
        code == "M_UNRECOGNIZED" || unknown && code.is_empty()
    }

    /// Whether the server is not able to answer, rather than not willing.
    fn is_failure(&self) -> bool {
        self.status.is_server_error() && !ANSWERS.contains(&self.errcode())
    }

    fn text(&self, name: &str) -> &str {
        self.body
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {:.200}",
            self.status,
            self.errcode(),
            self.error()
        )
    }
}

/// How a request says who asks.
pub trait Proof {
    /// Whether it is signed.
    const SIGNED: bool;
}

impl Proof for ServerSignatures {
    const SIGNED: bool = true;
}

impl Proof for NoAuthentication {
    const SIGNED: bool = false;
}

/// A request of the server-server API, as Ruma has them.
pub trait Question:
    OutgoingRequest<PathBuilder = SinglePath, Authentication: Proof> + Send
{
}

impl<R: OutgoingRequest<PathBuilder = SinglePath, Authentication: Proof> + Send> Question for R {}

/// An object without what is `null` in it; none if nothing is, or it is no object. Servers in Go write that for
/// lists and maps that are empty.
fn without_nulls(body: &[u8]) -> Option<Vec<u8>> {
    let mut object: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
    let before = object.len();
    object.retain(|_, value| value.get() != "null");
    let changed = object.len() < before;
    changed.then(|| serde_json::to_vec(&object).ok()).flatten()
}

/// An answer in Ruma's type.
pub(crate) fn read_answer<R: Question>(
    answer: Response<Bytes>,
) -> Result<R::IncomingResponse, Failure> {
    let (head, body) = answer.into_parts();
    let read = |body: &[u8]| {
        let answer = Response::from_parts(head.clone(), body);
        R::IncomingResponse::try_from_http_response_inner(answer)
            .map_err(|fault| Failure::BadAnswer(fault.to_string()))
    };
    read(&body).or_else(|failure| match without_nulls(&body) {
        Some(body) => read(&body),
        None => Err(failure),
    })
}

/// A question as it is sent.
pub(crate) fn written<R: Question>(question: R) -> Result<Request<Bytes>, Failure> {
    let broken = |fault: String| Failure::BadAnswer(format!("asking is not possible: {fault}"));
    let request = question
        .try_into_http_request_inner("", ())
        .map_err(|fault| broken(fault.to_string()))?;
    let (mut head, body) = request.into_parts();
    let kind = body.content_type();
    let body = body
        .try_into_buf::<Vec<u8>>()
        .map_err(|fault| broken(fault.into().to_string()))?;
    if let Some(kind) = kind {
        head.headers.entry(header::CONTENT_TYPE).or_insert(kind);
    }
    Ok(Request::from_parts(head, Bytes::from(body)))
}

impl Federation {
    /// Asks another server.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn ask<R: Question>(
        &self,
        to: &ServerName,
        question: R,
        patience: Patience,
    ) -> Result<R::IncomingResponse, Failure> {
        let answer = self.ask_raw(to, question, patience).await?;
        read_answer::<R>(answer)
    }

    /// Asks another server with another body than Ruma's type makes, for events of which it leaves something out.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn ask_with<R: Question>(
        &self,
        to: &ServerName,
        question: R,
        body: Vec<u8>,
        patience: Patience,
    ) -> Result<R::IncomingResponse, Failure> {
        let request = written(question)?.map(|_| Bytes::from(body));
        let signed = <R::Authentication as Proof>::SIGNED;
        let answer = self.send(to, request, signed, patience).await?;
        read_answer::<R>(answer)
    }

    /// Asks another server, and gives its answer as it came: for answers with events, which must stay as
    /// they are, and for such as Ruma does not read.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn ask_raw<R: Question>(
        &self,
        to: &ServerName,
        question: R,
        patience: Patience,
    ) -> Result<Response<Bytes>, Failure> {
        let request = written(question)?;
        self.send(to, request, <R::Authentication as Proof>::SIGNED, patience)
            .await
    }

    /// Asks another server for what is at a path, without saying who asks.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn get_unsigned(
        &self,
        to: &ServerName,
        path: &str,
        patience: Patience,
    ) -> Result<Response<Bytes>, Failure> {
        let request = Request::get(path).body(Bytes::new());
        let request = request.map_err(|fault| Failure::BadAnswer(fault.to_string()))?;
        self.send(to, request, false, patience).await
    }

    /// What is on the web at a URL that another server named instead of a file.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn get_from_web(
        &self,
        named_by: &ServerName,
        url: &str,
        patience: Patience,
    ) -> Result<Response<Bytes>, Failure> {
        if !self.allows(named_by, Direction::Out, Class::Media) {
            return Err(Failure::Forbidden(named_by.to_owned()));
        }
        let url = url
            .parse()
            .map_err(|_| Failure::BadAnswer("it names what is no URL".to_owned()))?;
        let limits = self.limits(patience);
        let fetched = tokio::time::timeout(limits.time, self.transport().fetch(url, limits));
        match fetched.await {
            Ok(Ok(answer)) if answer.status() == StatusCode::OK => Ok(answer),
            Ok(Ok(answer)) => Err(Failure::Refused(Refusal::of(&answer))),
            Ok(Err(Broken::TooLarge(bytes))) => Err(Failure::TooLarge(bytes)),
            Ok(Err(broken)) => Err(Failure::Unreachable(broken.to_string())),
            Err(_) => Err(Failure::Unreachable("no answer in time".to_owned())),
        }
    }

    /// Asks an application service, at the URL of its registration, for what is at a path below that.
    ///
    /// # Errors
    ///
    /// See [`Broken`].
    pub async fn ask_service(
        &self,
        url: &Uri,
        hs_token: &str,
        (method, path): (Method, &str),
        body: String,
        limits: Limits,
    ) -> Result<Response<Bytes>, Broken> {
        let unreachable = |why: String| Broken::Unreachable(why);
        let url = format!("{}{path}", url.to_string().trim_end_matches('/'));
        let mut token = HeaderValue::from_str(&format!("Bearer {hs_token}"))
            .map_err(|_| unreachable("its token is none".to_owned()))?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::AUTHORIZATION, token)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, AGENT)
            .body(Bytes::from(body))
            .map_err(|fault| unreachable(fault.to_string()))?;
        let called = self.transport().call(request, limits);
        match tokio::time::timeout(limits.time, called).await {
            Ok(answer) => answer,
            Err(_) => Err(Broken::late(limits)),
        }
    }

    pub(crate) fn limits(&self, patience: Patience) -> Limits {
        Limits {
            bytes: patience.bytes,
            time: patience.time.unwrap_or(self.settings().request_timeout),
        }
    }

    /// Puts the signature of a request to another server into its head, which has to be whole.
    ///
    /// # Errors
    ///
    /// It has a body that is not JSON.
    pub fn sign<B: AsRef<[u8]>>(
        &self,
        request: &mut Request<B>,
        to: &ServerName,
    ) -> Result<(), pdu::canonical::JsonError> {
        let key = self.signing_keys().current();
        let header = sign::header(request, self.server_name(), to, &key)?;
        request.headers_mut().insert(header::AUTHORIZATION, header);
        Ok(())
    }

    async fn send(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        signed: bool,
        patience: Patience,
    ) -> Result<Response<Bytes>, Failure> {
        let request = self.prepare(to, request, signed, patience)?;
        let limits = self.limits(patience);
        let began = self.now();
        let sent = self.transport().send(to, request, limits);
        let answer = match tokio::time::timeout(limits.time, sent).await {
            Ok(answer) => answer,
            Err(_) => Err(Broken::late(limits)),
        };
        self.judge(to, began, answer).await
    }

    /// A request as it goes to a server, if that is to be asked.
    pub(crate) fn prepare(
        &self,
        to: &ServerName,
        mut request: Request<Bytes>,
        signed: bool,
        patience: Patience,
    ) -> Result<Request<Bytes>, Failure> {
        let class = class_of_path(request.uri().path());
        if to == self.server_name() || !self.allows(to, Direction::Out, class) {
            return Err(Failure::Forbidden(to.to_owned()));
        }
        if !patience.despite_back_off
            && let Some(until) = self.backing_off(to)
        {
            return Err(Failure::BackingOff(until));
        }
        if signed {
            self.sign(&mut request, to)
                .map_err(|fault| Failure::BadAnswer(format!("the request is not JSON: {fault}")))?;
        }
        let agent = HeaderValue::from_static(AGENT);
        request.headers_mut().insert(header::USER_AGENT, agent);
        Ok(request)
    }

    /// Remembers whether the server can be reached, and tells an answer from a refusal.
    pub(crate) async fn judge(
        &self,
        to: &ServerName,
        began: u64,
        answer: Result<Response<Bytes>, Broken>,
    ) -> Result<Response<Bytes>, Failure> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Broken::Unreachable(why)) => {
                self.failed(to, began).await;
                return Err(Failure::Unreachable(why));
            }
            Err(Broken::Forbidden(why)) => return Err(Failure::Unreachable(why)),
            Err(Broken::TooLarge(bytes)) => return Err(Failure::TooLarge(bytes)),
        };
        let refusal = (answer.status().as_u16() >= 300).then(|| Refusal::of(&answer));
        if refusal.as_ref().is_some_and(Refusal::is_failure) {
            self.failed(to, began).await;
        } else {
            self.answered(to).await;
        }
        refusal.map_or(Ok(answer), |refusal| Err(Failure::Refused(refusal)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_null_is_left_out_and_the_rest_stays_as_it_came() {
        let without = without_nulls(br#"{"a":null,"b":{"c":null,  "d":1.0},"e":[]}"#).unwrap();
        assert_eq!(without, br#"{"b":{"c":null,  "d":1.0},"e":[]}"#);
        assert_eq!(without_nulls(br#"{"b":[null]}"#), None);
        assert_eq!(without_nulls(b"[null]"), None);
    }
}
