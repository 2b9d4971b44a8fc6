//! What member events repeat of profiles.

use std::collections::HashMap;

use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};
use storage::{Snapshot, schema};

use crate::Rooms;

/// The fields of a profile that member events repeat.
const FIELDS: [&str; 2] = ["avatar_url", "displayname"];

/// What a member event says of a profile: the fields that are set.
pub(crate) type MemberProfile = Map<String, Value>;

impl Rooms {
    /// The profiles of people of this server, as far as member events repeat them; two round trips.
    /// Who has no account here is left out.
    pub(crate) async fn profiles(
        &self,
        snapshot: &Snapshot,
        users: &[OwnedUserId],
    ) -> error::Result<HashMap<OwnedUserId, MemberProfile>> {
        let local: Vec<&UserId> = users
            .iter()
            .map(AsRef::as_ref)
            .filter(|user: &&UserId| user.server_name() == self.server_name())
            .collect();
        let names: Vec<_> = local
            .iter()
            .map(|user| self.storage().user_hash(*user))
            .collect();
        let shorts = snapshot.multi_get(&schema::USER_BY_NAME, &names).await?;
        let known: Vec<_> = local
            .into_iter()
            .zip(shorts)
            .filter_map(|(user, short)| Some((user, short?.value)))
            .collect();
        let keys: Vec<_> = known
            .iter()
            .flat_map(|(_, short)| FIELDS.map(|field| (*short, self.storage().field_hash(field))))
            .collect();
        let rows = snapshot
            .multi_get(&schema::PROFILE_FIELD_BY_USER, &keys)
            .await?;
        let mut profiles = HashMap::new();
        for ((user, _), rows) in known.iter().zip(rows.chunks(FIELDS.len())) {
            let mut profile = MemberProfile::new();
            for row in rows.iter().flatten() {
                let value = serde_json::from_str(&row.value.json).map_err(error::internal)?;
                profile.insert(row.value.field.clone(), value);
            }
            profiles.insert((*user).to_owned(), profile);
        }
        Ok(profiles)
    }
}
