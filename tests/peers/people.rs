//! People of both: who comes in by knocking or because of another room, what they send each other, and the devices
//! by which they do.

use harness::{
    PeerKind, User,
    clients::{node, talk},
    encode,
};
use serde_json::{Value, json};

use crate::{Two, join, same_state, until};

/// Waits until a room is on one of somebody's lists.
async fn listed(user: &User, list: &str, room: &str) {
    until(list, async || {
        let sync = user.sync(None).await;
        sync.body["rooms"][list][room].is_object().then_some(())
    })
    .await;
}

/// Waits until somebody sees what somebody is in a room.
async fn is_seen_as(seer: &User, room: &str, user: &User, membership: &str) {
    until(membership, async || {
        let member = seer.state(room, "m.room.member", &user.id).await;
        (member.body["membership"] == membership).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knocks_is_let_in_or_not() {
    let two = Two::start().await;
    for version in two.versions(&["7", "11", "12"]) {
        for (host, guest) in [(&two.alice, &two.bob), (&two.bob, &two.alice)] {
            eprintln!("version {version}, of {}", host.id);
            let rule = json!({ "join_rule": "knock" });
            let rule = json!({ "type": "m.room.join_rules", "state_key": "", "content": rule });
            let room = host
                .create_room(json!({
                    "preset": "private_chat", "name": "door", "room_version": version,
                    "initial_state": [rule],
                }))
                .await;
            let via = two.name_of(host);
            let path = format!("/knock/{}?via={via}&server_name={via}", encode(&room));
            guest.post(&path, json!({ "reason": "please" })).await.ok();
            listed(guest, "knock", &room).await;
            is_seen_as(host, &room, guest, "knock").await;
            guest.to_room(&room, "leave", json!({})).await.ok();
            // Synapse tells nobody else that a knock was taken back.
            if guest.id == two.alice.id {
                is_seen_as(host, &room, guest, "leave").await;
            }
            guest.post(&path, json!({})).await.ok();
            is_seen_as(host, &room, guest, "knock").await;
            let invite = json!({ "user_id": guest.id });
            host.to_room(&room, "invite", invite).await.ok();
            listed(guest, "invite", &room).await;
            join(guest, &room, &via).await;
            is_seen_as(host, &room, guest, "join").await;
            same_state(&two, &room).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_one_room_come_into_another() {
    let two = Two::start().await;
    for version in two.versions(&["8", "10", "12"]) {
        for (host, guest) in [(&two.alice, &two.bob), (&two.bob, &two.alice)] {
            eprintln!("version {version}, of {}", host.id);
            let club = host
                .create_room(json!({ "preset": "public_chat", "room_version": version }))
                .await;
            let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
            let rule = json!({ "join_rule": "restricted", "allow": allow });
            let rule = json!({ "type": "m.room.join_rules", "state_key": "", "content": rule });
            let room = host
                .create_room(json!({
                    "preset": "private_chat", "room_version": version, "initial_state": [rule],
                }))
                .await;
            let via = two.name_of(host);
            let path = format!("/join/{}?via={via}&server_name={via}", encode(&room));
            guest
                .post(&path, json!({}))
                .await
                .refused(403, "M_FORBIDDEN");
            join(guest, &club, &via).await;
            join(guest, &room, &via).await;
            is_seen_as(host, &room, guest, "join").await;
            same_state(&two, &room).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_typing_receipts_and_profiles_arrive() {
    let two = Two::start().await;
    let room = two
        .alice
        .create_room(
            json!({ "preset": "private_chat", "room_version": "10", "invite": [two.bob.id] }),
        )
        .await;
    listed(&two.bob, "invite", &room).await;
    join(&two.bob, &room, &two.chapar.name()).await;
    let http = reqwest::Client::new();
    for (one, other) in [(&two.alice, &two.bob), (&two.bob, &two.alice)] {
        let bytes = format!("a file of {}", one.id).into_bytes();
        let (here, there) = (two.base_of(one), two.base_of(other));
        let name = encode("نامه.txt");
        let url = format!("{here}/_matrix/media/v3/upload?filename={name}");
        let sent = http.post(url).bearer_auth(&one.token).body(bytes.clone());
        let sent: Value = sent.send().await.unwrap().json().await.unwrap();
        let file = sent["content_uri"].as_str().unwrap();
        let file = file.strip_prefix("mxc://").unwrap();
        let url = format!("{there}/_matrix/client/v1/media/download/{file}");
        let got = http.get(url).bearer_auth(&other.token).send().await;
        let got = got.unwrap();
        let shown = got.headers()["content-disposition"].to_str().unwrap();
        // Dendrite keeps the names of its own files only.
        let named = two.peer.kind == PeerKind::Synapse || shown.contains("name");
        assert!(!named || shown.contains(&name), "{shown}");
        assert_eq!(got.bytes().await.unwrap(), bytes);

        let name = json!({ "displayname": format!("I, {}", one.name()) });
        one.put(&format!("/profile/{}/displayname", one.id), name.clone())
            .await
            .ok();
        until("the new name in the room", async || {
            let member = other.state(&room, "m.room.member", &one.id).await.body;
            (member["displayname"] == name["displayname"]).then_some(())
        })
        .await;

        let said = one.say(&room, "read this").await;
        until("what is to be read", async || {
            (other.event(&room, &said).await.status == 200).then_some(())
        })
        .await;
        let mut since = one.sync(None).await.next_batch();
        let receipt = format!("receipt/m.read/{}", encode(&said));
        other.to_room(&room, &receipt, json!({})).await.ok();
        let typing = format!("/rooms/{}/typing/{}", encode(&room), other.id);
        let typing = other.put(&typing, json!({ "typing": true, "timeout": 30_000 }));
        typing.await.ok();
        let (mut read, mut types) = (false, false);
        until("a receipt and typing", async || {
            // Synapse answers the same for minutes to who asks from the same place again.
            let sync = one.sync(Some(&since)).await;
            since = sync.next_batch();
            for event in sync.ephemeral(&room) {
                let content = &event["content"];
                read |= content[&said]["m.read"][&other.id].is_object();
                types |= content["user_ids"] == json!([other.id]);
            }
            (read && types).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_devices_of_both_talk_encrypted_through_matrix_js_sdk() {
    let mut two = Two::start().await;
    let mut client = node("encrypt_js_sdk.mjs");
    client.args([two.chapar.base(), two.peer.server.base()]);
    talk(client, &mut two.chapar).await;
}
