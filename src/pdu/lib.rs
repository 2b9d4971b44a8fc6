//! An event by itself: format, hash, signature, redaction, auth rules, state resolution, the tree that
//! holds a room's state. Pure: no I/O, no async, no clock, no randomness. Same input, same output, for ever.

mod auth;
mod auth_types;
mod base64;
pub mod canonical;
mod chain;
mod content;
mod cosign;
mod draft;
mod error;
mod event;
#[cfg(test)]
mod fixture_tests;
mod format;
mod hash;
mod number;
mod policy;
mod power;
mod redact;
pub mod resolve;
mod signing_key;
mod step;
#[cfg(test)]
mod synapse_tests;
mod template;
pub mod tree;
mod verify;
mod version;

pub use self::{
    auth::{
        AuthError, check_auth, check_auth_without_state, check_own_power_levels, may_redact_others,
        redaction_applies,
    },
    auth_types::auth_types,
    chain::{AuthChain, AuthChainError, AuthSetHash},
    content::{history_visibility_of, join_rule_of, membership_of},
    draft::Draft,
    error::{
        MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_EVENT_TEXT_BYTES, MAX_FIELD_BYTES, MAX_PREV_EVENTS,
        PduError,
    },
    event::Pdu,
    hash::{check_content_hash, claimed_event_id},
    number::EventNumber,
    policy::{POLICY_KEY_NAME, PolicyServer},
    power::{NamedLevel, PowerLevel, PowerLevels, is_creator},
    signing_key::{KeyError, PublicKey, SigningKey, VerifyKey},
    step::Step,
    verify::{RequiredSignature, SignatureError, required_signatures, verify_signatures},
    version::RoomRules,
};
