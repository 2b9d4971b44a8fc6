// Two people with two devices each talk encrypted through matrix-js-sdk and its Rust crypto, while the server is
// killed and started again.
//
// Usage: node encrypt_js_sdk.mjs ADDRESS [ADDRESS]: the one who invites is at the first server, the other one at the
// second if there is one.
//
// Prints `kill` where the server is to be killed with signal 9 and started again, and reads a line when it is up.
// Ends well if all four devices have decrypted all that was said, and a device that logs in anew has too, with the
// keys from the backup.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

// The packages are in the folder that this is started in (see `setup`).
const require = createRequire(`${process.cwd()}/`);
const sdk = await import(require.resolve("matrix-js-sdk"));
const { logger } = await import(require.resolve("matrix-js-sdk/lib/logger.js"));
logger.setLevel(process.env.LOUD ? "debug" : "silent");

const [address, other = address] = process.argv.slice(2);
const patience = 60; // seconds
const password = "correct horse";

// What was not answered is sent again, with the same transaction id; a bad answer is one.
const again = (_event, _attempts, error) => (error.name === "ConnectionError" ? 50 : -1);

async function until(what, done, why = () => "") {
    console.log(what);
    for (let i = 0; i < patience * 20; i++) {
        const result = await done();
        if (result) return result;
        await sleep(50);
    }
    assert.fail(`waited in vain: ${what} ${why()}`);
}

// A person, and the key to what they keep secret on the server.
class Person {
    constructor(name, address) {
        this.name = name;
        this.address = address;
        this.secretKeys = new Map();
    }

    async register() {
        const fresh = sdk.createClient({ baseUrl: this.address });
        await fresh.register(this.name, password, null, { type: "m.login.dummy" }, undefined, undefined, true);
    }

    // A new device, syncing.
    async device() {
        const fresh = sdk.createClient({ baseUrl: this.address });
        const login = await fresh.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.name },
            password,
        });
        const { user_id: userId, device_id: deviceId, access_token: accessToken } = login;
        const client = sdk.createClient({
            baseUrl: this.address,
            userId,
            deviceId,
            accessToken,
            scheduler: new sdk.MatrixScheduler(again),
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => {
                    const id = Object.keys(keys).find((id) => this.secretKeys.has(id));
                    return id ? [id, this.secretKeys.get(id)] : null;
                },
                cacheSecretStorageKey: (id, _info, key) => this.secretKeys.set(id, key),
            },
        });
        await client.initRustCrypto({ useIndexedDB: false });
        const ready = new Promise((resolve) => {
            client.on(sdk.ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
        });
        await client.startClient({ initialSyncLimit: 100, pendingEventOrdering: "detached", threadSupport: true });
        await ready;
        return client;
    }

    // Cross-signing, secret storage and a key backup, made by the first device.
    async setUp(client) {
        const crypto = client.getCrypto();
        // With a proof where the server asks for one.
        const authUploadDeviceSigningKeys = (upload) =>
            upload(null).catch((error) =>
                upload({
                    type: "m.login.password",
                    identifier: { type: "m.id.user", user: this.name },
                    password,
                    session: error.data.session,
                }),
            );
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys });
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: () => crypto.createRecoveryKeyFromPassphrase(),
            setupNewKeyBackup: true,
        });
        assert.ok(await crypto.isCrossSigningReady(), "cross-signing is not ready");
        assert.ok(await crypto.isSecretStorageReady(), "secret storage is not ready");
        assert.ok(await until("a backup", () => crypto.getActiveSessionBackupVersion()));
    }

    // A further device takes the keys from secret storage, which makes it a verified one.
    async verify(client) {
        const crypto = client.getCrypto();
        await until("one's own keys", () => crypto.userHasCrossSigningKeys(undefined, true));
        await crypto.bootstrapCrossSigning({});
        const own = () => crypto.getDeviceVerificationStatus(client.getUserId(), client.getDeviceId());
        await until("the new device is verified", async () => (await own())?.crossSigningVerified);
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
    }
}

