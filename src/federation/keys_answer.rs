//! What a server says of its keys, taken apart and believed as far as the keys themselves vouch for it
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#publishing-keys)).

use pdu::{
    SigningKey, VerifyKey,
    canonical::{Numbers, Object, Value},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName,
    ServerSigningKeyId,
};

use crate::OldKey;

/// The longest such answer, in bytes.
pub(crate) const MAX_BYTES: usize = 64 << 10;

/// The most keys that an answer may name, those that sign and the old ones.
const MAX_KEYS: usize = 64;

/// The keys of a server, as it said it itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeysAnswer {
    /// The server.
    pub(crate) server: OwnedServerName,
    /// Until when this is to be believed, in milliseconds since 1970.
    pub(crate) valid_until: u64,
    /// The keys that sign.
    pub(crate) keys: Vec<(OwnedServerSigningKeyId, VerifyKey)>,
    /// Keys that signed once, each with the end of that time, in milliseconds since 1970.
    pub(crate) old: Vec<(OwnedServerSigningKeyId, VerifyKey, u64)>,
}

/// Why something is no answer about keys, or one that nobody vouches for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeysFault {
    #[error("it is not a JSON object of at most {MAX_BYTES} bytes")]
    Form,
    #[error("its `{0}` is missing or not what it should be")]
    Field(&'static str),
    #[error("it names more than {MAX_KEYS} keys")]
    TooMany,
    #[error("it is about the server {0}")]
    OtherServer(OwnedServerName),
    #[error("the signature with the key {0} is wrong")]
    Signature(OwnedServerSigningKeyId),
    #[error("it is not signed with any of the keys that it names")]
    Unsigned,
}

impl KeysAnswer {
    /// Reads an answer.
    ///
    /// A key that signs must have signed the answer: otherwise a server could pass off another one's key as
    /// its own. A key that has not is left out.
    ///
    /// # Errors
    ///
    /// It has not the form of one, a signature is wrong, or none of the keys has signed.
    pub(crate) fn read(json: &[u8]) -> Result<Self, KeysFault> {
        let object = object(json)?;
        let server = text(&object, "server_name")?;
        let server = ServerName::parse(server).map_err(|_| KeysFault::Field("server_name"))?;
        let valid_until = time(object.get("valid_until_ts"), "valid_until_ts")?;
        let listed = members(&object, "verify_keys")?.ok_or(KeysFault::Field("verify_keys"))?;
        // Servers in Go write `null` for a map that is empty.
        let old = match object.get("old_verify_keys") {
            Some(Value::Null) => None,
            _ => members(&object, "old_verify_keys")?,
        };
        if listed.len() + old.map_or(0, Object::len) > MAX_KEYS {
            return Err(KeysFault::TooMany);
        }
        let mut keys = Vec::new();
        for (key_id, entry) in listed.iter() {
            let Some((key_id, key)) = public_key(key_id, entry) else {
                continue;
            };
            if !is_signed(&object, &server, &key_id) {
                continue;
            }
            if !key.verify_json(server.as_str(), key_id.as_str(), &object) {
                return Err(KeysFault::Signature(key_id));
            }
            keys.push((key_id, key));
        }
        if keys.is_empty() {
            return Err(KeysFault::Unsigned);
        }
        let old = old.into_iter().flat_map(Object::iter);
        let old = old.filter_map(|(key_id, entry)| {
            let (key_id, key) = public_key(key_id, entry)?;
            let expired = time(entry.as_object()?.get("expired_ts"), "expired_ts").ok()?;
            Some((key_id, key, expired))
        });
        Ok(Self {
            old: old.collect(),
            server,
            valid_until,
            keys,
        })
    }

    /// Reads an answer that must be about a server.
    ///
    /// # Errors
    ///
    /// As [`KeysAnswer::read`], and it is about another one.
    pub(crate) fn read_of(json: &[u8], server: &ServerName) -> Result<Self, KeysFault> {
        let answer = Self::read(json)?;
        if answer.server != server {
            return Err(KeysFault::OtherServer(answer.server));
        }
        Ok(answer)
    }
}

/// The ids of the keys with which a server signed a JSON object.
pub(crate) fn signed_with(json: &[u8], server: &ServerName) -> Vec<OwnedServerSigningKeyId> {
    let Ok(object) = object(json) else {
        return Vec::new();
    };
    let theirs = object
        .get("signatures")
        .and_then(|signatures| signatures.as_object()?.get(server.as_str())?.as_object());
    let ids = theirs.into_iter().flat_map(Object::iter).take(MAX_KEYS);
    ids.filter_map(|(id, _)| ServerSigningKeyId::parse(id).ok())
        .collect()
}

