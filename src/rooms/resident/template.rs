//! Templates of member events, for servers that are not in the room.

use ruma::{RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Map, Value, json, value::RawValue};
use storage::schema::Membership;

use crate::{Draft, Group, Room, Rooms, membership::json_content, restricted, writer::tried};

/// A template, and the version of its room.
#[derive(Clone, Debug)]
pub struct MemberTemplate {
    /// The version.
    pub room_version: RoomVersionId,
    /// The event without ID, hashes and signatures.
    pub event: Box<RawValue>,
}

impl Rooms {
    /// What a server makes an event of by which one of its people joins, leaves or knocks
    /// ([`make_join`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid),
    /// `make_leave`, `make_knock`). `versions` are those that the server knows, if it has to.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the user is not of that server, its access is denied, or the room's rules do not
    /// allow it; 404 `M_NOT_FOUND` if we are not in the room; 400 `M_INCOMPATIBLE_ROOM_VERSION`,
    /// `M_UNABLE_TO_AUTHORISE_JOIN`, `M_UNABLE_TO_GRANT_JOIN`.
    pub async fn member_template(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        membership: Membership,
        versions: Option<&[RoomVersionId]>,
    ) -> error::Result<MemberTemplate> {
        if user.server_name() != origin {
            return Err(error::forbidden("This user is not of your server"));
        }
        let (room, _) = self
            .room_for(origin, room_id, membership == Membership::Leave)
            .await?;
        let version = room.rules.version_id();
        if versions.is_some_and(|known| !known.contains(&version)) {
            return Err(error::incompatible_room_version(
                version,
                "Your server does not know the version of this room",
            ));
        }
        let mut content = Map::new();
        content.insert("membership".to_owned(), json!(membership.as_str()));
        if membership == Membership::Join
            && let Some(authoriser) = self.authoriser_of(&room, user).await?
        {
            let key = "join_authorised_via_users_server".to_owned();
            content.insert(key, Value::String(authoriser.to_string()));
        }
        let content = json_content(content)?;
        let draft = Draft::state(user.to_owned(), "m.room.member", user.as_str(), content);
        let tried = tried(self, &room, &Group::one(draft)).await?;
        let event = tried
            .event
            .ok_or_else(|| error::internal("a template says what is there already"))?;
        let template = event.template(room.rules, self.server_name());
        let template = template.map_err(error::internal)?;
        Ok(MemberTemplate {
            room_version: version,
            event: RawValue::from_string(template).map_err(error::internal)?,
        })
    }

    /// Who of this server vouches for somebody's join; nobody has to if the room is not restricted, or they
    /// are in it, or invited.
    ///
    /// # Errors
    ///
    /// As [`restricted::authoriser`].
    pub(super) async fn authoriser_of(
        &self,
        room: &Room,
        user: &UserId,
    ) -> error::Result<Option<ruma::OwnedUserId>> {
        let snapshot = self.snapshot().await?;
        match room.membership(self, &snapshot, user).await? {
            Some(Membership::Join | Membership::Invite) => Ok(None),
            _ => restricted::authoriser(self, &snapshot, room, user).await,
        }
    }
}
