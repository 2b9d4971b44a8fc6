//! Making rooms ([`POST /createRoom`]).
//!
//! All events of a new room, its alias and its place in the directory are one commit; only invites
//! beyond the first [`INVITES_AT_ONCE`], and those of people of other servers, follow in commits of their own.
//!
//! [`POST /createRoom`]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom

mod power_levels;

use futures_util::StreamExt as _;
use pdu::RoomRules;
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, RoomVersionId, UserId,
};
use serde_json::{Map, Value, json};
use storage::ShortUserId;

use self::power_levels::power_levels;
use crate::{
    Draft, Group, Rooms, invites::invited, membership::json_content, notices,
    profiles::MemberProfile,
};

/// So many invites go into the commit that makes the room, and into each one after it.
const INVITES_AT_ONCE: usize = 50;
/// So many servers are asked at a time to sign the invites of their people.
const FAR_INVITES_AT_ONCE: usize = 10;

/// What a new room is to be like.
#[derive(Clone, Debug)]
pub struct NewRoomRequest {
    /// Who makes it, a user of this server.
    pub creator: OwnedUserId,
    /// Its version.
    pub version: RoomVersionId,
    /// Keys for the content of `m.room.create`.
    pub creation_content: Map<String, Value>,
    /// Which rules of access it begins with.
    pub preset: Preset,
    /// Whether it is published in the directory.
    pub public: bool,
    /// State that it begins with.
    pub initial_state: Vec<InitialState>,
    /// Whom to invite.
    pub invite: Vec<OwnedUserId>,
    /// Whether the invites are to a direct chat.
    pub is_direct: bool,
    /// Its name.
    pub name: Option<String>,
    /// Its topic, as text.
    pub topic: Option<String>,
    /// The local part of its alias.
    pub alias: Option<String>,
    /// What to change in its power levels.
    pub power_level_content_override: Option<Map<String, Value>>,
    /// The user with whom the server talks in it, if that is what it is for.
    pub notices_of: Option<ShortUserId>,
}

/// A state event that a new room begins with.
#[derive(Clone, Debug)]
pub struct InitialState {
    /// Its type.
    pub event_type: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: Map<String, Value>,
}

/// A set of rules of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// By invite only.
    PrivateChat,
    /// The same, and who is invited gets the creator's power.
    TrustedPrivateChat,
    /// Everybody may join.
    PublicChat,
}

impl Preset {
    fn join_rule(self) -> &'static str {
        match self {
            Self::PublicChat => "public",
            Self::PrivateChat | Self::TrustedPrivateChat => "invite",
        }
    }

    /// Without an event that says otherwise guests are kept out.
    fn lets_guests_in(self) -> bool {
        match self {
            Self::PublicChat => false,
            Self::PrivateChat | Self::TrustedPrivateChat => true,
        }
    }
}

impl Rooms {
    /// Makes a room; its id.
    ///
    /// # Errors
    ///
    /// 403 `M_INVITE_BLOCKED` if one of the invitees does not want that; 400
    /// `M_UNSUPPORTED_ROOM_VERSION`, `M_ROOM_IN_USE` if the alias is taken, `M_INVALID_PARAM` for an
    /// alias or a creator that cannot be one, `M_INVALID_ROOM_STATE` if the events contradict each other,
    /// `M_BAD_JSON` or 413 `M_TOO_LARGE` if one of them cannot be an event.
    pub async fn create(&self, mut request: NewRoomRequest) -> error::Result<OwnedRoomId> {
        let rules = RoomRules::of(&request.version).ok_or_else(|| {
            error::unsupported_room_version(format!(
                "This server does not know room version {}",
                request.version
            ))
        })?;
        let alias = match &request.alias {
            Some(name) => Some(self.free_alias(name).await?),
            None => None,
        };
        let mut invite = std::mem::take(&mut request.invite);
        invite.dedup();
        let admins = match request.preset {
            Preset::TrustedPrivateChat => invite.as_slice(),
            Preset::PrivateChat | Preset::PublicChat => &[],
        };
        let content = std::mem::take(&mut request.creation_content);
        let mut drafts = vec![
            self.create_draft(rules, &request.creator, content, admins)?,
            self.creator_joins(&request.creator).await?,
        ];
        drafts.extend(first_state(rules, &request, admins, alias.as_deref())?);
        let invites = invite.iter().map(|invitee| (&*request.creator, &**invitee));
        self.check_invites(invites.chain(drafts.iter().filter_map(invited)))
            .await?;
        // The servers of others must sign their invites, which takes a room that is there.
        let own = self.server_name();
        let (mut invite, far): (Vec<_>, Vec<_>) = invite
            .into_iter()
            .partition(|user| user.server_name() == own);
        let later = invite.split_off(invite.len().min(INVITES_AT_ONCE));
        drafts.extend(self.invites(&request, &invite).await?);

        let new = self.new_room(rules, request.public)?;
        let more = match request.notices_of {
            Some(user) => Some(notices::row(user, new.short)),
            None => self.alias_rows(&new, &request.creator, alias.as_deref()),
        };
        let group = Group {
            drafts,
            more,
            ..Group::default()
        };
        let room_id = match self.send_first(new, group).await {
            Ok(room_id) => room_id,
            Err(error) => return Err(self.why_not(error, alias.as_deref()).await?),
        };
        for invite in later.chunks(INVITES_AT_ONCE) {
            let room = self.room(&room_id).await?;
            let drafts = self.invites(&request, invite).await?;
            let group = Group {
                drafts,
                ..Group::default()
            };
            self.send(&room, group).await?;
        }
        self.invite_all_far(&room_id, &request, &far).await?;
        Ok(room_id)
    }

