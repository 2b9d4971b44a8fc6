//! The keys with which servers sign, and signed JSON that is no event.

use std::fmt;

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId};

use crate::{
    base64,
    canonical::{Object, Value},
};

/// The key with which a server signs: an Ed25519 key and its name.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    key_id: OwnedServerSigningKeyId,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey")
            .field(&self.key_id)
            .finish_non_exhaustive()
    }
}

/// Why something is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key's name holds more than letters, digits and `_`, or nothing.
    #[error("the name of a signing key must be one or more letters, digits or underscores")]
    Name,
    /// A stored key is not `ed25519`, its name, and 32 bytes in Base64.
    #[error("a stored signing key must be `ed25519`, its name and 32 bytes in Base64")]
    Stored,
    /// A public key is not 32 bytes in Base64 that make a point on the curve.
    #[error("a public key must be 32 bytes in Base64 that are an Ed25519 key")]
    Public,
}

impl SigningKey {
    /// Makes a key of 32 random bytes, which must be kept secret, and the part of its ID behind
    /// `ed25519:`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Name`], if the name is not made of letters, digits and underscores.
    pub fn from_seed(seed: &[u8; 32], name: &str) -> Result<Self, KeyError> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(valid) {
            return Err(KeyError::Name);
        }
        let key_id = ServerSigningKeyId::parse(format!("ed25519:{name}"));
        Ok(Self {
            key: ed25519_dalek::SigningKey::from_bytes(seed),
            key_id: key_id.map_err(|_| KeyError::Name)?,
        })
    }

    /// The key as one line of text, in the form of Synapse's `signing.key` file. Secret.
    pub fn to_stored(&self) -> String {
        format!(
            "ed25519 {} {}",
            self.key_id.key_name().as_str(),
            base64::encode(self.key.to_bytes())
        )
    }

    /// The key that [`SigningKey::to_stored`] or Synapse wrote.
    ///
    /// # Errors
    ///
    /// [`KeyError`], if the line is not of that form.
    pub fn from_stored(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_ascii_whitespace();
        let (Some("ed25519"), Some(name), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::Stored);
        };
        let seed = base64::decode(seed).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        Self::from_seed(&seed.ok_or(KeyError::Stored)?, name)
    }

    /// The key's ID, `ed25519:` and its name.
    pub fn key_id(&self) -> &ServerSigningKeyId {
        &self.key_id
    }

    /// The public half, with which others verify.
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey(self.key.verifying_key())
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The signature of bytes, in Base64.
    pub fn sign_base64(&self, message: &[u8]) -> String {
        base64::encode(self.sign(message))
    }

    /// Signs an object that is no event, in the name of a server, and puts the signature beside those
    /// that are there ([spec](https://spec.matrix.org/v1.19/appendices/#signing-json)).
    ///
    /// A `signatures` that is no object of objects is replaced.
    pub fn sign_json(&self, server_name: &ServerName, object: &mut Object<'_>) {
        let signature = self.sign_base64(&message_of(object));
        let mut signatures = match object.remove("signatures") {
            Some(Value::Object(signatures)) => signatures,
            _ => Object::new(),
        };
        let mut ours = match signatures.remove(server_name.as_str()) {
            Some(Value::Object(ours)) => ours,
            _ => Object::new(),
        };
        ours.insert(
            self.key_id.as_str().to_owned(),
            Value::String(signature.into()),
        );
        signatures.insert(server_name.as_str().to_owned(), Value::Object(ours));
        object.insert("signatures", Value::Object(signatures));
    }
}

/// What is signed of an object that is no event: all but `signatures` and `unsigned`.
fn message_of(object: &Object<'_>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (key, value) in object
        .iter()
        .filter(|(key, _)| !matches!(*key, "signatures" | "unsigned"))
    {
        if out.len() > 1 {
            out.push(b',');
        }
        crate::canonical::write_string(key, &mut out);
        out.push(b':');
        value.write(&mut out);
    }
    out.push(b'}');
    out
}

/// The public half of a [`SigningKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey(VerifyingKey);

impl VerifyKey {
    /// Reads a key from 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError::Public`], if they are no Ed25519 key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        VerifyingKey::from_bytes(bytes)
            .map(Self)
            .map_err(|_| KeyError::Public)
    }

    /// Reads a key as servers publish it, in Base64.
    ///
    /// # Errors
    ///
    /// [`KeyError::Public`], if it is no Ed25519 key.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = base64::decode(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Self::from_bytes(&bytes.ok_or(KeyError::Public)?)
    }

    /// The key as servers publish it, in unpadded Base64.
    pub fn to_base64(&self) -> String {
        base64::encode(self.0.as_bytes())
    }

    /// The key's 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Whether a signature of bytes is this key's. Signatures and keys of small order, which would be
    /// valid for many messages, never are.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }

    /// Whether a signature of bytes, in Base64, is this key's.
    pub fn verify_base64(&self, message: &[u8], signature: &str) -> bool {
        base64::decode(signature).is_some_and(|signature| self.verify(message, &signature))
    }

    /// Whether an object that is no event carries a signature of a server or a user with the key of that
    /// ID, and it is this key's ([spec](https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature)).
    pub fn verify_json(&self, signer: &str, key_id: &str, object: &Object<'_>) -> bool {
        let signature = object
            .get("signatures")
            .and_then(|signatures| signatures.as_object()?.get(signer))
            .and_then(|theirs| theirs.as_object()?.get(key_id)?.as_str());
        signature.is_some_and(|signature| self.verify_base64(&message_of(object), signature))
    }
}

/// A key of another server and how long it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The key.
    pub key: VerifyKey,
    /// Until when events may be signed with it: of a current key the earlier of its `valid_until_ts` and
    /// seven days after it was fetched, of an old key its `expired_ts`.
    pub valid_until: MilliSecondsSinceUnixEpoch,
}