/// Whether a server signed a JSON object with a key.
pub(crate) fn verifies(
    json: &[u8],
    server: &ServerName,
    key_id: &ServerSigningKeyId,
    key: VerifyKey,
) -> bool {
    object(json).is_ok_and(|object| key.verify_json(server.as_str(), key_id.as_str(), &object))
}

/// What this server says of its own keys.
pub(crate) fn write_own(
    server: &ServerName,
    current: &SigningKey,
    old: &[OldKey],
    valid_until: MilliSecondsSinceUnixEpoch,
) -> Vec<u8> {
    let mut keys = Object::new();
    keys.insert(
        current.key_id().as_str(),
        Value::Object(entry_of(current.verify_key(), None)),
    );
    let mut old_keys = Object::new();
    for old in old {
        let entry = entry_of(old.key, Some(old.expired_ts));
        old_keys.insert(old.key_id.as_str(), Value::Object(entry));
    }
    let mut object = Object::new();
    object.insert("server_name", Value::String(server.as_str().into()));
    object.insert("valid_until_ts", Value::Integer(valid_until.get().into()));
    object.insert("verify_keys", Value::Object(keys));
    object.insert("old_verify_keys", Value::Object(old_keys));
    current.sign_json(server, &mut object);
    object.to_canonical()
}

/// The same object with our signature beside those that it has.
///
/// # Errors
///
/// It is no object.
pub(crate) fn sign_too(
    json: &[u8],
    server: &ServerName,
    key: &SigningKey,
) -> Result<Vec<u8>, KeysFault> {
    let mut object = object(json)?;
    key.sign_json(server, &mut object);
    Ok(object.to_canonical())
}

fn entry_of(key: VerifyKey, expired: Option<MilliSecondsSinceUnixEpoch>) -> Object<'static> {
    let mut entry = Object::new();
    entry.insert("key", Value::String(key.to_base64().into()));
    if let Some(expired) = expired {
        entry.insert("expired_ts", Value::Integer(expired.get().into()));
    }
    entry
}

fn object(json: &[u8]) -> Result<Object<'_>, KeysFault> {
    if json.len() > MAX_BYTES {
        return Err(KeysFault::Form);
    }
    match Value::parse(json, Numbers::Any) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(KeysFault::Form),
    }
}

fn text<'a>(object: &'a Object<'_>, name: &'static str) -> Result<&'a str, KeysFault> {
    let value = object.get(name).and_then(Value::as_str);
    value.ok_or(KeysFault::Field(name))
}

fn time(value: Option<&Value<'_>>, name: &'static str) -> Result<u64, KeysFault> {
    let value = value.and_then(Value::as_integer);
    value
        .and_then(|time| u64::try_from(time).ok())
        .ok_or(KeysFault::Field(name))
}

/// An object within an object, which may be missing.
fn members<'a, 'b>(
    object: &'a Object<'b>,
    name: &'static str,
) -> Result<Option<&'a Object<'b>>, KeysFault> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => value.as_object().map(Some).ok_or(KeysFault::Field(name)),
    }
}

fn is_signed(object: &Object<'_>, server: &ServerName, key_id: &ServerSigningKeyId) -> bool {
    let signature = object
        .get("signatures")
        .and_then(|all| all.as_object()?.get(server.as_str()))
        .and_then(|theirs| theirs.as_object()?.get(key_id.as_str()));
    signature.is_some()
}