    /// Invites people of other servers. Whoever cannot be reached, or does not want to be invited, is no reason
    /// for the room not to be there.
    async fn invite_all_far(
        &self,
        room_id: &RoomId,
        request: &NewRoomRequest,
        far: &[OwnedUserId],
    ) -> error::Result<()> {
        if far.is_empty() {
            return Ok(());
        }
        let room = self.room(room_id).await?;
        let drafts = self.invites(request, far).await?;
        let invite = async |draft: Draft| {
            if let Err(error) = self.invite_far(&room, Group::one(draft)).await {
                tracing::warn!(%error, %room_id, "somebody could not be invited into a new room");
            }
        };
        futures_util::stream::iter(drafts)
            .for_each_concurrent(FAR_INVITES_AT_ONCE, invite)
            .await;
        Ok(())
    }

    /// What to say about a room that could not be made.
    async fn why_not(
        &self,
        error: error::Error,
        alias: Option<&RoomAliasId>,
    ) -> error::Result<error::Error> {
        if let Some(alias) = alias
            && self.find_alias(alias).await?.is_some()
        {
            return Ok(alias_taken(alias));
        }
        Ok(match error.status().as_u16() {
            // No rule forbids its creator anything that is not wrong in itself.
            403 => error::invalid_room_state(error.to_string()),
            _ => error,
        })
    }

    /// The alias that a local part makes, if it can be one and nobody has it.
    async fn free_alias(&self, name: &str) -> error::Result<OwnedRoomAliasId> {
        if name.is_empty() || name.contains([':', '\0']) || name.contains(char::is_whitespace) {
            return Err(error::invalid_param(
                "room_alias_name is the part of the alias between # and :, without spaces and colons",
            ));
        }
        let alias = RoomAliasId::parse(format!("#{name}:{}", self.server_name()))
            .map_err(|_| error::invalid_param("room_alias_name makes no room alias"))?;
        match self.find_alias(&alias).await? {
            Some(_) => Err(alias_taken(&alias)),
            None => Ok(alias),
        }
    }

    /// The first event of a room.
    pub(crate) fn create_draft(
        &self,
        rules: &RoomRules,
        creator: &UserId,
        mut content: Map<String, Value>,
        admins: &[OwnedUserId],
    ) -> error::Result<Draft> {
        content.insert("room_version".to_owned(), json!(rules.version()));
        if rules.has_creator_field() {
            content.insert("creator".to_owned(), json!(creator));
        } else {
            content.remove("creator");
        }
        if rules.room_id_is_create_event_id() {
            let creators = additional_creators(creator, &content, admins)?;
            if !creators.is_empty() {
                content.insert("additional_creators".to_owned(), json!(creators));
            }
        }
        let content = json_content(content)?;
        let mut draft = Draft::state(creator.to_owned(), "m.room.create", "", content);
        // Rooms that are named by their first event must not be made alike in the same millisecond.
        draft.origin_server_ts = Some(self.unique_time());
        Ok(draft)
    }

    /// The second event of a room.
    pub(crate) async fn creator_joins(&self, creator: &OwnedUserId) -> error::Result<Draft> {
        let snapshot = self.snapshot().await?;
        let mut profiles = self
            .profiles(&snapshot, std::slice::from_ref(creator))
            .await?;
        let mut content = profiles.remove(creator).unwrap_or_default();
        content.insert("membership".to_owned(), json!("join"));
        let content = json_content(content)?;
        Ok(Draft::state(
            creator.clone(),
            "m.room.member",
            creator.as_str(),
            content,
        ))
    }

