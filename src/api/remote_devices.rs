//! The devices of people of other servers, and keys of these: from what is kept of them, or by asking their
//! servers.

use std::{collections::BTreeMap, time::Duration};

use error::Result;
use federation::{Failure, Patience};
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use rooms::remote_device;
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedServerName, OwnedUserId, UserId,
    api::federation::{
        device::get_devices,
        keys::{claim_keys, get_keys},
    },
    serde::Raw,
};
use serde_json::{Value, json, value::RawValue};
use storage::schema::{RemoteDevice, RemoteDevicesRow};
use users::{ClaimedKeys, UserKeys, foreign_master_key, foreign_self_signing_key};

use crate::Server;

/// Servers that are asked at once, for one request.
const SERVERS_AT_ONCE: usize = 32;
/// So many users are asked about in one question.
const USERS_AT_ONCE: usize = 250;
/// The longest that somebody waits for other servers.
const LONGEST: Duration = Duration::from_secs(20);
/// The longest answer, in bytes, and one-time key.
const ANSWER_MAX: usize = 16 << 20;
const KEY_MAX: usize = 8 * 1024;
/// So many people's devices are asked for anew at once.
pub(crate) const RESYNCS_MAX: usize = 16;

/// The devices that are asked about, by user; all of a user's if none is named.
type Wanted = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;
/// The devices of which keys are wanted.
type Claims = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// What a server says of some of its people.
type Asked = Result<std::result::Result<BTreeMap<OwnedUserId, RemoteDevicesRow>, Failure>>;

/// What a server gives of what is claimed.
type Claimed = std::result::Result<claim_keys::v1::Response, Failure>;

/// Servers that did not answer, as clients are told.
pub(crate) type Failures = BTreeMap<String, Value>;

/// The keys of people of other servers, and which servers did not answer.
///
/// # Errors
///
/// Storage fails.
pub(crate) async fn fetch_keys(
    server: &Server,
    wanted: &Wanted,
    timeout: Duration,
) -> Result<(BTreeMap<OwnedUserId, UserKeys>, Failures)> {
    let ours = server.rooms.server_name();
    let users: Vec<_> = wanted
        .keys()
        .filter(|user| user.server_name() != ours)
        .cloned()
        .collect();
    let (mut found, mut failures) = (BTreeMap::new(), Failures::new());
    let mut by_server: BTreeMap<OwnedServerName, Vec<OwnedUserId>> = BTreeMap::new();
    for users in users.chunks(USERS_AT_ONCE) {
        let snapshot = server.rooms.snapshot().await?;
        let known = server.rooms.known_devices(&snapshot, users).await?;
        for (user, known) in users.iter().zip(known) {
            match known.trusted {
                Some(devices) => drop(found.insert(user.clone(), devices)),
                None => {
                    let name = user.server_name().to_owned();
                    by_server.entry(name).or_default().push(user.clone());
                }
            }
        }
    }
    let patience = patience(timeout);
    let mut questions: Vec<BoxFuture<'_, (OwnedServerName, Asked)>> = Vec::new();
    for (name, users) in by_server {
        for users in users.chunks(USERS_AT_ONCE) {
            let (name, users) = (name.clone(), users.to_vec());
            questions.push(Box::pin(async move {
                let answer = ask_keys(server, &name, &users, patience).await;
                (name, answer)
            }));
        }
    }
    let mut asked = stream::iter(questions).buffer_unordered(SERVERS_AT_ONCE);
    while let Some((name, answer)) = asked.next().await {
        match answer? {
            Ok(devices) => found.extend(devices),
            Err(failure) => drop(failures.insert(name.to_string(), told(&failure))),
        }
    }
    let keys = found.into_iter().map(|(user, devices)| {
        let only = wanted.get(&user).map_or(&[][..], Vec::as_slice);
        let keys = user_keys(devices, only);
        (user, keys)
    });
    Ok((keys.collect(), failures))
}

