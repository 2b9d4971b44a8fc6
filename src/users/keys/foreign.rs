//! Keys of people of other servers, as these tell them: checked before anything is done with them.
//!
//! What is wrong with them by their own words is not passed on; whether they are to be trusted clients find
//! out by themselves.

use pdu::VerifyKey;
use ruma::{
    DeviceId, UserId,
    encryption::{CrossSigningKey, DeviceKeys, KeyUsage},
};
use serde_json::value::RawValue;

use super::{signed::Signed, signing_key_id};

/// The longest key, in bytes of JSON.
const MAX_KEY: usize = 64 * 1024;

/// The identity keys of a device, as JSON without `unsigned`; none if they are no such keys, another
/// device's, or not signed by the device that they say they are signed by.
///
/// NOTSPEC: keys without any signature of their device are taken. Servers of all kinds store such keys, and
/// clients refuse them.
pub fn foreign_device_keys(user: &UserId, device: &DeviceId, keys: &RawValue) -> Option<String> {
    if keys.get().len() > MAX_KEY {
        return None;
    }
    let parsed: DeviceKeys = serde_json::from_str(keys.get()).ok()?;
    if parsed.user_id != user || parsed.device_id != device {
        return None;
    }
    let signed = Signed::read(keys).ok()?;
    let key_id = signing_key_id(device);
    let signs = signed.signatures_of(user);
    if signs.iter().any(|(id, _)| *id == key_id) {
        let key = signed.verify_key(&key_id)?;
        if !signed.is_signed_by(user, &key_id, &key) {
            return None;
        }
    }
    Some(signed.to_json())
}

/// The key that stands for a user, as JSON; none if it is no such key, or another user's.
pub fn foreign_master_key(user: &UserId, key: &RawValue) -> Option<String> {
    let (_, signed) = cross_signing_key(user, &KeyUsage::Master, key)?;
    Some(signed.to_json())
}

/// The key with which a user signs their devices, as JSON; none if it is no such key, another user's, or not
/// signed by their master key.
pub fn foreign_self_signing_key(user: &UserId, master: &str, key: &RawValue) -> Option<String> {
    let master = RawValue::from_string(master.to_owned()).ok()?;
    let (master, _) = cross_signing_key(user, &KeyUsage::Master, &master)?;
    let (_, signed) = cross_signing_key(user, &KeyUsage::SelfSigning, key)?;
    let verify_key = VerifyKey::from_base64(&master).ok()?;
    let by_master = signed.is_signed_by(user, &format!("ed25519:{master}"), &verify_key);
    by_master.then(|| signed.to_json())
}

/// The public part of a cross-signing key, and all of it.
fn cross_signing_key(user: &UserId, usage: &KeyUsage, key: &RawValue) -> Option<(String, Signed)> {
    if key.get().len() > MAX_KEY {
        return None;
    }
    let parsed: CrossSigningKey = serde_json::from_str(key.get()).ok()?;
    if parsed.user_id != user || !parsed.usage.contains(usage) {
        return None;
    }
    let mut keys = parsed.keys.values();
    let (Some(public), None) = (keys.next(), keys.next()) else {
        return None;
    };
    Some((public.clone(), Signed::read(key).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use pdu::{
        SigningKey,
        canonical::{Numbers, Value as Canonical},
    };
    use ruma::{device_id, user_id};
    use serde_json::{Value, json};

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    /// Signs with a key of that seed, in the name of a user.
    fn signed(mut value: Value, user: &UserId, key_id: &str, seed: u8) -> Value {
        let key = SigningKey::from_seed(&[seed; 32], "1").unwrap();
        let text = value.to_string();
        let canonical = Canonical::parse(text.as_bytes(), Numbers::Canonical);
        let mut bytes = Vec::new();
        canonical.unwrap().write(&mut bytes);
        let signature = key.sign_base64(&bytes);
        value["signatures"] = json!({ user.as_str(): { key_id: signature } });
        value
    }

    fn public(seed: u8) -> String {
        let key = SigningKey::from_seed(&[seed; 32], "1").unwrap();
        key.verify_key().to_base64()
    }

    #[test]
    fn keys_of_a_device_are_its_own_and_signed_by_it_if_at_all() {
        let (anna, phone) = (user_id!("@anna:a.example"), device_id!("PHONE"));
        let keys = json!({
            "user_id": anna, "device_id": phone, "algorithms": ["a"],
            "keys": { "ed25519:PHONE": public(1) },
        });
        let with = |signatures: Value| {
            let mut keys = keys.clone();
            keys["signatures"] = signatures;
            raw(&keys)
        };
        assert!(foreign_device_keys(anna, phone, &with(json!({}))).is_some());
        let good = raw(&signed(keys.clone(), anna, "ed25519:PHONE", 1));
        assert!(foreign_device_keys(anna, phone, &good).is_some());
        let forged = raw(&signed(keys.clone(), anna, "ed25519:PHONE", 2));
        assert_eq!(foreign_device_keys(anna, phone, &forged), None);
        let other = user_id!("@bert:a.example");
        assert_eq!(foreign_device_keys(other, phone, &good), None);
        assert_eq!(foreign_device_keys(anna, device_id!("TABLET"), &good), None);
        assert_eq!(foreign_device_keys(anna, phone, &raw(&json!([]))), None);
    }

    #[test]
    fn a_self_signing_key_is_signed_by_the_master_key() {
        let anna = user_id!("@anna:a.example");
        let key = |usage: &str, seed: u8| {
            let public = public(seed);
            json!({
                "user_id": anna, "usage": [usage], "keys": { format!("ed25519:{public}"): public },
            })
        };
        let master = foreign_master_key(anna, &raw(&key("master", 1))).unwrap();
        let by = format!("ed25519:{}", public(1));
        let good = raw(&signed(key("self_signing", 2), anna, &by, 1));
        assert!(foreign_self_signing_key(anna, &master, &good).is_some());
        let forged = raw(&signed(key("self_signing", 2), anna, &by, 3));
        assert_eq!(foreign_self_signing_key(anna, &master, &forged), None);
        let unsigned = raw(&key("self_signing", 2));
        assert_eq!(foreign_self_signing_key(anna, &master, &unsigned), None);
        let other = user_id!("@bert:a.example");
        assert_eq!(foreign_master_key(other, &raw(&key("master", 1))), None);
        assert_eq!(
            foreign_master_key(anna, &raw(&key("self_signing", 1))),
            None
        );
    }
}
