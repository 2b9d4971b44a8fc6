//! From HTTP to Ruma's request type, and what is said to those whose request cannot be read.

use std::panic::{AssertUnwindSafe, catch_unwind};

use error::{Error, Result};
use http::{Method, request};
use ruma::api::{
    IncomingRequest,
    error::{DeserializationError, HeaderDeserializationError},
};
use serde_json::error::Category;

use crate::{authenticate::Scheme, endpoint::Check, json};

/// The most bytes of an identifier ([identifier grammar]).
///
/// [identifier grammar]: https://spec.matrix.org/v1.19/appendices/#common-identifier-format
const IDENTIFIER: usize = 255;

/// The most characters of a message made from what the sender wrote.
const MESSAGE: usize = 300;

/// The values of a path's variables, in its order, decoded.
#[derive(Debug, Default)]
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    /// Decodes the variables of a path that was matched.
    ///
    /// # Errors
    ///
    /// `M_INVALID_PARAM` when one is not UTF-8, or an identifier is longer than any may be.
    pub(crate) fn decoded<'a>(found: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut list = Vec::new();
        for (name, value) in found {
            let Ok(value) = percent_encoding::percent_decode_str(value).decode_utf8() else {
                return Err(error::invalid_param(format!(
                    "`{name}` in the path is not UTF-8 when decoded"
                )));
            };
            if value.len() > IDENTIFIER && names_an_identifier(name) {
                return Err(error::invalid_param(format!(
                    "`{name}` in the path is longer than {IDENTIFIER} bytes"
                )));
            }
            list.push(value.into_owned());
        }
        Ok(Self(list))
    }

    /// Adds empty values for variables that a short form of the path leaves out, up to so many.
    pub(crate) fn fill(&mut self, variables: usize) {
        self.0.resize(self.0.len().max(variables), String::new());
    }
}

fn names_an_identifier(name: &str) -> bool {
    matches!(
        name,
        "user_id"
            | "room_id"
            | "event_id"
            | "device_id"
            | "room_alias"
            | "room_id_or_alias"
            | "server_name"
    )
}

/// Reads a request of type `R`. A body, where the method has one, must be JSON.
///
/// # Errors
///
/// `M_NOT_JSON`, `M_BAD_JSON`, `M_MISSING_PARAM` or `M_INVALID_PARAM`, with a sentence that names the
/// field where that can be known.
pub(crate) fn parse<R: IncomingRequest<Authentication: Scheme>>(
    head: request::Parts,
    body: &[u8],
    arguments: &Arguments,
    check: Check,
) -> Result<R> {
    // NOTSPEC: a POST without a body counts as one with an empty object, as in Synapse: clients that have
    // nothing to say to `/join`, for instance, send none.
    let body = if body.is_empty() && head.method == Method::POST {
        b"{}"
    } else {
        body
    };
    if head.method != Method::GET && head.method != Method::HEAD {
        if !body.is_empty() {
            R::Authentication::check(&head, body)?;
        }
        check(body)?;
    }
    let values: Vec<&str> = arguments.0.iter().map(String::as_str).collect();
    let request = http::Request::from_parts(head, body);
    // Ruma should not panic on what a stranger wrote. Should it do so all the same, the stranger is
    // at fault, and nothing was changed yet.
    match catch_unwind(AssertUnwindSafe(|| {
        R::try_from_http_request_inner(request, &values)
    })) {
        Ok(read) => read.map_err(|fault| refusal(&fault, body, arguments)),
        Err(_) => {
            tracing::error!(
                request = std::any::type_name::<R>(),
                "reading a request panicked"
            );
            Err(error::bad_json("The request could not be read"))
        }
    }
}

/// The answer to a request that could not be read.
fn refusal(fault: &DeserializationError, body: &[u8], arguments: &Arguments) -> Error {
    match fault {
        DeserializationError::Json(fault) => refusal_of_json(fault, body),
        DeserializationError::Query(fault) => refusal_of_parameter(&fault.to_string(), arguments),
        DeserializationError::Header(HeaderDeserializationError::MissingHeader(name)) => {
            error::missing_param(format!("The header `{name}` is missing"))
        }
        DeserializationError::Header(fault) => {
            error::invalid_param(short(format!("A header is wrong: {fault}")))
        }
        DeserializationError::Ident(fault) => error::invalid_param(short(fault.to_string())),
        DeserializationError::Utf8(_) => error::not_json("The body of the request is not UTF-8"),
        fault => error::bad_json(short(fault.to_string())),
    }
}

fn refusal_of_json(fault: &serde_json::Error, body: &[u8]) -> Error {
    let text = fault.to_string();
    if fault.classify() != Category::Data {
        return error::not_json(format!("The body of the request is not JSON: {text}"));
    }
    let field = json::field_at(body, fault.line(), fault.column());
    let message = short(match field.as_str() {
        "" => format!("The body of the request is wrong: {text}"),
        field => format!("`{field}` in the body of the request is wrong: {text}"),
    });
    if text.starts_with("missing field") {
        error::missing_param(message)
    } else {
        error::bad_json(message)
    }
}

/// Path and query are read by the same reader, whose errors name a field only when it is missing.
fn refusal_of_parameter(text: &str, arguments: &Arguments) -> Error {
    if text.starts_with("missing field") {
        return error::missing_param(short(format!("The query of the request: {text}")));
    }
    let place = match arguments.0.as_slice() {
        [] => "The query",
        _ => "The path or the query",
    };
    error::invalid_param(short(format!("{place} of the request is wrong: {text}")))
}

/// Cuts off what would be a long echo of what the sender wrote.
fn short(message: String) -> String {
    match message.char_indices().nth(MESSAGE) {
        Some((at, _)) => message.get(..at).unwrap_or_default().to_owned() + "…",
        None => message,
    }
}