/// Asks a server for the keys of some of its people, and keeps what it says of those with whom a room is
/// shared.
async fn ask_keys(
    server: &Server,
    name: &OwnedServerName,
    users: &[OwnedUserId],
    patience: Patience,
) -> Asked {
    let rooms = &server.rooms;
    let snapshot = rooms.snapshot().await?;
    let met = rooms.known_devices(&snapshot, users).await?;
    let met = users.iter().zip(&met).filter(|(_, known)| known.shared);
    let met: Vec<_> = met.map(|(user, _)| user.clone()).collect();
    rooms.will_ask_devices(&met).await?;
    let snapshot = rooms.snapshot().await?;
    let known = rooms.known_devices(&snapshot, users).await?;
    let wanted = users.iter().map(|user| (user.clone(), Vec::new()));
    let question = get_keys::v1::Request::new(wanted.collect());
    let mut answer = match server.federation.ask(name, question, patience).await {
        Ok(answer) => answer,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut found = BTreeMap::new();
    for (user, known) in users.iter().zip(&known) {
        let devices = answer.device_keys.remove(user);
        let mut row = RemoteDevicesRow {
            user_id: user.to_string(),
            ..RemoteDevicesRow::default()
        };
        for (device, keys) in devices.into_iter().flatten() {
            let name = display_name(keys.json());
            let keys = Some(keys.json());
            if let Some(checked) = remote_device(user, &device, keys, name.as_deref()) {
                row.devices.insert(device.to_string(), checked);
            }
        }
        let master = answer.master_keys.remove(user);
        let self_signing = answer.self_signing_keys.remove(user);
        take_cross_signing(&mut row, user, master, self_signing);
        rooms.keep_devices(user, known, row.clone()).await?;
        found.insert(user.clone(), row);
    }
    Ok(Ok(found))
}

/// Asks for the devices of somebody anew, beside all that goes on: something of them was missed. If it cannot
/// be done now, who wants their keys next asks.
pub(crate) fn resync_soon(server: &Server, user: OwnedUserId) {
    let Ok(permit) = server.resyncs.clone().try_acquire_owned() else {
        return;
    };
    let (server, tasks) = (server.clone(), server.tasks.clone());
    tasks.spawn(async move {
        let _permit = permit;
        if let Err(error) = resync(&server, &user).await {
            tracing::warn!(%error, %user, "somebody's devices could not be kept");
        }
    });
}

async fn resync(server: &Server, user: &UserId) -> Result<()> {
    let (rooms, users) = (&server.rooms, [user.to_owned()]);
    let snapshot = rooms.snapshot().await?;
    let known = rooms.known_devices(&snapshot, &users).await?.pop();
    let Some(known) = known.filter(|known| known.shared) else {
        return Ok(());
    };
    let question = get_devices::v1::Request::new(user.to_owned());
    let asked = server
        .federation
        .ask(user.server_name(), question, patience(LONGEST));
    let answer = match asked.await {
        Ok(answer) if answer.user_id == user => answer,
        Ok(_) => return Ok(()),
        Err(failure) => {
            tracing::debug!(%failure, %user, "a server does not say what devices somebody has");
            return Ok(());
        }
    };
    let mut row = RemoteDevicesRow {
        user_id: user.to_string(),
        stream_id: Some(answer.stream_id.into()),
        ..RemoteDevicesRow::default()
    };
    for said in answer.devices {
        let (keys, name) = (Some(said.keys.json()), said.device_display_name);
        if let Some(device) = remote_device(user, &said.device_id, keys, name.as_deref()) {
            row.devices.insert(said.device_id.to_string(), device);
        }
    }
    take_cross_signing(&mut row, user, answer.master_key, answer.self_signing_key);
    rooms.keep_devices(user, &known, row).await
}

/// Claims keys of devices of people of other servers; and which servers did not answer.
pub(crate) async fn fetch_claims(
    server: &Server,
    wanted: &Claims,
    timeout: Duration,
) -> (BTreeMap<OwnedUserId, ClaimedKeys>, Failures) {
    let ours = server.rooms.server_name();
    let mut by_server: BTreeMap<OwnedServerName, Claims> = BTreeMap::new();
    for (user, devices) in wanted {
        if user.server_name() != ours {
            let of_server = by_server.entry(user.server_name().to_owned()).or_default();
            of_server.insert(user.clone(), devices.clone());
        }
    }
    let patience = patience(timeout);
    let mut questions: Vec<BoxFuture<'_, (OwnedServerName, Claims, Claimed)>> = Vec::new();
    for (name, claims) in by_server {
        questions.push(Box::pin(async move {
            let question = claim_keys::v1::Request::new(claims.clone());
            let answer = server.federation.ask(&name, question, patience).await;
            (name, claims, answer)
        }));
    }
    let mut asked = stream::iter(questions).buffer_unordered(SERVERS_AT_ONCE);
    let (mut found, mut failures) = (BTreeMap::new(), Failures::new());
    while let Some((name, claims, answer)) = asked.next().await {
        match answer {
            Ok(answer) => found.extend(claimed(&claims, answer.one_time_keys)),
            Err(failure) => drop(failures.insert(name.to_string(), told(&failure))),
        }
    }
    (found, failures)
}

/// Of what a server gives what it was asked for: one key of each device.
fn claimed(
    claims: &Claims,
    given: claim_keys::v1::OneTimeKeys,
) -> BTreeMap<OwnedUserId, ClaimedKeys> {
    let mut found: BTreeMap<_, ClaimedKeys> = BTreeMap::new();
    for (user, devices) in given {
        for (device, keys) in devices {
            let algorithm = claims.get(&user).and_then(|of_user| of_user.get(&device));
            let key = keys.into_iter().find(|(id, key)| {
                Some(&id.algorithm()) == algorithm && key.json().get().len() <= KEY_MAX
            });
            if let Some((id, key)) = key {
                let of_user = found.entry(user.clone()).or_default();
                of_user.insert(device, (id.to_string(), key.into_json()));
            }
        }
    }
    found
}

fn patience(timeout: Duration) -> Patience {
    Patience {
        time: Some(timeout.min(LONGEST)),
        bytes: ANSWER_MAX,
        despite_back_off: false,
    }
}

/// What clients are told of a server that did not answer.
fn told(failure: &Failure) -> Value {
    let errcode = match failure {
        Failure::Refused(refusal) if !refusal.errcode().is_empty() => refusal.errcode(),
        Failure::Forbidden(_) => "M_FORBIDDEN",
        _ => "M_UNREACHABLE",
    };
    json!({ "errcode": errcode, "error": failure.to_string() })
}

/// What a server says a device is called.
fn display_name(keys: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Keys {
        unsigned: Option<Unsigned>,
    }
    #[derive(serde::Deserialize)]
    struct Unsigned {
        device_display_name: Option<String>,
    }
    let keys: Keys = serde_json::from_str(keys.get()).ok()?;
    keys.unsigned?.device_display_name
}

fn take_cross_signing<T, U>(
    row: &mut RemoteDevicesRow,
    user: &UserId,
    master: Option<Raw<T>>,
    self_signing: Option<Raw<U>>,
) {
    row.master = master.and_then(|key| foreign_master_key(user, key.json()));
    if let (Some(master), Some(key)) = (&row.master, self_signing) {
        row.self_signing = foreign_self_signing_key(user, master, key.json());
    }
}

/// What is kept of somebody, as clients get it: of some devices, or of all.
fn user_keys(row: RemoteDevicesRow, only: &[OwnedDeviceId]) -> UserKeys {
    let raw = |json: String| RawValue::from_string(json).ok();
    let devices = row.devices.into_iter().filter_map(|(id, device)| {
        let id = OwnedDeviceId::from(id);
        let wanted = only.is_empty() || only.contains(&id);
        let keys = with_name(device).filter(|_| wanted)?;
        Some((id, keys))
    });
    UserKeys {
        devices: devices.collect(),
        master: row.master.and_then(raw),
        self_signing: row.self_signing.and_then(raw),
        user_signing: None,
    }
}

/// The keys of a device, with its name beside them; none if it has published none.
fn with_name(device: RemoteDevice) -> Option<Box<RawValue>> {
    let mut keys: serde_json::Map<String, Value> = serde_json::from_str(&device.keys?).ok()?;
    if let Some(name) = device.display_name {
        let unsigned = json!({ "device_display_name": name });
        keys.insert("unsigned".to_owned(), unsigned);
    }
    serde_json::value::to_raw_value(&keys).ok()
}