    async fn invites(
        &self,
        request: &NewRoomRequest,
        invite: &[OwnedUserId],
    ) -> error::Result<Vec<Draft>> {
        if invite.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.snapshot().await?;
        let mut profiles = self.profiles(&snapshot, invite).await?;
        invite
            .iter()
            .map(|user| {
                let mut content: MemberProfile = profiles.remove(user).unwrap_or_default();
                content.insert("membership".to_owned(), json!("invite"));
                if request.is_direct {
                    content.insert("is_direct".to_owned(), json!(true));
                }
                state(request, "m.room.member", user.as_str(), content)
            })
            .collect()
    }
}

/// That an alias is taken.
pub(crate) fn alias_taken(alias: &RoomAliasId) -> error::Error {
    error::room_in_use(format!("The alias {alias} is taken"))
}

/// Everything between the creator's join and the first invite, in the order that the specification
/// gives.
fn first_state(
    rules: &RoomRules,
    request: &NewRoomRequest,
    admins: &[OwnedUserId],
    alias: Option<&RoomAliasId>,
) -> error::Result<Vec<Draft>> {
    let given = |event_type: &str| {
        request
            .initial_state
            .iter()
            .find(|state| state.event_type == event_type && state.state_key.is_empty())
    };
    // Power levels come first, so that they hold for what follows; given ones replace them whole.
    let power = match given("m.room.power_levels") {
        Some(given) => given.content.clone(),
        None => power_levels(rules, request, admins)?,
    };
    let mut drafts = vec![state(request, "m.room.power_levels", "", power)?];
    let mut preset = |event_type: &str, content: Value| -> error::Result<()> {
        if given(event_type).is_none()
            && let Value::Object(content) = content
        {
            drafts.push(state(request, event_type, "", content)?);
        }
        Ok(())
    };
    if let Some(alias) = alias {
        preset("m.room.canonical_alias", json!({ "alias": alias }))?;
    }
    preset(
        "m.room.join_rules",
        json!({ "join_rule": request.preset.join_rule() }),
    )?;
    preset(
        "m.room.history_visibility",
        json!({ "history_visibility": "shared" }),
    )?;
    if request.preset.lets_guests_in() {
        preset("m.room.guest_access", json!({ "guest_access": "can_join" }))?;
    }
    for given in &request.initial_state {
        if given.event_type == "m.room.power_levels" && given.state_key.is_empty() {
            continue;
        }
        drafts.push(state(
            request,
            &given.event_type,
            &given.state_key,
            given.content.clone(),
        )?);
    }
    if let Some(name) = &request.name {
        let content = Map::from_iter([("name".to_owned(), json!(name))]);
        drafts.push(state(request, "m.room.name", "", content)?);
    }
    if let Some(topic) = &request.topic {
        let blocks = json!({ "m.text": [{ "mimetype": "text/plain", "body": topic }] });
        let content = Map::from_iter([
            ("topic".to_owned(), json!(topic)),
            ("m.topic".to_owned(), blocks),
        ]);
        drafts.push(state(request, "m.room.topic", "", content)?);
    }
    Ok(drafts)
}

/// Who besides the sender creates a room (since version 12), each once.
fn additional_creators(
    creator: &UserId,
    content: &Map<String, Value>,
    admins: &[OwnedUserId],
) -> error::Result<Vec<String>> {
    let wrong = || error::invalid_param("additional_creators is a list of user IDs");
    let mut creators = Vec::new();
    if let Some(given) = content.get("additional_creators") {
        for user in given.as_array().ok_or_else(wrong)? {
            let user = user.as_str().ok_or_else(wrong)?;
            UserId::parse(user).map_err(|_| wrong())?;
            creators.push(user.to_owned());
        }
    }
    creators.extend(admins.iter().map(ToString::to_string));
    let mut seen = std::collections::BTreeSet::new();
    creators.retain(|user| user != creator.as_str() && seen.insert(user.clone()));
    Ok(creators)
}

fn state(
    request: &NewRoomRequest,
    event_type: &str,
    state_key: &str,
    content: Map<String, Value>,
) -> error::Result<Draft> {
    Ok(Draft::state(
        request.creator.clone(),
        event_type,
        state_key,
        json_content(content)?,
    ))
}
