// Two people talk through matrix-js-sdk, while the server is killed and started again.
//
// Usage: node talk_js_sdk.mjs ADDRESS
//
// Prints `kill` where the server is to be killed with signal 9 and started again, and reads a line when it is up.
// Ends well if each message that was acknowledged stands once in both people's timelines, which synced all the
// while, in the same order as in the room read from its start.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

// The packages are in the folder that this is started in (see `setup`).
const require = createRequire(`${process.cwd()}/`);
const sdk = await import(require.resolve("matrix-js-sdk"));
const { logger } = await import(require.resolve("matrix-js-sdk/lib/logger.js"));
logger.setLevel("silent");

const address = process.argv[2];
const each = 20; // messages of each person, in each of the three parts
const patience = 60; // seconds

// What was not answered is sent again, with the same transaction id; a bad answer is one.
const again = (_event, _attempts, error) => (error.httpStatus ? -1 : 50);

async function person(name) {
    const password = "correct horse";
    const fresh = sdk.createClient({ baseUrl: address });
    await fresh.register(name, password, null, { type: "m.login.dummy" });
    const login = await fresh.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: name },
        password,
    });
    const { user_id: userId, device_id: deviceId, access_token: accessToken } = login;
    const scheduler = new sdk.MatrixScheduler(again);
    return sdk.createClient({ baseUrl: address, userId, deviceId, accessToken, scheduler });
}

// Begins to sync, and waits for the first answer.
async function listen(client) {
    const ready = new Promise((resolve) => {
        client.on(sdk.ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
    });
    await client.startClient({ initialSyncLimit: 1000, pendingEventOrdering: "detached" });
    await ready;
}

// Says one thing after the other.
async function say(client, room, part) {
    const said = [];
    for (let n = 0; n < each; n++) {
        const body = `${client.getUserId()} ${part} ${n}`;
        const answer = await client.sendTextMessage(room, body);
        said.push(`${answer.event_id} ${body}`);
    }
    return said;
}

const both = async (alice, bob, room, part) =>
    (await Promise.all([say(alice, room, part), say(bob, room, part)])).flat();

async function kill() {
    console.log("kill");
    await once(process.stdin, "data");
}

// What a client has of the room, from its live timeline.
function arrived(client, room) {
    const events = client.getRoom(room).getLiveTimeline().getEvents();
    const messages = events.filter((e) => e.getType() === "m.room.message" && e.status === null);
    return messages.map((e) => `${e.getId()} ${e.getContent().body}`);
}

// The whole room, from its start.
async function read(client, room) {
    const said = [];
    let from = null;
    do {
        const page = await client.createMessagesRequest(room, from, 25, "f");
        const messages = page.chunk.filter((e) => e.type === "m.room.message");
        said.push(...messages.map((e) => `${e.event_id} ${e.content.body}`));
        from = page.end;
    } while (from);
    return said;
}

const [alice, bob] = [await person(`alice-js-${process.pid}`), await person(`bob-js-${process.pid}`)];
await Promise.all([listen(alice), listen(bob)]);
const invited = new Promise((resolve) => {
    bob.on(sdk.RoomEvent.MyMembership, (room, membership) => membership === "invite" && resolve(room.roomId));
});
const { room_id: room } = await alice.createRoom({ name: "The relay", invite: [bob.getUserId()] });
assert.equal(await invited, room);
await bob.joinRoom(room);
while (![alice, bob].every((c) => c.getRoom(room)?.getJoinedMemberCount() === 2)) await sleep(20);

const said = await both(alice, bob, room, "before");
// The kill falls into the middle of what is being said.
const [whileKilled] = await Promise.all([both(alice, bob, room, "while killed"), kill()]);
said.push(...whileKilled, ...(await both(alice, bob, room, "after")));

for (const client of [alice, bob]) {
    const last = (await read(alice, room)).at(-1);
    for (let i = 0; i < patience * 10 && arrived(client, room).at(-1) !== last; i++) await sleep(100);
    // A client that was away for long gets a gap and fills it, as when its user scrolls back.
    if (arrived(client, room).length < said.length) await client.scrollback(client.getRoom(room), 1000);
    const has = arrived(client, room);
    assert.deepEqual([...has].sort(), [...said].sort(), `${client.getUserId()}: lost or doubled`);
    assert.deepEqual(await read(client, room), has, `${client.getUserId()}: /messages has another order`);
}
assert.deepEqual(arrived(alice, room), arrived(bob, room), "not the same order for both");
console.log(`${said.length} messages, each once`);
process.exit(0);
