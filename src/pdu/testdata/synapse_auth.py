#!/usr/bin/env python3
"""Records what Synapse's auth rules answer to random events in random rooms of each room version.

    pip install matrix-synapse
    python synapse_auth.py > synapse_auth.json

The answers are what `src/pdu/auth/synapse_tests.rs` compares ours with. The randomness has a fixed seed:
same script and same Synapse, same file.
"""

import json
import random
import sys

import synapse
from signedjson.key import decode_signing_key_base64, encode_verify_key_base64, get_verify_key
from signedjson.sign import sign_json
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.event_auth import check_state_dependent_auth_rules
from synapse.events import make_event_from_dict

KEY = decode_signing_key_base64("ed25519", "1", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
VERIFY_KEY = encode_verify_key_base64(get_verify_key(KEY))
OTHER_KEY = decode_signing_key_base64("ed25519", "1", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
VERSIONS = [str(n) for n in range(1, 13)] + ["org.matrix.msc3757.10"]
USERS = ["@creator:a", "@admin:a", "@mod:b", "@user:b", "@guest:c", "@new:c"]
ROOMS, EVENTS = 12, 28

rng = random.Random(3)


def level(version, *values):
    """A level, in older versions sometimes spelt oddly."""
    value = rng.choice(values)
    if int(version.split(".")[-1]) < 10 and rng.random() < 0.3:
        odd = [str(value), f"  {value} ", f"{value:+d}", f"00{value}" if value >= 0 else str(value)]
        if int(version.split(".")[-1]) < 6:
            odd += [value + 0.5 if value >= 0 else value - 0.5, value * 1.0]
        return rng.choice(odd)
    return value


def power_levels(version, base=None):
    content = json.loads(json.dumps(base)) if base else {}
    for key in ["ban", "invite", "kick", "redact", "events_default", "state_default", "users_default"]:
        if rng.random() < (0.1 if base else 0.4):
            if base and key in content and rng.random() < 0.4:
                del content[key]
            else:
                content[key] = level(version, 0, 0, 25, 50, 50, 75, 100, -1)
    maps = {"events": ["m.room.power_levels", "m.room.topic", "m.room.message", "m.room.redaction", "org.state"],
            "notifications": ["room", "other"], "users": USERS}
    for field, keys in maps.items():
        if base and rng.random() < 0.5:
            continue
        if version == "12" and field == "users":
            keys = keys[1:] if rng.random() < 0.95 else keys
        entries = content.setdefault(field, {})
        for key in keys:
            if rng.random() < (0.2 if base else 0.5):
                if base and key in entries and rng.random() < 0.3:
                    del entries[key]
                else:
                    entries[key] = level(version, 0, 25, 50, 50, 75, 100, 100)
        if field == "users" and not base and version != "12" and rng.random() < 0.7:
            entries["@creator:a"] = 100
        if not entries and rng.random() < 0.5:
            del content[field]
    if base and rng.random() < 0.08:
        where = rng.choice(["users", "events", "ban", "kick"])
        if where in maps:
            content.setdefault(where, {})[rng.choice(["nobody", "@user:b"])] = rng.choice(["x", [], 1, "1.5"])
        else:
            content[where] = rng.choice(["x", "1", [], "", 7])
    return content


def member(version, sender, target):
    membership = rng.choice(["join", "join", "join", "invite", "invite", "leave", "leave", "ban", "knock", "odd"])
    content = {"membership": membership}
    if membership == "join" and rng.random() < 0.4:
        content["join_authorised_via_users_server"] = rng.choice(USERS)
    if membership == "invite" and rng.random() < 0.4:
        signed = {"mxid": target if rng.random() < 0.9 else "@other:c", "token": rng.choice(["token", "token", "none"])}
        sign_json(signed, "identity", KEY if rng.random() < 0.8 else OTHER_KEY)
        content["third_party_invite"] = {"display_name": "x", "signed": signed}
        if rng.random() < 0.1:
            del content["third_party_invite"]["signed"]["signatures"]
        if rng.random() < 0.05:
            del content["third_party_invite"]["signed"]
    return content


def random_state(version):
    create = {"creator": "@creator:a"}
    if rng.random() < 0.15:
        create["m.federate"] = rng.choice([False, True])
    if version == "12" and rng.random() < 0.5:
        create["additional_creators"] = ["@admin:a"]
    state = [["@creator:a", "m.room.create", "", create]]
    for user in USERS:
        choices = ["join"] * 8 + ["leave", "ban", "invite", "knock", None]
        if user in ("@guest:c", "@new:c"):
            choices = ["join", "leave", "ban", "invite", "knock", None]
        membership = rng.choice(choices)
        if membership:
            state.append([user, "m.room.member", user, {"membership": membership}])
    if rng.random() < 0.85:
        state.append(["@creator:a", "m.room.power_levels", "", power_levels(version)])
    if rng.random() < 0.85:
        rule = rng.choice(["public", "invite", "knock", "restricted", "knock_restricted", "private", "odd"])
        state.append(["@creator:a", "m.room.join_rules", "", {"join_rule": rule}])
    if rng.random() < 0.7:
        content = {"public_key": VERIFY_KEY} if rng.random() < 0.5 else {"public_keys": [{"public_key": VERIFY_KEY}]}
        state.append([rng.choice(USERS[:4]), "m.room.third_party_invite", "token", content])
    return state


def random_event(version, state):
    sender = rng.choice(USERS + ["@creator:a"] * 5 + ["@admin:a"] * 2)
    kind = rng.random()
    if kind < 0.06:
        outsider = rng.choice(["@guest:c", "@new:c"])
        return [outsider, "m.room.member", outsider, {"membership": rng.choice(["knock", "join"])}, ["x"]]
    if kind < 0.5:
        target = sender if rng.random() < 0.5 else rng.choice(USERS)
        prev = ["create"] if rng.random() < 0.1 else rng.choice([["x"], ["create", "x"]])
        return [sender, "m.room.member", target, member(version, sender, target), prev]
    if kind < 0.7:
        base = next((content for _, type, _, content in state if type == "m.room.power_levels"), None)
        return [sender, "m.room.power_levels", "", power_levels(version, base), ["x"]]
    if kind < 0.75:
        return [sender, "m.room.aliases", rng.choice(["a", "b", "", "@creator:a"]), {"aliases": []}, ["x"]]
    if kind < 0.8:
        return [sender, "m.room.third_party_invite", "token", {}, ["x"]]
    if kind < 0.85 and version in ("1", "2"):
        return [sender, "m.room.redaction", None, {"redacts": rng.choice(["$x:a", "$x:b"])}, ["x"]]
    type = rng.choice(["m.room.message", "m.room.topic", "org.state", "m.room.join_rules"])
    if type == "m.room.message":
        return [sender, type, None, {}, ["x"]]
    key = rng.choice(["", "plain", "@creator:a", "@user:b", sender, sender + "_x", "@user:b_x", "@odd", "@:"])
    return [sender, type, key, {}, ["x"]]


def make(version, name, number, room_id, create_id):
    def event(row, prev):
        sender, type, state_key, content = row
        id = f"$e{number}:" + sender.split(":")[1]
        fields = {
            "auth_events": [], "content": content, "depth": 1, "hashes": {"sha256": "x" * 43}, "origin_server_ts": 1,
            "prev_events": [create_id if p == "create" else "$other:x" for p in prev], "sender": sender, "type": type,
            "signatures": {}, "unsigned": {},
        }
        if name in ("1", "2"):
            fields["event_id"] = id
            fields["prev_events"] = [[p, {"sha256": "x" * 43}] for p in fields["prev_events"]]
            if type == "m.room.redaction":
                fields["redacts"] = content["redacts"]
        if state_key is not None:
            fields["state_key"] = state_key
        if not (name == "12" and type == "m.room.create"):
            fields["room_id"] = room_id
        return make_event_from_dict(fields, version)

    return event


def main():
    rooms = []
    for name in VERSIONS:
        version = KNOWN_ROOM_VERSIONS[name]
        for _ in range(ROOMS):
            state = random_state(name)
            create = make(version, name, 0, "!r:a", None)(state[0], [])
            room_id = create.room_id
            held = [create] + [make(version, name, n + 1, room_id, create.event_id)(row, ["x"]) for n, row in enumerate(state[1:])]
            events = []
            for number in range(EVENTS):
                row = random_event(name, state)
                event = make(version, name, 100 + number, room_id, create.event_id)(row[:4], row[4])
                try:
                    check_state_dependent_auth_rules(event, held)
                    allowed = True
                except SynapseError:
                    allowed = False
                except Exception:
                    # An answer by accident, which says nothing about the rules.
                    continue
                events.append(row + [allowed])
            rooms.append({"version": name, "state": state, "events": events})
    print('{"synapse":%s,"rooms":[' % json.dumps(synapse.__version__))
    print(",\n".join(json.dumps(room, separators=(",", ":")) for room in rooms))
    print("]}")


if __name__ == "__main__":
    sys.exit(main())
