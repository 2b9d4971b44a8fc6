//! Proving which server asks
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#request-authentication)).

use error::Result;
use http::request;
use ruma::{OwnedServerName, ServerName};

use crate::{
    Federation,
    policy::class_of_path,
    remote_keys::{Asking, KeysOf, SignatureOf, Wanted},
    sign::{self, Signed},
};
use config::Direction;

/// Who says to ask, and the keys with which that can be checked once the body is there.
#[derive(Debug)]
pub struct Claim {
    origin: OwnedServerName,
    signed: Vec<Signed>,
    keys: std::sync::Arc<KeysOf>,
}

impl Claim {
    /// The server that says to ask. Nothing is proven yet.
    pub fn origin(&self) -> &ServerName {
        &self.origin
    }
}

impl Federation {
    /// Who says to ask, by the head of a request, and fetches their keys. Whoever can be refused without
    /// reading the body is.
    ///
    /// # Errors
    ///
    /// 401 `M_UNAUTHORIZED`: nobody says so, or whom they ask is not us, or their keys cannot be had; 403
    /// `M_FORBIDDEN`: we do not talk to them about this. Storage fails.
    pub async fn claim(&self, head: &request::Parts) -> Result<Claim> {
        let mut signed = Signed::all(&head.headers);
        let Some(origin) = signed.first().map(|first| first.origin.clone()) else {
            return Err(error::unauthorized(
                "This needs the header `Authorization: X-Matrix …` with the signature of a server",
            ));
        };
        // Older servers sign with each of their keys; a request of two servers is none.
        if signed.iter().any(|other| other.origin != origin) {
            return Err(error::unauthorized("Two servers say that they ask this"));
        }
        let ours = |name: &OwnedServerName| name == self.server_name();
        signed.retain(|signed| signed.destination.as_ref().is_none_or(ours));
        if signed.is_empty() {
            return Err(error::unauthorized(format!(
                "This is asked of another server; here is {}",
                self.server_name()
            )));
        }
        if ours(&origin) {
            return Err(error::unauthorized("This server does not ask itself"));
        }
        let class = class_of_path(head.uri.path());
        if !self.allows(&origin, Direction::In, class) {
            return Err(error::forbidden(format!(
                "This server does not talk to {origin} about this"
            )));
        }
        let wanted = Wanted {
            server: origin.clone(),
            key_ids: signed.iter().map(|signed| signed.key_id.clone()).collect(),
            at: self.now(),
            of: SignatureOf::Request,
        };
        let mut keys = self.fetch_keys(&[wanted], Asking::InAnyCase).await?;
        let keys = keys.remove(&origin).unwrap_or_default();
        Ok(Claim {
            origin,
            signed,
            keys,
        })
    }

    /// Proves a claim with the body of the request.
    ///
    /// # Errors
    ///
    /// 401 `M_UNAUTHORIZED`, if the signature is not that of a key which the server signs with now; 400
    /// `M_NOT_JSON`.
    pub async fn prove(
        &self,
        claim: Claim,
        head: &request::Parts,
        body: &[u8],
    ) -> Result<OwnedServerName> {
        let ours = self.server_name();
        let message = sign::message(&head.method, &head.uri, &claim.origin, ours, body);
        let message = message
            .map_err(|fault| error::not_json(format!("The body cannot be signed: {fault}")))?;
        let now = self.now();
        let is_right = claim.signed.iter().any(|signed| {
            let key = claim.keys.get(&signed.key_id);
            key.filter(|key| !key.expired && key.valid_until >= now)
                .is_some_and(|key| key.key.verify_base64(&message, &signed.signature))
        });
        if !is_right {
            let reason = if claim.keys.is_empty() {
                "the keys of the server cannot be had"
            } else {
                "no key of the server made it"
            };
            return Err(error::unauthorized(format!(
                "The signature of the request does not prove that {} asks: {reason}",
                claim.origin
            )));
        }
        // It is there again, if it was away.
        self.answered(&claim.origin).await;
        Ok(claim.origin)
    }
}
