#!/usr/bin/env python3
"""Records random rooms and how Synapse resolves their states.

    python3 -m venv VENV && VENV/bin/pip install matrix-synapse==1.163.2
    VENV/bin/python src/pdu/tests/record_graphs.py src/pdu/tests/graphs

One file an algorithm: `v1.jsonl`, `v2.jsonl`, `v2.1.jsonl`, a room a line; `resolution/graphs.rs` reads them.
`invites.json` holds the signatures of the invitations to e-mail addresses, which repeat.
The rooms are made here, from a seed; which events are allowed, and what a fork resolves to, is asked of
Synapse's own `event_auth`, `state.v1` and `state.v2`. The same seed and Synapse give the same bytes.

A line is `[room version, number of the room, events, cases]`.

An event is `[kind, sender, what, prev events, auth events, time, rank, rejected, depth, answer]`, zeros
at the end left out. Events are named by their index, prev events by how far they lie back. Users are
numbers. `rank` is the event's place when the event ids are sorted (room versions whose ids are hashes; the
others' ids follow from room and index: `event_id`). `depth` is 0 where it follows from the prev events.
`answer` comes with several prev events: the state they resolve to, see `answer` below.

A case is `[events, events taken for rejected, answer]`: the states after these events, resolved.
"""

import itertools
import json
import pathlib
import random
import sys

from signedjson.key import decode_signing_key_base64, encode_verify_key_base64, get_verify_key
from signedjson.sign import sign_json
from synapse import event_auth
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.events import make_event_from_dict
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference

VERSIONS = {
    "v1": ["1"],
    "v2": ["2", "3", "5", "6", "7", "8", "9", "10", "11"],
    "v2.1": ["12"],
}
ROOMS = 1080
USERS = 7
TOKENS = ["x", "y"]
MEMBERSHIPS = {"j": "join", "v": "invite", "l": "leave", "b": "ban", "k": "knock"}
LEVELS = ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"]
DEFAULTS = [0, 0, 50, 50, 50, 50, 0]
SIGNING_KEY = decode_signing_key_base64("ed25519", "1", "Y2hhcGFyIGtoYW5laCByZWxheSBwb3N0cyBvZiB5b3I")
VERIFY_KEY = encode_verify_key_base64(get_verify_key(SIGNING_KEY))


def user(number):
    return f"@u{number}:s{number % 3}"


def event_id(room, index):
    """The id of an event in room versions where the sender chooses it."""
    return f"${(room * 1000003 + index * 1000033) % 0xFFFFFB:06x}:s{index % 3}"