// What a device reads in an event, if it has it and could decrypt it.
async function textOf(client, room, id) {
    const event = client.getRoom(room).findEventById(id);
    if (!event || event.status !== null) return null;
    if (event.isEncrypted()) await client.decryptEventIfNeeded(event);
    return event.isDecryptionFailure() ? null : event.getContent().body;
}

// Waits until each device reads this in an event.
async function seen(devices, room, event, body) {
    for (const device of devices) {
        const who = `${device.getUserId()} on ${device.getDeviceId()}`;
        const reads = async () => (await textOf(device, room, event)) === body;
        await until(`${who} decrypts “${body}”`, reads, () => {
            const found = device.getRoom(room).findEventById(event);
            return `(${found ? `${found.status}, ${found.decryptionFailureReason}` : "not there"}, ${device.getSyncState()})`;
        });
    }
}

async function kill() {
    console.log("kill");
    await once(process.stdin, "data");
}

const alice = new Person(`alice-e2e-${process.pid}`, address);
const bob = new Person(`bob-e2e-${process.pid}`, other);
const devices = [];
for (const person of [alice, bob]) {
    await person.register();
    const first = await person.device();
    await person.setUp(first);
    const second = await person.device();
    await person.verify(second);
    devices.push(first, second);
}
const [alice1, alice2, bob1, bob2] = devices;

const encryption = {
    type: "m.room.encryption",
    state_key: "",
    content: { algorithm: "m.megolm.v1.aes-sha2" },
};
const { room_id: room } = await alice1.createRoom({ invite: [bob1.getUserId()], initial_state: [encryption] });
await until("the invite arrives", () => bob1.getRoom(room)?.getMyMembership() === "invite");
await bob1.joinRoom(room);
for (const device of devices) {
    const joined = () => device.getRoom(room)?.getJoinedMemberCount() === 2;
    await until("all have joined", () => joined() && device.getRoom(room).hasEncryptionStateEvent());
}

// Both ways, from each device.
let count = 0;
const say = async (client, content, thread = null) => {
    count += 1;
    const transaction = client.makeTxnId();
    try {
        return (await client.sendEvent(room, thread, "m.room.message", content, transaction)).event_id;
    } catch (error) {
        // The SDK is surprised if a sync brings an event of a thread before the answer to its sending.
        assert.match(error.message, /not a local echo/);
        const page = await client.createMessagesRequest(room, null, 50, "b");
        return page.chunk.find((event) => event.unsigned.transaction_id === transaction).event_id;
    }
};
const text = (body, more = {}) => ({ msgtype: "m.text", body, ...more });
const first = await say(alice1, text("salaam"));
await seen(devices, room, first, "salaam");
for (const [n, device] of devices.entries()) {
    const event = await say(device, text(`from device ${n}`));
    await seen(devices, room, event, `from device ${n}`);
}

// A reply, a thread, an edit, a reaction, a redaction.
const reply = await say(bob1, text("a reply", { "m.relates_to": { "m.in_reply_to": { event_id: first } } }));
await seen(devices, room, reply, "a reply");
console.log("says something in a thread");
const threaded = await say(bob2, text("in a thread"), first);
// The SDK's own copy may be lost with its sender: it empties a new thread while the event is on its way.
await seen([alice1, alice2, bob1], room, threaded, "in a thread");
const edit = { "m.new_content": text("salaam!"), "m.relates_to": { rel_type: "m.replace", event_id: first } };
await say(alice2, text("* salaam!", edit));

await seen(devices, room, first, "salaam!");
const annotation = { "m.relates_to": { rel_type: "m.annotation", event_id: reply, key: "👍" } };
const { event_id: reaction } = await alice1.sendEvent(room, "m.reaction", annotation);
for (const device of devices) {
    const reacted = () => device.getRoom(room).relations.getChildEventsForEvent(reply, "m.annotation", "m.reaction");
    await until("the reaction arrives", () => reacted()?.getRelations().some((e) => e.getId() === reaction));
}
const regretted = await say(bob1, text("regretted"));
await seen(devices, room, regretted, "regretted");
await bob1.redactEvent(room, regretted);
for (const device of devices) {
    await until("the redaction arrives", () => device.getRoom(room).findEventById(regretted)?.isRedacted());
}

