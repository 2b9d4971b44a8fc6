//! Signing requests, and the header that carries the signature
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#request-authentication)).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use pdu::{
    SigningKey,
    canonical::{JsonError, Numbers, Object, Value},
};
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId};

/// The scheme of the `Authorization` header.
const SCHEME: &str = "X-Matrix";

/// The most `Authorization` headers that are looked at: one for each key that a server has.
const MAX_HEADERS: usize = 4;

/// How deep arrays and objects may nest in the body of a signed request. An event in it that nests deeper than
/// events may is refused by itself, not with all that comes along; one that nests so deep no peer can have
/// passed on in good faith, Synapse reads a thousand levels.
pub const BODY_NESTING_MAX: usize = 1_100;

/// The `Authorization` header of a request whose URI is a path with its query.
///
/// # Errors
///
/// The body is there and is not JSON.
pub(crate) fn header<B: AsRef<[u8]>>(
    request: &Request<B>,
    origin: &ServerName,
    destination: &ServerName,
    key: &SigningKey,
) -> Result<HeaderValue, JsonError> {
    let body = request.body().as_ref();
    let signed = message(request.method(), request.uri(), origin, destination, body)?;
    let text = format!(
        r#"{SCHEME} origin="{origin}",destination="{destination}",key="{}",sig="{}""#,
        key.key_id(),
        key.sign_base64(&signed)
    );
    // Names, ids and Base64 have no letters that a header cannot have.
    Ok(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(SCHEME)))
}

/// What is signed of a request. Numbers in the body are written as in events of the first room versions,
/// which may be in it, and the same as everywhere where they are not.
///
/// # Errors
///
/// The body is there and is not JSON.
pub(crate) fn message(
    method: &Method,
    uri: &Uri,
    origin: &ServerName,
    destination: &ServerName,
    body: &[u8],
) -> Result<Vec<u8>, JsonError> {
    let target = uri
        .path_and_query()
        .map_or_else(|| uri.path(), |target| target.as_str());
    let mut object = Object::new();
    for (key, text) in [
        ("method", method.as_str()),
        ("uri", target),
        ("origin", origin.as_str()),
        ("destination", destination.as_str()),
    ] {
        object.insert(key, Value::String(text.into()));
    }
    if !body.is_empty() {
        let content = Value::parse_nested(body, Numbers::Any, BODY_NESTING_MAX)?;
        object.insert("content", content);
    }
    Ok(object.to_canonical())
}

/// What an `Authorization` header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The server that asks.
    pub(crate) origin: OwnedServerName,
    /// Whom it asks; servers of old do not say.
    pub(crate) destination: Option<OwnedServerName>,
    /// The key that it signed with.
    pub(crate) key_id: OwnedServerSigningKeyId,
    /// The signature, in Base64.
    pub(crate) signature: String,
}

impl Signed {
    /// All such headers, as far as they can be read. Older servers send one for each of their keys.
    pub(crate) fn all(headers: &HeaderMap) -> Vec<Self> {
        let values = headers.get_all(header::AUTHORIZATION).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        texts.filter_map(Self::parse).take(MAX_HEADERS).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let (mut origin, mut destination, mut key, mut signature) = (None, None, None, None);
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, value, behind) = parameter(rest)?;
            rest = behind;
            let place = match name.to_ascii_lowercase().as_str() {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key,
                "sig" => &mut signature,
                _ => continue,
            };
            // Which of two would count is anybody's guess.
            if place.replace(value).is_some() {
                return None;
            }
        }
        let destination = match destination {
            Some(name) => Some(ServerName::parse(name).ok()?),
            None => None,
        };
        Some(Self {
            origin: ServerName::parse(origin?).ok()?,
            destination,
            key_id: ServerSigningKeyId::parse(key?).ok()?,
            signature: signature?.into_owned(),
        })
    }
}

/// The first `name=value` or `name="value"`, and what is behind it. Values without quotes may hold colons,
/// which servers of old sent so.
fn parameter(text: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        let (value, behind) = rest.split_at(end);
        return Some((name, value.into(), behind));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((name, value.into(), quoted.get(at + 1..)?)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use ruma::server_name;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_signature_holds() {
        let key = SigningKey::from_seed(&[3; 32], "k1").unwrap();
        let request = Request::put("/_matrix/federation/v1/send/1?a=%20b")
            .body(br#"{"b": 1.0, "a":"\u00e9"}"#.as_slice())
            .unwrap();
        let (ours, theirs) = (server_name!("one.example"), server_name!("[::1]:8448"));
        let value = header(&request, ours, theirs, &key).unwrap();
        let signed = Signed::parse(value.to_str().unwrap()).unwrap();
        assert_eq!(signed.origin, ours);
        assert_eq!(signed.destination.as_deref(), Some(theirs));
        assert_eq!(signed.key_id, key.key_id());
        let message = message(
            request.method(),
            request.uri(),
            ours,
            theirs,
            request.body(),
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(message.clone()).unwrap(),
            r#"{"content":{"a":"é","b":1.0},"destination":"[::1]:8448","method":"PUT","origin":"one.example","uri":"/_matrix/federation/v1/send/1?a=%20b"}"#
        );
        assert!(key.verify_key().verify_base64(&message, &signed.signature));
    }

    #[test]
    fn headers_are_read_as_the_specification_and_older_servers_write_them() {
        let whole = Signed {
            origin: server_name!("a.example:1").to_owned(),
            destination: Some(server_name!("b.example").to_owned()),
            key_id: ServerSigningKeyId::parse("ed25519:k").unwrap(),
            signature: "c2ln".to_owned(),
        };
        for text in [
            r#"X-Matrix origin="a.example:1",destination="b.example",key="ed25519:k",sig="c2ln""#,
            "X-Matrix origin=a.example:1,destination=b.example,key=ed25519:k,sig=c2ln",
            r#"x-matrix  Sig="c2ln" , KEY="ed25519\:k",more="\"",	origin=a.example:1,destination=b.example"#,
        ] {
            assert_eq!(Signed::parse(text).unwrap(), whole, "{text}");
        }
        let old = r#"X-Matrix origin=a.example:1,key="ed25519:k",sig="c2ln""#;
        let old = Signed::parse(old).unwrap();
        assert_eq!((old.destination, old.origin), (None, whole.origin));
    }

    #[test]
    fn what_is_no_such_header_is_none() {
        for text in [
            "",
            "X-Matrix",
            "X-Matrix ",
            "Bearer abc",
            r#"X-Matrix origin="a.example",key="ed25519:k""#,
            r#"X-Matrix origin="a example",key="ed25519:k",sig="s""#,
            r#"X-Matrix origin="a.example",key="k",sig="s""#,
            r#"X-Matrix origin="a.example",key="ed25519:k",sig="s"#,
            r#"X-Matrix origin="a.example",origin="b.example",key="ed25519:k",sig="s""#,
            r#"X-Matrix origin="a.example",key="ed25519:k",sig="s\"#,
            "X-Matrix origin,key",
        ] {
            assert_eq!(Signed::parse(text), None, "{text}");
        }
    }
}