def run(coroutine):
    """Synapse's functions are async, but nothing here ever waits."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as stop:
        return stop.value


class Clock:
    async def sleep(self, _duration):
        pass


class Store:
    """What Synapse reads events from."""

    def __init__(self, events):
        self.events = events

    async def get_events(self, ids, redact_behaviour=None, get_prev_content=False, allow_rejected=False):
        found = {id: self.events[id] for id in ids}
        return {id: e for id, e in found.items() if allow_rejected or e.rejected_reason is None}

    async def get_auth_chain_difference(self, _room, _sets, conflicted, _additional):
        # All events are handed over in memory: Synapse works the difference out by itself.
        return StateDifference(set(), None if conflicted is None else set())


class Room:
    def __init__(self, version, number, rng):
        self.version = version
        self.rules = KNOWN_ROOM_VERSIONS[version]
        self.number = number
        self.rng = rng
        self.events = []  # Synapse's
        self.index = {}  # event id -> index
        self.rows = []  # what is written down
        self.after = []  # the state after each event: key -> event id
        self.tips = []
        self.depths = []
        self.creators = []

    # What the rooms are made of.

    def content(self, kind, what):
        """Type, state key and content of an event: the meaning of `kind` and `what`."""
        if kind == "c":
            content = {"room_version": self.version}
            if int(self.version) < 11:
                content["creator"] = user(0)
            if what:
                content["additional_creators"] = [user(number) for number in what]
            return "m.room.create", "", content
        if kind in MEMBERSHIPS:
            target, via, token = what if isinstance(what, list) else [what, None, None]
            content = {"membership": MEMBERSHIPS[kind]}
            if via is not None:
                content["join_authorised_via_users_server"] = user(via)
            if token is not None:
                signed = {"mxid": user(target), "token": token}
                content["third_party_invite"] = {
                    "display_name": "x",
                    "signed": sign_json(signed, "s0", SIGNING_KEY),
                }
            return "m.room.member", user(target), content
        if kind == "p":
            levels, users, events = what
            content = dict(zip(LEVELS, levels))
            content["users"] = {user(number): level for number, level in users}
            content["events"] = dict(events)
            return "m.room.power_levels", "", content
        if kind == "r":
            rule, state_key = what if isinstance(what, list) else [what, ""]
            return "m.room.join_rules", state_key, {"join_rule": rule}
        if kind == "t":
            return "m.room.third_party_invite", what, {"display_name": "x", "public_key": VERIFY_KEY}
        type, state_key = what if isinstance(what, list) else [what, ""]
        return type, state_key, {}

    def make(self, kind, sender, what, prevs, auths, time, depth):
        type, state_key, content = self.content(kind, what)
        ids = lambda indexes: [
            self.events[i].event_id if self.rules.event_format > 1 else [self.events[i].event_id, {}]
            for i in indexes
        ]
        event = {
            "type": type,
            "state_key": state_key,
            "sender": user(sender),
            "content": content,
            "depth": depth,
            "origin_server_ts": time,
            "prev_events": ids(prevs),
            "auth_events": ids(auths),
            "hashes": {"sha256": "x"},
            "signatures": {},
        }
        if int(self.version) < 12:
            event["room_id"] = "!r:s0"
        elif self.events:
            event["room_id"] = self.events[0].room_id
        if self.rules.event_format == 1:
            event["event_id"] = event_id(self.number, len(self.events))
        return event

    def build(self, event, rejected=None):
        return make_event_from_dict(event, self.rules, rejected_reason=rejected)

    # What Synapse says.

    def allowed(self, event, state):
        try:
            event_auth.check_state_dependent_auth_rules(event, [self.by_id(id) for id in state.values()])
            return True
        except SynapseError:
            return False

    def accepted(self, event, state):
        """The checks on receipt: the auth events alone, in their state, in the state before."""
        store = Store({e.event_id: e for e in self.events})
        try:
            run(event_auth.check_state_independent_auth_rules(store, event))
        except SynapseError:
            return False
        cited = {i: i for i in event.auth_event_ids()}
        return self.allowed(event, cited) and self.allowed(event, state)

    def by_id(self, id):
        return self.events[self.index[id]]

    def resolve(self, states, rejected=()):
        events = {e.event_id: e for e in self.events}
        for index in rejected:
            e = self.events[index]
            events[e.event_id] = self.build(e.get_dict(), "taken for rejected")
        room = self.events[0].room_id
        store = Store(events)
        if self.version == "1":
            resolved = v1.resolve_events_with_store(room, self.rules, states, None, store.get_events)
            return dict(run(resolved))
        resolved = v2.resolve_events_with_store(Clock(), room, self.rules, states, events, store)
        return dict(run(resolved))

    def full_conflicted_set(self, states):
        unconflicted, conflicted = v2._seperate(states)
        conflicted = set(itertools.chain.from_iterable(conflicted.values()))
        if self.version == "1":
            return conflicted
        events = {e.event_id: e for e in self.events}
        for_subgraph = conflicted if self.version == "12" else None
        room = self.events[0].room_id
        return conflicted | run(
            v2._get_auth_chain_difference(room, states, events, Store(events), for_subgraph)
        )

    def answer(self, states, resolved):
        """The resolved state without what all states hold anyway."""
        same = set(states[0].items()).intersection(*(state.items() for state in states[1:]))
        assert same <= set(resolved.items())
        return sorted(self.index[id] for key, id in resolved.items() if (key, id) not in same)

    # How a room grows.

    def select_auths(self, kind, sender, what, state):
        type, state_key, content = self.content(kind, what)
        probe = self.build(self.make(kind, sender, what, [], [], 0, 1))
        keys = event_auth.auth_types_for_event(self.rules, probe)
        if self.version == "12":
            keys.discard(("m.room.create", ""))
        return sorted(self.index[state[key]] for key in keys if key in state)

    def add(self, kind, sender, what, prevs, keep_rejected=True, stale=None):
        """Adds an event, unless it is there or is rejected and not to be kept. Whether it was accepted."""
        rng = self.rng
        states = [self.after[i] for i in prevs]
        answer = None
        state = states[0] if states else {}
        if len(prevs) > 1:
            state = self.resolve(states)
            answer = self.answer(states, state)
        auths = self.select_auths(kind, sender, what, state if stale is None else stale)
        natural = max((self.depths[i] for i in prevs), default=0) + 1
        depth = rng.randint(1, 40) if len(self.events) > 3 and rng.random() < 0.05 else natural
        time = len(self.events) // 3 + rng.randint(0, 6)
        event = self.make(kind, sender, what, prevs, auths, time, depth)
        accepted = self.accepted(self.build(event), state)
        if self.build(event).event_id in self.index or not (accepted or keep_rejected):
            return False
        event = self.build(event, None if accepted else "against the rules")
        index = len(self.events)
        self.index[event.event_id] = index
        self.events.append(event)
        self.depths.append(depth)
        self.after.append({**state, (event.type, event.state_key): event.event_id} if accepted else state)
        prev_row = [index - i for i in prevs]
        row = [kind, sender, what, prev_row[0] if len(prevs) == 1 else prev_row, auths, time, 0]
        row += [int(not accepted), 0 if depth == natural else depth]
        self.rows.append(row + ([answer] if answer is not None else []))
        self.tips = [i for i in self.tips if i not in prevs] + [index]
        return accepted

    def member(self, state, number):
        id = state.get(("m.room.member", user(number)))
        return self.by_id(id).content["membership"] if id else None

    def levels(self, state):
        """The power levels in a state, as they are written down: levels, users, events."""
        id = state.get(("m.room.power_levels", ""))
        if not id:
            users = [] if self.version == "12" else [[0, 100]]
            return [list(DEFAULTS), users, []]
        content = self.by_id(id).content
        users = [[n, content["users"][user(n)]] for n in range(USERS) if user(n) in content["users"]]
        return [[content[name] for name in LEVELS], users, [list(e) for e in content["events"].items()]]

    def level(self, levels, number):
        if number in self.creators and self.version == "12":
            return 1000
        users = {n: int(level) for n, level in levels[1]}
        return users.get(number, int(levels[0][0]))

    def fight(self, levels, sender):
        """New power levels: a promotion, a demotion, or another threshold."""
        rng = self.rng
        own = self.level(levels, sender)
        fields, users, events = [list(levels[0]), [list(u) for u in levels[1]], list(levels[2])]
        dice = rng.random()
        if dice < 0.7:
            choices = [n for n in range(USERS) if self.version != "12" or n not in self.creators]
            target = rng.choice(choices)
            level = rng.choice([0, 0, 10, 40, 50, 50, 90, 100, min(own, 100)])
            users = [u for u in users if u[0] != target]
            if level or rng.random() < 0.5:
                as_text = int(self.version) < 10 and rng.random() < 0.1
                users.append([target, str(level) if as_text else level])
        elif dice < 0.9:
            fields[rng.randrange(7)] = rng.choice([0, 0, 10, 50, 50, 90])
        else:
            name = rng.choice(["m.room.topic", "m.room.join_rules", "m.room.power_levels"])
            events = [e for e in events if e[0] != name] + [[name, rng.choice([0, 40, 50, 90, 100])]]
        return [fields, sorted(users), sorted(events)]

    def action(self, state):
        """Something that somebody might do: kind, sender, what."""
        rng = self.rng
        levels = self.levels(state)
        joined = [n for n in range(USERS) if self.member(state, n) == "join"]
        strong = [n for n in joined if self.level(levels, n) >= 40]
        anyone = rng.randrange(USERS)
        member = rng.choice(joined or [anyone])
        powerful = rng.choice(strong or [member])
        kind = rng.choices("jvlbkKuprtsTa", [22, 8, 7, 9, 4, 8, 4, 24, 9, 2, 8, 3, 2])[0]
        rule_id = state.get(("m.room.join_rules", ""))
        rule = self.by_id(rule_id).content["join_rule"] if rule_id else "invite"
        if kind == "j":
            via = powerful if "restricted" in rule and rng.random() < 0.8 else None
            return "j", anyone, anyone if via is None else [anyone, via, None]
        if kind == "v":
            return "v", member, anyone
        if kind == "l":
            return "l", member, member
        if kind == "k" and int(self.version) >= 7:
            return "k", anyone, anyone
        if kind in "bK":
            return "b" if kind == "b" else "l", powerful, anyone
        if kind == "u":
            banned = [n for n in range(USERS) if self.member(state, n) == "ban"]
            return "l", powerful, rng.choice(banned or [anyone])
        if kind == "p":
            return "p", powerful, self.fight(levels, powerful)
        if kind == "r":
            rules = ["public", "public", "invite", "invite"]
            rules += ["knock"] if int(self.version) >= 7 else []
            rules += ["restricted", "restricted"] if int(self.version) >= 8 else []
            rules += ["knock_restricted"] if int(self.version) >= 10 else []
            rule = rng.choice(rules)
            return "r", powerful, rule if rng.random() < 0.95 else [rule, "x"]
        if kind == "t":
            return "t", powerful, rng.choice(TOKENS)
        if kind == "T":
            # An invitation that an earlier one to an e-mail address allows.
            pending = [key for key in state if key[0] == "m.room.third_party_invite"]
            if pending:
                key = rng.choice(sorted(pending))
                sender = int(self.by_id(state[key]).sender[2:].split(":")[0])
                return "v", sender, [anyone, None, key[1]]
            return "t", member, rng.choice(TOKENS)
        if kind == "a" and int(self.version) < 6:
            return "s", member, ["m.room.aliases", f"s{rng.choice([member % 3, rng.randrange(3)])}"]
        topics = ["m.room.topic", "m.room.name", ["x", user(member)], ["x", "y"], "m.room.server_acl"]
        return "s", rng.choice([member, powerful]), rng.choice(topics)

    def begin(self):
        rng = self.rng
        more = sorted(rng.sample(range(1, USERS), rng.choice([0, 0, 1, 2]))) if self.version == "12" else 0
        self.creators = [0] + (more or [])
        self.add("c", 0, more or 0, [])
        self.add("j", 0, 0, [0])
        if rng.random() < 0.92:
            admins = [n for n in (1, 2, 3) if n not in self.creators or self.version != "12"]
            users = [[n, rng.choice([100, 90, 50, 50])] for n in admins if rng.random() < 0.7]
            users = users if self.version == "12" else [[0, 100]] + users
            self.add("p", 0, [list(DEFAULTS), users, []], self.tips)
        if rng.random() < 0.95:
            self.add("r", 0, rng.choice(["public", "public", "public", "invite"]), self.tips)
        for number in (1, 2, 3, 4):
            self.add("j", number, number, list(self.tips), keep_rejected=False)

    def choose_prevs(self):
        rng = self.rng
        dice = rng.random()
        if len(self.tips) > 3 or (dice < 0.25 and len(self.tips) > 1):
            return rng.sample(self.tips, min(len(self.tips), rng.choice([2, 2, 3])))
        if dice < 0.47 and len(self.events) > 6:
            return [rng.randrange(max(2, len(self.events) - 9), len(self.events))]
        return [rng.choice(self.tips)]

    def grow(self, length):
        rng = self.rng
        tries = 0
        while len(self.events) < length and tries < 400:
            tries += 1
            prevs = self.choose_prevs()
            states = [self.after[i] for i in prevs]
            state = self.resolve(states) if len(prevs) > 1 else states[0]
            # A server that is behind, or lies, cites another state than that before its event.
            stale = rng.choice(self.after[1:]) if rng.random() < 0.12 else None
            kind, sender, what = self.action(state)
            self.add(kind, sender, what, prevs, keep_rejected=rng.random() < 0.1, stale=stale)

    def cases(self):
        """Resolutions that no event of the room asks for: its ends, and states picked at random."""
        rng = self.rng
        picks = [self.tips] if len(self.tips) > 1 else []
        for count in (2, 2, 3, 4):
            picks.append(sorted(rng.sample(range(3, len(self.events)), count)))
        cases = []
        for pick in picks:
            states = [self.after[i] for i in pick]
            cases.append([pick, [], self.answer(states, self.resolve(states))])
        # Events may turn out to be rejected when others lean on them already. Those in conflict are left
        # as they are: Synapse never lets them win, which it says is against the spec.
        states = [self.after[i] for i in picks[-1]]
        full = self.full_conflicted_set(states)
        cited = {id for inside in full for id in self.by_id(inside).auth_event_ids()}
        outside = sorted(self.index[id] for id in cited - full if self.index[id] > 0)
        if outside:
            tainted = sorted(rng.sample(outside, min(2, len(outside))))
            resolved = self.resolve(states, tainted)
            cases.append([picks[-1], tainted, self.answer(states, resolved)])
        return cases

    def record(self):
        if self.rules.event_format > 1:
            for rank, id in enumerate(sorted(self.index)):
                self.rows[self.index[id]][6] = rank
        for row in self.rows:
            while row[-1] == 0 and row[-1] is not False:
                row.pop()
        return [self.version, self.number, self.rows, self.cases()]


def main():
    folder = pathlib.Path(sys.argv[1])
    signed = [{"mxid": user(number), "token": token} for number in range(USERS) for token in TOKENS]
    invites = [sign_json(invite, "s0", SIGNING_KEY) for invite in signed]
    with open(folder / "invites.json", "w") as file:
        json.dump({"public_key": VERIFY_KEY, "signed": invites}, file, indent=1)
        file.write("\n")
    for algorithm, versions in VERSIONS.items():
        with open(folder / f"{algorithm}.jsonl", "w") as file:
            for number in range(ROOMS):
                rng = random.Random(f"{algorithm}/{number}")
                room = Room(versions[number % len(versions)], number, rng)
                room.begin()
                room.grow(rng.randint(16, 34))
                json.dump(room.record(), file, separators=(",", ":"))
                file.write("\n")


if __name__ == "__main__":
    main()
