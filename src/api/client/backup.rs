//! Backups of the keys of encrypted rooms.

use std::collections::BTreeMap;

use error::Result;
use ruma::{
    OwnedRoomId, UInt,
    api::client::backup::{
        BackupAlgorithm, KeyBackupData, RoomKeyBackup, add_backup_keys, add_backup_keys_for_room,
        add_backup_keys_for_session, create_backup_version, delete_backup_keys,
        delete_backup_keys_for_room, delete_backup_keys_for_session, delete_backup_version,
        get_backup_info, get_backup_keys, get_backup_keys_for_room, get_backup_keys_for_session,
        get_latest_backup_info, update_backup_version,
    },
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use users::{Backup, BackupKey, BackupKeys, BackupScope, BackupState, Requester};

use crate::{Call, Server};

/// [`POST /room_keys/version`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion).
pub(super) async fn create_backup_version(
    server: Server,
    call: Call<create_backup_version::v3::Request>,
) -> Result<create_backup_version::v3::Response> {
    let given = Given::read(&call.algorithm)?;
    let version = server
        .users
        .create_backup(call.caller.user, &given.algorithm, &given.auth_data)
        .await?;
    Ok(create_backup_version::v3::Response::new(version))
}

/// [`GET /room_keys/version`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion).
pub(super) async fn get_latest_backup_info(
    server: Server,
    call: Call<get_latest_backup_info::v3::Request>,
) -> Result<get_latest_backup_info::v3::Response> {
    let backup = server.users.backup(call.caller.user, None).await?;
    let (algorithm, count) = (algorithm(&backup)?, count(&backup.state));
    Ok(get_latest_backup_info::v3::Response::new(
        algorithm,
        count,
        backup.state.etag,
        backup.version,
    ))
}

/// [`GET /room_keys/version/{version}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion).
pub(super) async fn get_backup_info(
    server: Server,
    call: Call<get_backup_info::v3::Request>,
) -> Result<get_backup_info::v3::Response> {
    let version = Some(call.version.as_str());
    let backup = server.users.backup(call.caller.user, version).await?;
    let (algorithm, count) = (algorithm(&backup)?, count(&backup.state));
    Ok(get_backup_info::v3::Response::new(
        algorithm,
        count,
        backup.state.etag,
        backup.version,
    ))
}

/// [`PUT /room_keys/version/{version}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion).
pub(super) async fn update_backup_version(
    server: Server,
    call: Call<update_backup_version::v3::Request>,
) -> Result<update_backup_version::v3::Response> {
    let given = Given::read(&call.algorithm)?;
    if given.version.is_some_and(|version| version != call.version) {
        return Err(error::invalid_param(
            "The version in the body is another one than in the path",
        ));
    }
    server
        .users
        .update_backup(
            call.caller.user,
            &call.version,
            &given.algorithm,
            &given.auth_data,
        )
        .await?;
    Ok(update_backup_version::v3::Response::new())
}

/// [`DELETE /room_keys/version/{version}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion).
pub(super) async fn delete_backup_version(
    server: Server,
    call: Call<delete_backup_version::v3::Request>,
) -> Result<delete_backup_version::v3::Response> {
    server
        .users
        .delete_backup(call.caller.user, &call.version)
        .await?;
    Ok(delete_backup_version::v3::Response::new())
}

/// [`PUT /room_keys/keys`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys).
pub(super) async fn add_backup_keys(
    server: Server,
    call: Call<add_backup_keys::v3::Request>,
) -> Result<add_backup_keys::v3::Response> {
    let mut keys = BackupKeys::new();
    for (room_id, room) in &call.rooms {
        keys.insert(room_id.clone(), read_sessions(&room.sessions)?);
    }
    let state = put(&server, &call.caller, &call.version, &keys).await?;
    let count = count(&state);
    Ok(add_backup_keys::v3::Response::new(state.etag, count))
}

/// [`PUT /room_keys/keys/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid).
pub(super) async fn add_backup_keys_for_room(
    server: Server,
    call: Call<add_backup_keys_for_room::v3::Request>,
) -> Result<add_backup_keys_for_room::v3::Response> {
    let keys = BTreeMap::from([(call.room_id.clone(), read_sessions(&call.sessions)?)]);
    let state = put(&server, &call.caller, &call.version, &keys).await?;
    let count = count(&state);
    Ok(add_backup_keys_for_room::v3::Response::new(
        state.etag, count,
    ))
}

/// [`PUT /room_keys/keys/{roomId}/{sessionId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid).
pub(super) async fn add_backup_keys_for_session(
    server: Server,
    call: Call<add_backup_keys_for_session::v3::Request>,
) -> Result<add_backup_keys_for_session::v3::Response> {
    let session = (call.session_id.clone(), read_key(&call.session_data)?);
    let keys = BTreeMap::from([(call.room_id.clone(), BTreeMap::from([session]))]);
    let state = put(&server, &call.caller, &call.version, &keys).await?;
    let count = count(&state);
    Ok(add_backup_keys_for_session::v3::Response::new(
        state.etag, count,
    ))
}

/// [`GET /room_keys/keys`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys).
pub(super) async fn get_backup_keys(
    server: Server,
    call: Call<get_backup_keys::v3::Request>,
) -> Result<get_backup_keys::v3::Response> {
    let keys = server
        .users
        .backup_keys(call.caller.user, &call.version, BackupScope::All)
        .await?;
    let rooms = keys
        .into_iter()
        .map(|(room_id, sessions)| (room_id, RoomKeyBackup::new(as_raw(sessions))));
    Ok(get_backup_keys::v3::Response::new(rooms.collect()))
}

/// [`GET /room_keys/keys/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid).
pub(super) async fn get_backup_keys_for_room(
    server: Server,
    call: Call<get_backup_keys_for_room::v3::Request>,
) -> Result<get_backup_keys_for_room::v3::Response> {
    let room_id = &call.room_id;
    let mut keys = server
        .users
        .backup_keys(call.caller.user, &call.version, BackupScope::Room(room_id))
        .await?;
    let sessions = keys.remove(room_id).unwrap_or_default();
    Ok(get_backup_keys_for_room::v3::Response::new(as_raw(
        sessions,
    )))
}

/// [`GET /room_keys/keys/{roomId}/{sessionId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid).
pub(super) async fn get_backup_keys_for_session(
    server: Server,
    call: Call<get_backup_keys_for_session::v3::Request>,
) -> Result<get_backup_keys_for_session::v3::Response> {
    let scope = BackupScope::Session(&call.room_id, &call.session_id);
    let keys = server
        .users
        .backup_keys(call.caller.user, &call.version, scope)
        .await?;
    let key = keys
        .into_values()
        .flat_map(BTreeMap::into_values)
        .next()
        .ok_or_else(|| error::not_found("There is no key of this session in the backup"))?;
    Ok(get_backup_keys_for_session::v3::Response::new(
        Raw::from_json(key),
    ))
}

/// [`DELETE /room_keys/keys`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys).
pub(super) async fn delete_backup_keys(
    server: Server,
    call: Call<delete_backup_keys::v3::Request>,
) -> Result<delete_backup_keys::v3::Response> {
    let state = delete(&server, &call.caller, &call.version, BackupScope::All).await?;
    let count = count(&state);
    Ok(delete_backup_keys::v3::Response::new(state.etag, count))
}

/// [`DELETE /room_keys/keys/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid).
pub(super) async fn delete_backup_keys_for_room(
    server: Server,
    call: Call<delete_backup_keys_for_room::v3::Request>,
) -> Result<delete_backup_keys_for_room::v3::Response> {
    let scope = BackupScope::Room(&call.room_id);
    let state = delete(&server, &call.caller, &call.version, scope).await?;
    let count = count(&state);
    Ok(delete_backup_keys_for_room::v3::Response::new(
        state.etag, count,
    ))
}

/// [`DELETE /room_keys/keys/{roomId}/{sessionId}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid).
pub(super) async fn delete_backup_keys_for_session(
    server: Server,
    call: Call<delete_backup_keys_for_session::v3::Request>,
) -> Result<delete_backup_keys_for_session::v3::Response> {
    let scope = BackupScope::Session(&call.room_id, &call.session_id);
    let state = delete(&server, &call.caller, &call.version, scope).await?;
    let count = count(&state);
    Ok(delete_backup_keys_for_session::v3::Response::new(
        state.etag, count,
    ))
}

/// What a client says of a version. Ruma's type would refuse algorithms that it does not know.
#[derive(Deserialize)]
struct Given {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

impl Given {
    fn read(body: &Raw<BackupAlgorithm>) -> Result<Self> {
        let given: Self = serde_json::from_str(body.json().get()).map_err(|problem| {
            error::bad_json(format!(
                "A backup has an `algorithm` and `auth_data`: {problem}"
            ))
        })?;
        if given.auth_data.get().starts_with('{') {
            return Ok(given);
        }
        Err(error::bad_json("`auth_data` is an object"))
    }
}

/// A backed-up key. Its `session_data` is the business of its algorithm.
#[derive(Deserialize)]
struct GivenKey {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    session_data: Box<RawValue>,
}

fn read_key(key: &Raw<KeyBackupData>) -> Result<BackupKey> {
    let given: GivenKey = serde_json::from_str(key.json().get())
        .map_err(|problem| error::bad_json(format!("This is no key for a backup: {problem}")))?;
    if !given.session_data.get().starts_with('{') {
        return Err(error::bad_json("`session_data` is an object"));
    }
    Ok(BackupKey {
        first_message_index: given.first_message_index.into(),
        forwarded_count: given.forwarded_count.into(),
        is_verified: given.is_verified,
        json: key.json().to_owned(),
    })
}

fn read_sessions(
    sessions: &BTreeMap<String, Raw<KeyBackupData>>,
) -> Result<BTreeMap<String, BackupKey>> {
    sessions
        .iter()
        .map(|(session_id, key)| Ok((session_id.clone(), read_key(key)?)))
        .collect()
}

fn as_raw(sessions: BTreeMap<String, Box<RawValue>>) -> BTreeMap<String, Raw<KeyBackupData>> {
    sessions
        .into_iter()
        .map(|(session_id, key)| (session_id, Raw::from_json(key)))
        .collect()
}

async fn put(
    server: &Server,
    requester: &Requester,
    version: &str,
    keys: &BTreeMap<OwnedRoomId, BTreeMap<String, BackupKey>>,
) -> Result<BackupState> {
    server
        .users
        .put_backup_keys(requester.user, version, keys)
        .await
}

async fn delete(
    server: &Server,
    requester: &Requester,
    version: &str,
    scope: BackupScope<'_>,
) -> Result<BackupState> {
    server
        .users
        .delete_backup_keys(requester.user, version, scope)
        .await
}

fn algorithm(backup: &Backup) -> Result<Raw<BackupAlgorithm>> {
    #[derive(Serialize)]
    struct Algorithm<'a> {
        algorithm: &'a str,
        auth_data: &'a RawValue,
    }
    let algorithm = Algorithm {
        algorithm: &backup.algorithm,
        auth_data: &backup.auth_data,
    };
    to_raw_value(&algorithm)
        .map(Raw::from_json)
        .map_err(error::internal)
}

fn count(state: &BackupState) -> UInt {
    UInt::new_saturating(state.count)
}
