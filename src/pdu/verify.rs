//! The signatures of events.

use ruma::{
    OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId, UserId,
    events::TimelineEventType,
};

use crate::{
    base64,
    canonical::members::{find, members, string},
    event::Pdu,
    policy::POLICY_KEY_ID,
    redact,
    signing_key::PublicKey,
    version::RoomRules,
};

/// A server whose signature an event must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredSignature {
    /// The server.
    pub server: OwnedServerName,
    /// The IDs of the Ed25519 keys with which it signed the event, or says so; of these at least one
    /// must be known and valid. None: the signature is missing.
    pub key_ids: Vec<OwnedServerSigningKeyId>,
}

/// Why the signatures of an event do not prove that it comes from its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A server that must have signed did not.
    #[error("the event is not signed by {0}")]
    Missing(OwnedServerName),
    /// None of the keys that a server signed with is known.
    #[error("no key is known for the signature of {0}")]
    NoKey(OwnedServerName),
    /// The keys that a server signed with were not valid any more when it says to have signed.
    #[error("the key with which {0} signed the event had expired")]
    Expired(OwnedServerName),
    /// A signature is not of the key it names.
    #[error("the signature of {0} with the key {1} does not match the event")]
    Mismatch(OwnedServerName, OwnedServerSigningKeyId),
    /// The content names a user to authorise the join whose ID is not valid.
    #[error("`join_authorised_via_users_server` is not a user ID")]
    AuthorisingUser,
}

/// The servers that must have signed an event
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events)),
/// each with the keys it signed with, so that these can be fetched before [`verify_signatures`].
///
/// The sender's server, but not for an invite by a third-party identifier, which its `signed` proves; in
/// versions 1 and 2 the server of the event's ID; since version 8 the server that authorised a
/// restricted join.
///
/// # Errors
///
/// [`SignatureError::AuthorisingUser`], if the server that authorised a join cannot be told.
pub fn required_signatures(
    pdu: &Pdu,
    rules: &RoomRules,
) -> Result<Vec<RequiredSignature>, SignatureError> {
    let mut servers: Vec<OwnedServerName> = Vec::new();
    let mut require = |server: &ServerName| {
        if !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
    };
    let content = pdu.content_bytes();
    let is_member = *pdu.event_type() == TimelineEventType::RoomMember;
    let membership = if is_member {
        find(content, "membership")
    } else {
        None
    };
    let by_third_party =
        membership == Some(b"\"invite\"") && find(content, "third_party_invite").is_some();
    if !by_third_party {
        require(pdu.sender().server_name());
    }
    if rules.signatures.check_event_id_server
        && let Some(server) = pdu.event_id().server_name()
    {
        require(server);
    }
    if rules.signatures.check_join_authorised_via_users_server
        && membership == Some(b"\"join\"")
        && let Some(user) = find(content, "join_authorised_via_users_server")
    {
        let user = string(user).and_then(|user| UserId::parse(user.as_ref()).ok());
        require(user.ok_or(SignatureError::AuthorisingUser)?.server_name());
    }
    let signatures = find(pdu.json(), "signatures").unwrap_or_default();
    Ok(servers
        .into_iter()
        .map(|server| with_keys(server, signatures))
        .collect())
}

fn with_keys(server: OwnedServerName, signatures: &[u8]) -> RequiredSignature {
    let theirs = find(signatures, server.as_str()).unwrap_or_default();
    let key_ids = members(theirs)
        .filter_map(|member| std::str::from_utf8(member.key).ok())
        // What a policy server signs with is no key that servers publish.
        .filter(|key_id| key_id.starts_with("ed25519:") && *key_id != POLICY_KEY_ID)
        .filter_map(|key_id| ServerSigningKeyId::parse(key_id).ok());
    RequiredSignature {
        key_ids: key_ids.collect(),
        server,
    }
}

/// Whether the servers that must have signed an event did so, with keys that `keys` knows.
///
/// Every signature of such a server whose key is known must be right, and there must be one. Since
/// version 5 a key counts only for events from the time it was valid in.
///
/// # Errors
///
/// Says whose signature is missing or wrong.
pub fn verify_signatures(
    pdu: &Pdu,
    rules: &RoomRules,
    keys: &dyn Fn(&ServerName, &ServerSigningKeyId) -> Option<PublicKey>,
) -> Result<(), SignatureError> {
    let required = required_signatures(pdu, rules)?;
    if required.is_empty() {
        return Ok(());
    }
    let message = redact::signed_json(pdu.json(), rules);
    let signatures = find(pdu.json(), "signatures").unwrap_or_default();
    for RequiredSignature { server, key_ids } in required {
        if key_ids.is_empty() {
            return Err(SignatureError::Missing(server));
        }
        let theirs = find(signatures, server.as_str()).unwrap_or_default();
        let (mut verified, mut expired) = (false, false);
        for key_id in key_ids {
            let Some(public) = keys(&server, &key_id) else {
                continue;
            };
            if rules.enforce_key_validity && pdu.origin_server_ts() > public.valid_until {
                expired = true;
                continue;
            }
            let signature = find(theirs, key_id.as_str())
                .and_then(string)
                .and_then(|signature| base64::decode(&signature));
            if !signature.is_some_and(|signature| public.key.verify(&message, &signature)) {
                return Err(SignatureError::Mismatch(server, key_id));
            }
            verified = true;
        }
        match (verified, expired) {
            (true, _) => {}
            (false, true) => return Err(SignatureError::Expired(server)),
            (false, false) => return Err(SignatureError::NoKey(server)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
