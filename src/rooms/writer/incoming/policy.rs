//! Check 7 on receipt of a PDU: what the room's policy server says of it ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures

use pdu::PolicyServer;
use storage::schema::{Outcome, Verdict};

use super::Judging;
use crate::{Received, writer::Way};

/// How the reason begins for which an event is soft-failed by the policy server's word.
const NOT_RECOMMENDED: &str = "the room's policy server does not recommend it";

/// Why an event was soft-failed, if it was by the policy server's word: whatever turns out about the room's state,
/// that stays.
pub(in crate::writer) fn not_recommended(verdict: &Verdict) -> Option<String> {
    let reason = verdict.reason.as_ref()?;
    let by_policy = verdict.outcome == Outcome::SoftFailed && reason.starts_with(NOT_RECOMMENDED);
    by_policy.then(|| reason.clone())
}

impl Judging<'_> {
    /// Why the event is to be soft-failed: because of the current state, or by the policy server's word. The error
    /// is as of [`Judging::check_by_policy`].
    pub(super) fn check_now(
        &self,
        by_state: Result<(), String>,
    ) -> Result<Option<String>, Box<PolicyServer>> {
        match by_state {
            Ok(()) => self.check_by_policy(),
            Err(reason) => Ok(Some(reason)),
        }
    }

    /// Why the policy server of the room as it is now does not recommend the event; `None` if it does, or there
    /// is none. The error is the policy server, if it has to be asked first.
    fn check_by_policy(&self) -> Result<Option<String>, Box<PolicyServer>> {
        let (pdu, rules) = (self.pdu(), self.room.rules);
        let Some(policy) = self.working.policy_server() else {
            return Ok(None);
        };
        let counts = self.rooms.can_ask(&policy) && PolicyServer::is_asked_about(pdu);
        if !counts || policy.has_signed(pdu, rules) {
            return Ok(None);
        }
        match self.way {
            Way::NotRecommended(reason) => Ok(Some(format!("{NOT_RECOMMENDED}: {reason}"))),
            _ => Err(Box::new(policy)),
        }
    }

    /// What becomes of an event of ours that is not allowed: nobody has heard of it, so nothing is written.
    pub(super) fn in_vain(
        &self,
        rejected: &Option<String>,
        soft_failed: &Option<String>,
    ) -> Option<Received> {
        match (self.way, rejected, soft_failed) {
            (Way::Ours(_), Some(reason), _) => Some(Received::Rejected(reason.clone())),
            (Way::Ours(_), None, Some(reason)) => Some(Received::SoftFailed(reason.clone())),
            _ => None,
        }
    }
}
