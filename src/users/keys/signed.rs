//! JSON objects with signatures of people and their devices ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/appendices/#signing-json

use error::Result;
use pdu::{
    VerifyKey,
    canonical::{Numbers, Value as Canonical},
};
use ruma::UserId;
use serde_json::{Map, Value, value::RawValue};

/// A key with its signatures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Signed(Map<String, Value>);

impl Signed {
    /// Reads what a client sent.
    ///
    /// # Errors
    ///
    /// 400 `M_BAD_JSON` if it is no object, or one that nobody can sign.
    pub(super) fn read(json: &RawValue) -> Result<Self> {
        let not_signed = || error::bad_json("A key is an object in canonical JSON");
        Canonical::parse(json.get().as_bytes(), Numbers::Canonical).map_err(|_| not_signed())?;
        serde_json::from_str(json.get())
            .map(Self)
            .map_err(|_| not_signed())
    }

    /// Reads what was stored.
    pub(super) fn stored(json: &str) -> Result<Self> {
        serde_json::from_str(json)
            .map(Self)
            .map_err(error::internal)
    }

    /// Its JSON, without what only servers say (`unsigned`).
    pub(super) fn to_json(&self) -> String {
        let mut object = self.0.clone();
        object.remove("unsigned");
        Value::Object(object).to_string()
    }

    /// Its JSON, with something that the server says.
    pub(super) fn to_json_with(&self, unsigned: Map<String, Value>) -> Result<Box<RawValue>> {
        let mut object = self.0.clone();
        if unsigned.is_empty() {
            object.remove("unsigned");
        } else {
            object.insert("unsigned".to_owned(), Value::Object(unsigned));
        }
        serde_json::value::to_raw_value(&object).map_err(error::internal)
    }

    /// Whether both say the same, whoever signed them.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let said = |signed: &Self| {
            let mut object = signed.0.clone();
            object.remove("signatures");
            object.remove("unsigned");
            object
        };
        said(self) == said(other)
    }

    /// Somebody's signatures: ids of keys and what they signed.
    pub(super) fn signatures_of(&self, user: &UserId) -> Vec<(String, String)> {
        let theirs = self
            .0
            .get("signatures")
            .and_then(|signatures| signatures.get(user.as_str()))
            .and_then(Value::as_object);
        theirs
            .into_iter()
            .flatten()
            .filter_map(|(id, signature)| Some((id.clone(), signature.as_str()?.to_owned())))
            .collect()
    }

    /// Adds a signature, in place of an earlier one by the same key.
    pub(super) fn add_signature(&mut self, user: &str, key_id: &str, signature: &str) {
        let object = |value: &mut Value| {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
        };
        let signatures = self.0.entry("signatures").or_insert(Value::Null);
        object(signatures);
        let Some(signatures) = signatures.as_object_mut() else {
            return;
        };
        let theirs = signatures.entry(user).or_insert(Value::Null);
        object(theirs);
        if let Some(theirs) = theirs.as_object_mut() {
            theirs.insert(key_id.to_owned(), Value::String(signature.to_owned()));
        }
    }

    /// Takes over the signatures of the same key as it was stored before.
    pub(super) fn keep_signatures_of(&mut self, old: &Self) {
        let Some(old) = old.0.get("signatures").and_then(Value::as_object) else {
            return;
        };
        for (user, theirs) in old {
            for (key_id, signature) in theirs.as_object().into_iter().flatten() {
                let known = self.0.get("signatures");
                let known = known.and_then(|all| all.get(user)?.get(key_id));
                if let (None, Some(signature)) = (known, signature.as_str()) {
                    self.add_signature(user, key_id, signature);
                }
            }
        }
    }

    /// Whether it carries a signature of `user` by the key with that id, and it is `key`'s.
    pub(super) fn is_signed_by(&self, user: &UserId, key_id: &str, key: &VerifyKey) -> bool {
        let json = Value::Object(self.0.clone()).to_string();
        let Ok(parsed) = Canonical::parse(json.as_bytes(), Numbers::Canonical) else {
            return false;
        };
        parsed
            .as_object()
            .is_some_and(|object| key.verify_json(user.as_str(), key_id, object))
    }

    /// The key under `keys` with an id, if it is one that signs.
    pub(super) fn verify_key(&self, key_id: &str) -> Option<VerifyKey> {
        let key = self.0.get("keys")?.get(key_id)?.as_str()?;
        VerifyKey::from_base64(key).ok()
    }
}
