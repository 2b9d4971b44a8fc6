"""Two people talk through matrix-nio, while the server is killed and started again.

Usage: talk_nio.py ADDRESS

Prints `kill` where the server is to be killed with signal 9 and started again, and reads a line when it is up.
Ends well if each message that was acknowledged reached both people once, in the same order for both: over
syncs that went on all the while, and by reading the room from its start.
"""

import asyncio
import os
import sys

from nio import AsyncClient, MessageDirection, RoomMessageText

ADDRESS = sys.argv[1]
EACH = 20  # messages of each person, in each of the three parts
PATIENCE = 60  # seconds
# More than is ever said between two syncs: a bot does not fill gaps.
FILTER = {"room": {"timeline": {"limit": 1000}}}


def good(answer):
    if "Error" in type(answer).__name__:
        raise SystemExit(f"not a success: {answer!r}")
    return answer


class Person:
    """Somebody with a client that syncs all the while, and what has arrived there."""

    def __init__(self, name):
        self.name = name
        self.arrived = []
        self.connect(AsyncClient(ADDRESS, name))

    def connect(self, client):
        self.client = client
        client.add_event_callback(lambda room, event: self.arrived.append((event.event_id, event.body)), RoomMessageText)

    def listen(self, since=None):
        self.listening = asyncio.create_task(self.client.sync_forever(timeout=30_000, sync_filter=FILTER, since=since))

    async def stop(self):
        self.listening.cancel()
        await asyncio.gather(self.listening, return_exceptions=True)
        await self.client.close()

    async def come_back(self):
        """Goes away and comes back as another program would: with the token, the device and the place in the sync."""
        old = self.client
        await self.stop()
        client = AsyncClient(ADDRESS, old.user)
        client.restore_login(old.user_id, old.device_id, old.access_token)
        self.connect(client)
        self.listen(since=old.next_batch)

    async def say(self, room, part):
        """Says one thing after the other; nio itself tries again, with the same transaction id, until it is answered."""
        said = []
        for n in range(EACH):
            body = f"{self.name} {part} {n}"
            content = {"msgtype": "m.text", "body": body}
            answer = good(await self.client.room_send(room, "m.room.message", content))
            said.append((answer.event_id, body))
        return said

    async def read(self, room):
        """The whole room, from its start."""
        events, start = [], ""
        while start is not None:
            page = good(await self.client.room_messages(room, start, direction=MessageDirection.front, limit=25))
            events += [(e.event_id, e.body) for e in page.chunk if isinstance(e, RoomMessageText)]
            start = page.end
        return events


async def both(alice, bob, room, part):
    one, two = await asyncio.gather(alice.say(room, part), bob.say(room, part))
    return one + two


async def kill():
    print("kill", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def talk():
    alice, bob = Person(f"alice-nio-{os.getpid()}"), Person(f"bob-nio-{os.getpid()}")
    for person in (alice, bob):
        good(await person.client.register(person.name, "correct horse", "first"))
        good(await person.client.logout())
        good(await person.client.login("correct horse", "second"))
    room = good(await alice.client.room_create(name="The relay", invite=[bob.client.user_id])).room_id
    good(await bob.client.sync(timeout=0))
    assert room in bob.client.invited_rooms, "the invitation did not arrive"
    good(await bob.client.join(room))
    alice.listen()
    bob.listen()

    said = await both(alice, bob, room, "before")
    # The kill falls into the middle of what is being said.
    while_killed, _ = await asyncio.gather(both(alice, bob, room, "while killed"), kill())
    said += while_killed
    await asyncio.gather(alice.come_back(), bob.come_back())
    said += await both(alice, bob, room, "after")

    for person in (alice, bob):
        for _ in range(PATIENCE * 10):
            if len(person.arrived) >= len(said):
                break
            await asyncio.sleep(0.1)
        assert sorted(person.arrived) == sorted(said), f"{person.name}: lost {set(said) - set(person.arrived)}, " \
            f"{len(person.arrived)} arrived, {len(said)} said"
        assert await person.read(room) == person.arrived, f"{person.name}: /messages has another order than /sync"
    assert alice.arrived == bob.arrived, "not the same order for both"
    await asyncio.gather(alice.stop(), bob.stop())
    print(f"{len(said)} messages, each once", flush=True)


asyncio.run(talk())