/// A key and its id; none for other algorithms, which are not for us.
fn public_key(key_id: &str, entry: &Value<'_>) -> Option<(OwnedServerSigningKeyId, VerifyKey)> {
    if !key_id.starts_with("ed25519:") {
        return None;
    }
    let key = entry.as_object()?.get("key")?.as_str()?;
    Some((
        ServerSigningKeyId::parse(key_id).ok()?,
        VerifyKey::from_base64(key).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use ruma::server_name;
    use serde_json::json;

    use super::*;

    fn key(seed: u8, name: &str) -> SigningKey {
        SigningKey::from_seed(&[seed; 32], name).unwrap()
    }

    fn entry(key: &SigningKey) -> serde_json::Value {
        json!({ "key": key.verify_key().to_base64() })
    }

    fn signed(value: &serde_json::Value, server: &str, keys: &[&SigningKey]) -> Vec<u8> {
        let mut json = serde_json::to_vec(value).unwrap();
        for key in keys {
            json = sign_too(&json, &ServerName::parse(server).unwrap(), key).unwrap();
        }
        json
    }

    #[test]
    fn our_own_answer_is_one() {
        let (now, before) = (key(1, "now"), key(2, "before"));
        let name = server_name!("a.example");
        let old = [OldKey {
            key_id: before.key_id().to_owned(),
            key: before.verify_key(),
            expired_ts: MilliSecondsSinceUnixEpoch(5_u32.into()),
        }];
        let until = MilliSecondsSinceUnixEpoch(1_000_u32.into());
        let json = write_own(name, &now, &old, until);
        let answer = KeysAnswer::read_of(&json, name).unwrap();
        assert_eq!(answer.valid_until, 1_000);
        assert_eq!(answer.keys, [(now.key_id().to_owned(), now.verify_key())]);
        assert_eq!(
            answer.old,
            [(before.key_id().to_owned(), before.verify_key(), 5)]
        );
        assert_eq!(
            KeysAnswer::read_of(&json, server_name!("b.example")),
            Err(KeysFault::OtherServer(name.to_owned()))
        );
    }

    #[test]
    fn a_key_that_did_not_sign_is_not_believed() {
        let (own, stolen) = (key(1, "a"), key(2, "b"));
        let value = json!({
            "server_name": "a.example", "valid_until_ts": 1,
            "verify_keys": { "ed25519:a": entry(&own), "ed25519:b": entry(&stolen), "x25519:c": {} },
        });
        let answer = KeysAnswer::read(&signed(&value, "a.example", &[&own])).unwrap();
        assert_eq!(answer.keys.len(), 1);
        let answer = KeysAnswer::read(&signed(&value, "a.example", &[&own, &stolen])).unwrap();
        assert_eq!(answer.keys.len(), 2);
        // Signed in the name of another server, or with a key of the same id.
        let json = signed(&value, "b.example", &[&own]);
        assert_eq!(KeysAnswer::read(&json), Err(KeysFault::Unsigned));
        let json = signed(&value, "a.example", &[&key(3, "a")]);
        assert!(matches!(
            KeysAnswer::read(&json),
            Err(KeysFault::Signature(_))
        ));
    }

    #[test]
    fn a_server_that_has_no_old_keys_may_say_that_it_has_none() {
        let own = key(1, "a");
        for none in [json!(null), json!({})] {
            let value = json!({
                "server_name": "a.example", "valid_until_ts": 1, "old_verify_keys": none,
                "verify_keys": { "ed25519:a": entry(&own) },
            });
            let answer = KeysAnswer::read(&signed(&value, "a.example", &[&own])).unwrap();
            assert_eq!((answer.keys.len(), answer.old.len()), (1, 0));
        }
    }

    #[test]
    fn what_was_changed_on_the_way_is_refused() {
        let own = key(1, "a");
        let value = json!({
            "server_name": "a.example", "valid_until_ts": 1,
            "verify_keys": { "ed25519:a": entry(&own) },
        });
        let json = signed(&value, "a.example", &[&own]);
        let mut later: serde_json::Value = serde_json::from_slice(&json).unwrap();
        later["valid_until_ts"] = json!(2);
        let later = serde_json::to_vec(&later).unwrap();
        assert!(matches!(
            KeysAnswer::read(&later),
            Err(KeysFault::Signature(_))
        ));
    }

    #[test]
    fn what_has_not_the_form_is_refused() {
        let own = key(1, "a");
        for (member, value) in [
            ("server_name", json!(1)),
            ("server_name", json!("no name")),
            ("valid_until_ts", json!("soon")),
            ("valid_until_ts", json!(-1)),
            ("verify_keys", json!([])),
            ("verify_keys", json!(null)),
            ("old_verify_keys", json!(7)),
        ] {
            let mut answer = json!({
                "server_name": "a.example", "valid_until_ts": 1,
                "verify_keys": { "ed25519:a": entry(&own) },
            });
            answer[member] = value;
            let json = signed(&answer, "a.example", &[&own]);
            let found = KeysAnswer::read(&json);
            assert!(
                matches!(found, Err(KeysFault::Field(_))),
                "{member}: {found:?}"
            );
        }
        let many: serde_json::Map<_, _> = (0..65)
            .map(|number| (format!("ed25519:{number}"), entry(&own)))
            .collect();
        let many = json!({ "server_name": "a.example", "valid_until_ts": 1, "verify_keys": many });
        let json = signed(&many, "a.example", &[&own]);
        assert_eq!(KeysAnswer::read(&json), Err(KeysFault::TooMany));
        for json in [&b"[]"[..], b"", &vec![b' '; MAX_BYTES + 1]] {
            assert_eq!(KeysAnswer::read(json), Err(KeysFault::Form));
        }
    }
}