// An attachment: encrypted by its sender, uploaded, and decrypted by the others.
const secret = new TextEncoder().encode("a picture that only these four see");
const key = await crypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
const counter = crypto.getRandomValues(new Uint8Array(16));
const algorithm = { name: "AES-CTR", counter, length: 64 };
const sealed = await crypto.subtle.encrypt(algorithm, key, secret);
const { content_uri: url } = await alice1.uploadContent(new Blob([sealed]), { type: "application/octet-stream" });
const jwk = await crypto.subtle.exportKey("jwk", key);
const file = { url, key: jwk, iv: Buffer.from(counter).toString("base64"), v: "v2", hashes: {} };
const attached = await say(alice1, { msgtype: "m.file", body: "secret.txt", file });
await seen(devices, room, attached, "secret.txt");
for (const device of [alice2, bob1, bob2]) {
    const { file: got } = device.getRoom(room).findEventById(attached).getContent();
    const link = device.mxcUrlToHttp(got.url, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(link, { headers: { Authorization: `Bearer ${device.getAccessToken()}` } });
    const opened = await crypto.subtle.importKey("jwk", got.key, "AES-CTR", false, ["decrypt"]);
    const iv = { ...algorithm, counter: Buffer.from(got.iv, "base64") };
    const plain = await crypto.subtle.decrypt(iv, opened, await answer.arrayBuffer());
    assert.deepEqual(new Uint8Array(plain), secret);
}

// Receipts and typing.
await bob1.sendReadReceipt(bob1.getRoom(room).findEventById(reply));
const hasRead = () => alice1.getRoom(room).hasUserReadEvent(bob1.getUserId(), reply);
await until("the receipt arrives", hasRead);
await bob1.sendTyping(room, true, 30_000);
await until("typing arrives", () => alice1.getRoom(room).getMember(bob1.getUserId()).typing);

// The kill falls into the middle of what is being said.
const during = async (client, name) => {
    const said = [];
    for (let n = 0; n < 10; n++) said.push([await say(client, text(`${name} ${n}`)), `${name} ${n}`]);
    return said;
};
const [a, b] = await Promise.all([during(alice1, "alice"), during(bob2, "bob"), kill()]);
const end = await say(bob1, text("the end"));
await seen(devices, room, end, "the end");
// A client that was away gets a gap and fills it, as when its user scrolls back.
for (const device of devices) await device.scrollback(device.getRoom(room), 100);
for (const [event, body] of [...a, ...b]) await seen(devices, room, event, body);

// All keys are backed up, by each who has them; a device goes, and one that comes anew reads everything.
for (const device of [alice1, bob1]) {
    const info = async () => device.http.authedRequest("GET", "/room_keys/version", undefined, undefined, {
        prefix: "/_matrix/client/v3",
    });
    await until("keys are backed up", async () => (await info()).count >= 4);
}
await alice2.logout(true);
alice2.stopClient();
const gone = alice2.getDeviceId();
await until("the others hear of it", async () => {
    const known = await bob1.getCrypto().getUserDeviceInfo([alice1.getUserId()]);
    return !known.get(alice1.getUserId()).has(gone);
});
const alice3 = await alice.device();
await alice.verify(alice3);
const { imported } = await alice3.getCrypto().restoreKeyBackup();
assert.ok(imported >= 4, `only ${imported} keys came from the backup`);
await alice3.scrollback(alice3.getRoom(room), 200);
const left = [alice1, bob1, bob2, alice3];
await seen([alice3], room, first, "salaam!");
for (const [event, body] of [...a, ...b]) await seen([alice3], room, event, body);
const last = await say(alice3, text("from the new device"));
await seen(left, room, last, "from the new device");
console.log(`${count} encrypted messages, each once decrypted by all`);
process.exit(0);
