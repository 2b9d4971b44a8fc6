//! Invites that people do not want are not sent to them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#invite-permission

use std::collections::BTreeSet;

use pdu::canonical;
use ruma::{UserId, events::TimelineEventType};
use storage::schema;
use users::{InvitePermissions, Invites};

use crate::{Draft, Rooms};

impl Rooms {
    /// Whether people let themselves be invited, each by whoever stands before them. Two round trips, and
    /// none where nobody of this server is invited.
    ///
    /// # Errors
    ///
    /// 403 `M_INVITE_BLOCKED`.
    pub(crate) async fn check_invites(
        &self,
        invites: impl Iterator<Item = (&UserId, &UserId)>,
    ) -> error::Result<()> {
        let invites: BTreeSet<_> = invites
            .filter(|(sender, invitee)| {
                invitee.server_name() == self.server_name() && self.notices_user() != Some(sender)
            })
            .collect();
        if invites.is_empty() {
            return Ok(());
        }
        let snapshot = self.snapshot().await?;
        let names: Vec<_> = invites
            .iter()
            .map(|(_, invitee)| self.storage().user_hash(invitee))
            .collect();
        let shorts = snapshot.multi_get(&schema::USER_BY_NAME, &names).await?;
        let here: Vec<_> = invites
            .into_iter()
            .zip(shorts)
            .filter_map(|(invite, short)| Some((invite, short?.value)))
            .collect();
        let keys: Vec<_> = here
            .iter()
            .flat_map(|(_, short)| InvitePermissions::keys(self.storage(), *short))
            .collect();
        let rows = snapshot
            .multi_get(&schema::ACCOUNT_DATA_BY_USER, &keys)
            .await?;
        let each = keys.len() / here.len().max(1);
        for (((sender, invitee), _), rows) in here.into_iter().zip(rows.chunks(each.max(1))) {
            if InvitePermissions::of_rows(rows).of(sender.as_str()) == Invites::Blocked {
                return Err(error::invite_blocked(format!(
                    "{invitee} wants no invites from you"
                )));
            }
        }
        Ok(())
    }
}

/// Who invites whom by a draft.
pub(crate) fn invited(draft: &Draft) -> Option<(&UserId, &UserId)> {
    if draft.event_type != TimelineEventType::RoomMember {
        return None;
    }
    let invitee = <&UserId>::try_from(draft.state_key.as_deref()?).ok()?;
    let membership = canonical::member(draft.content.get().as_bytes(), "membership")?;
    let invites = canonical::string(membership)? == "invite" && invitee != draft.sender;
    invites.then_some((&*draft.sender, invitee))
}
