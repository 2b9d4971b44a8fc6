//! Any bytes as an event of any room version: what is accepted stays the same event, however it is read,
//! stored or redacted, and everything that looks at events answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pdu::{
    Pdu, RoomRules, check_auth, check_auth_without_state, check_content_hash, required_signatures,
    verify_signatures,
};

// The bytes end in one that picks the room version, so that the rest is plain JSON in a corpus.
fuzz_target!(|data: &[u8]| {
    let Some((&pick, text)) = data.split_last() else { return };
    let versions = RoomRules::all().count();
    let rules = RoomRules::all().nth(usize::from(pick) % versions).expect("one of them");
    let Ok(event) = Pdu::parse(text, rules) else { return };

    let again = Pdu::parse(event.json(), rules).expect("what we serve is an event");
    assert_eq!(again.event_id(), event.event_id());
    assert_eq!(again.json(), event.json());
    let stored = Pdu::from_stored(event.event_id().to_owned(), event.json().clone(), rules, false);
    assert_eq!(stored.expect("what we store is an event").content_bytes(), event.content_bytes());
    let redacted = event.redacted(rules).expect("a redacted event is an event");
    let twice = redacted.redacted(rules).expect("it can be redacted again");
    assert_eq!(twice.json(), redacted.json());
    assert_eq!(redacted.reference_hash(rules), event.reference_hash(rules));

    let _ = check_content_hash(&event);
    let _ = required_signatures(&event, rules);
    let _ = verify_signatures(&event, rules, &|_, _| None);
    let _ = check_auth_without_state(&event, rules, |_| Some(&event));
    // The event as its own state: whatever a rule asks for is as odd as the event.
    let _ = check_auth(&event, rules, &event, |event_type, state_key| {
        let (held_type, held_key) = event.state_slot()?;
        (held_type == *event_type && held_key == state_key).then_some(&event)
    });
    let _ = check_auth(&event, rules, &event, |_, _| Some(&event));
});
