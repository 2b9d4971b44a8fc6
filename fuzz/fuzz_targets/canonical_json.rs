//! Any bytes as JSON: what is accepted has one canonical form, which Serde can read too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pdu::canonical::{Numbers, Value, member, string};

fuzz_target!(|text: &[u8]| {
    for numbers in [Numbers::Canonical, Numbers::Any] {
        let Ok(value) = Value::parse(text, numbers) else { continue };
        let canonical = value.to_canonical();
        let again = Value::parse(&canonical, numbers).expect("canonical JSON is JSON");
        assert_eq!(again, value);
        assert_eq!(again.to_canonical(), canonical);
        serde_json::from_slice::<serde::de::IgnoredAny>(&canonical).expect("Serde reads it");
        if let Value::Object(object) = &value {
            for (key, value) in object.iter() {
                let found = member(&canonical, key).expect("each key is found in place");
                assert_eq!(found, value.to_canonical());
                assert_eq!(string(found).as_deref(), value.as_str());
            }
        }
    }
    // Bytes that are not canonical at all, as a damaged disk might give them.
    let _ = (member(text, "content"), string(text));
});
