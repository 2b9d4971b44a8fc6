#!/usr/bin/env python3
"""Records how Synapse hashes, signs and redacts events of each room version.

    pip install matrix-synapse
    python synapse_events.py > synapse_events.json

The answers are what `src/pdu/synapse_tests.rs` compares ours with. Same script and same Synapse, same file.
"""

import copy
import json
import sys

import synapse
from canonicaljson import encode_canonical_json
from signedjson.key import decode_signing_key_base64
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import add_hashes_and_signatures
from synapse.events import make_event_from_dict
from synapse.synapse_rust.events import redact_event_dict

# The key of the spec's test vectors.
KEY = decode_signing_key_base64("ed25519", "1", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
SERVER = "domain"
VERSIONS = [str(n) for n in range(1, 13)]

POWER_LEVELS = {
    "ban": 51,
    "events": {"m.room.name": 60, "m.room.power_levels": 100},
    "events_default": 1,
    "historical": 100,
    "invite": 2,
    "kick": 52,
    "notifications": {"room": 20},
    "redact": 53,
    "state_default": 54,
    "users": {"@b:domain": 50},
    "users_default": 3,
}

THIRD_PARTY_INVITE = {
    "display_name": "alice",
    "signed": {
        "mxid": "@alice:example.org",
        "signatures": {"magic.forest": {"ed25519:3": "fQpGIW1Snz+pwLZu6sTy2aHy/DYWWTspTJRPyNp0PKkymfIsNffysMl6ObMMFdIJhk6g6pwlIqZ54rxo8SLmAg"}},
        "token": "abc123",
    },
}

CONTENTS = [
    ("m.room.message", None, {"body": "\u06cc\u06a9 \"\\\u0007\n\U0001f600", "msgtype": "m.text", "n": [1, -1, 0, 9007199254740991]}),
    ("m.room.member", "@a:domain", {"membership": "join", "displayname": "A", "avatar_url": None}),
    ("m.room.member", "@a:domain", {"membership": "join", "join_authorised_via_users_server": "@z:domain", "reason": "x"}),
    ("m.room.member", "@alice:example.org", {"membership": "invite", "third_party_invite": THIRD_PARTY_INVITE}),
    ("m.room.member", "@alice:example.org", {"membership": "invite", "third_party_invite": {"display_name": "x"}}),
    ("m.room.member", "@alice:example.org", {"membership": "invite", "third_party_invite": "x"}),
    ("m.room.join_rules", "", {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": "!r:domain"}], "extra": 1}),
    ("m.room.power_levels", "", POWER_LEVELS),
    ("m.room.history_visibility", "", {"history_visibility": "joined", "extra": {"x": []}}),
    ("m.room.aliases", "domain", {"aliases": ["#a:domain"], "extra": True}),
    ("m.room.redaction", None, {"reason": "spam", "redacts": "$content"}),
    ("m.room.server_acl", "", {"allow": ["*"], "deny": [], "allow_ip_literals": False}),
    ("m.room.topic", "", {}),
    ("org.example.\u00fc\"", "key \"\u00e9", {"\u65e5": 1, "\u672c": {"b": 2, "a": [{}, {"d": 1, "c": 2}]}, "": ""}),
]

LENIENT = ("org.example.numbers", "", {
    "float": 50.57, "small": 0.00001, "large": 1e16, "whole": 100.0, "negative": -0.5,
    "big": 123456789012345678901234567890, "beyond": -9007199254740993,
})


def references(version, ids):
    if version in ("1", "2"):
        return [[f"{i}:domain", {"sha256": "abase64encodedsha256hashshouldbe43byteslong"}] for i in ids]
    return ids


def base(version, type, state_key, content):
    event = {
        "auth_events": references(version, ["$auth1", "$auth2"]),
        "content": content,
        "depth": 7,
        "origin": "domain",
        "origin_server_ts": 1000000,
        "prev_events": references(version, ["$prev"]),
        "prev_state": [],
        "membership": "odd",
        "extra_top_level": {"b": 1, "a": 2},
        "room_id": "!r:domain" if version != "12" else "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
        "sender": "@a:domain",
        "type": type,
        "unsigned": {"age_ts": 1, "other": 2},
    }
    if state_key is not None:
        event["state_key"] = state_key
    if type == "m.room.redaction":
        event["redacts"] = "$top:domain"
    if version in ("1", "2"):
        event["event_id"] = "$opaque:domain"
    return event


def create(version):
    event = base(version, "m.room.create", "", {"creator": "@a:domain", "room_version": version, "m.federate": True, "type": "m.space"})
    event["auth_events"] = event["prev_events"] = []
    event["depth"] = 1
    if version == "12":
        del event["room_id"]
        event["content"]["additional_creators"] = ["@b:domain"]
    return event


def text(value):
    value = dict(value)
    value.pop("unsigned", None)
    return encode_canonical_json(value).decode()


def main():
    cases = []
    for name in VERSIONS:
        version = KNOWN_ROOM_VERSIONS[name]
        events = [create(name)] + [base(name, *content) for content in CONTENTS]
        if not version.strict_canonicaljson:
            events.append(base(name, *LENIENT))
        for event in events:
            event = copy.deepcopy(event)
            add_hashes_and_signatures(version, event, SERVER, KEY)
            made = make_event_from_dict(copy.deepcopy(event), version)
            case = {
                "version": name,
                "event": text(event),
                "event_id": made.event_id,
                "room_id": made.room_id,
                "redacts": made.redacts if made.type == "m.room.redaction" else None,
                "redacted": text(redact_event_dict(version, event)),
            }
            cases.append(case)
    print(json.dumps({"synapse": synapse.__version__, "cases": cases}, indent=0, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
