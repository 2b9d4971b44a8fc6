//! Rooms made at random and resolved by Synapse; `record_graphs.py` describes how they are written down.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use pdu::{
    EventNumber,
    resolve::{Loaded, StateMap, resolve_maps},
};
use serde_json::{Value, json};

use crate::{
    room::{Parts, Room, index, number},
    store::{Cost, answer_of, resolve_counted},
};

const LEVELS: [&str; 7] = [
    "users_default",
    "events_default",
    "state_default",
    "ban",
    "redact",
    "kick",
    "invite",
];

/// The invitations to e-mail addresses, signed, and the key they are signed with.
static INVITES: LazyLock<Value> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphs/invites.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
});

#[test]
fn version_1_resolves_as_synapse_does() {
    check_file(
        "v1.jsonl",
        Cost {
            rounds: 3,
            events: 26,
            chains: 24,
            entries: 7,
            walked: 0,
        },
    );
}

#[test]
fn version_2_resolves_as_synapse_does() {
    check_file(
        "v2.jsonl",
        Cost {
            rounds: 6,
            events: 33,
            chains: 24,
            entries: 7,
            walked: 7,
        },
    );
}

#[test]
fn version_2_1_resolves_as_synapse_does() {
    check_file(
        "v2.1.jsonl",
        Cost {
            rounds: 5,
            events: 33,
            chains: 32,
            entries: 6,
            walked: 8,
        },
    );
}

/// Resolves every fork in a file as Synapse did, without asking for more than `most`.
fn check_file(name: &str, most: Cost) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/graphs")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let mut rooms = 0;
    let mut forks = Forks::default();
    for line in text.lines() {
        rooms += 1;
        check_room(&serde_json::from_str(line).unwrap(), &mut forks);
    }
    assert!(rooms >= 1000, "{rooms} rooms");
    assert!(
        forks.checked >= 5000 && forks.lost > 1000 && forks.tainted > 300,
        "{forks:?}"
    );
    assert!(
        forks.most.rounds <= most.rounds
            && forks.most.events <= most.events
            && forks.most.chains <= most.chains
            && forks.most.entries <= most.entries
            && forks.most.walked <= most.walked,
        "{:?} is more than {most:?}",
        forks.most
    );
}

/// What was checked.
#[derive(Debug, Default)]
struct Forks {
    checked: usize,
    /// Forks in which something other than the latest event won or nothing.
    lost: usize,
    /// Forks with events taken for rejected.
    tainted: usize,
    most: Cost,
}

fn check_room(line: &Value, forks: &mut Forks) {
    let version = line[0].as_str().unwrap();
    let seed = line[1].as_u64().unwrap();
    let mut room = Room::new(version);
    let mut after: Vec<StateMap<EventNumber>> = Vec::new();
    let mut depths: Vec<u64> = Vec::new();
    for (at, row) in line[2].as_array().unwrap().iter().enumerate() {
        let field = |i: usize| row.get(i).cloned().unwrap_or_else(|| json!(0));
        let back: Vec<usize> = match &row[3] {
            Value::Array(_) => indexes(&row[3]),
            one => vec![usize::try_from(one.as_u64().unwrap()).unwrap()],
        };
        let prevs: Vec<usize> = back.into_iter().map(|back| at - back).collect();
        let natural = 1 + prevs.iter().map(|&i| depths[i]).max().unwrap_or(0);
        let depth = Some(field(8).as_u64().unwrap())
            .filter(|&depth| depth > 0)
            .unwrap_or(natural);
        depths.push(depth);
        let mut state = match prevs.as_slice() {
            [] => StateMap::new(),
            &[one] => after[one].clone(),
            many => {
                let what = format!("version {version} room {seed} event {at}");
                check_fork(&room, &after, many, &[], &indexes(&row[9]), &what, forks)
            }
        };
        let (kind, state_key, content) = content(version, &row[0], &row[2]);
        let rejected = field(7) == 1;
        let id = match version {
            "1" | "2" => event_id(seed, at as u64),
            _ => format!("${:043}", field(6).as_u64().unwrap()),
        };
        let parts = Parts {
            id,
            kind: &kind,
            state_key: &state_key,
            sender: &user(row[1].as_u64().unwrap()),
            content,
            prevs: &prevs,
            auths: &indexes(&row[4]),
            time: field(5).as_u64().unwrap(),
            depth,
            rejected,
        };
        let event = room.make(&parts);
        room.add(event);
        if !rejected {
            state.insert(room.key(number(at)), number(at));
        }
        after.push(state);
    }
    for (at, case) in line[3].as_array().unwrap().iter().enumerate() {
        let what = format!("version {version} room {seed} case {at}");
        let (tips, tainted, answer) = (indexes(&case[0]), indexes(&case[1]), indexes(&case[2]));
        check_fork(&room, &after, &tips, &tainted, &answer, &what, forks);
    }
}

/// Resolves the states after some events and compares with the answer; the state by the answer.
fn check_fork(
    room: &Room,
    after: &[StateMap<EventNumber>],
    tips: &[usize],
    tainted: &[usize],
    answer: &[usize],
    what: &str,
    forks: &mut Forks,
) -> StateMap<EventNumber> {
    let load = |number: EventNumber| {
        let mut loaded = room.event(index(number)).clone();
        if tainted.contains(&index(number)) {
            loaded.pdu = Arc::new(rejected(&loaded));
        }
        loaded
    };
    let states: Vec<_> = tips.iter().map(|&tip| &after[tip]).collect();
    let (resolution, keys, cost) = resolve_counted(room, &load, &states);
    assert_eq!(answer_of(&resolution), answer, "{what}: {keys:?}");

    let maps: Vec<_> = states.iter().map(|&state| state.clone()).collect();
    let same = maps[0]
        .iter()
        .filter(|(key, number)| maps.iter().all(|map| map.get(*key) == Some(*number)))
        .map(|(key, number)| (key.clone(), *number));
    let by_answer = answer.iter().map(|&i| (room.key(number(i)), number(i)));
    let expected: StateMap<_> = same.chain(by_answer).collect();
    if forks.checked.is_multiple_of(5) {
        let load = |number| Some(load(number));
        let (resolved, resets) = resolve_maps(room.rules, room.create(), &maps, load).unwrap();
        assert_eq!(resolved, expected, "{what}");
        assert_eq!(resets, resolution.resets, "{what}");
    }

    forks.checked += 1;
    forks.tainted += usize::from(!tainted.is_empty());
    let latest = |key| maps.iter().filter_map(|map| map.get(key)).max().copied();
    let lost = keys
        .iter()
        .zip(&resolution.winners)
        .any(|(key, winner)| *winner != latest(key));
    forks.lost += usize::from(lost);
    forks.most = Cost {
        rounds: forks.most.rounds.max(cost.rounds),
        events: forks.most.events.max(cost.events),
        chains: forks.most.chains.max(cost.chains),
        entries: forks.most.entries.max(cost.entries),
        walked: forks.most.walked.max(cost.walked),
    };
    expected
}

fn rejected(loaded: &Loaded) -> pdu::Pdu {
    let mut pdu = (*loaded.pdu).clone();
    pdu.set_rejected(true);
    pdu
}

fn indexes(value: &Value) -> Vec<usize> {
    let numbers = value.as_array().into_iter().flatten();
    numbers
        .map(|number| usize::try_from(number.as_u64().unwrap()).unwrap())
        .collect()
}

fn user(number: u64) -> String {
    format!("@u{number}:s{}", number % 3)
}

fn event_id(room: u64, index: u64) -> String {
    format!(
        "${:06x}:s{}",
        (room * 1_000_003 + index * 1_000_033) % 0xff_fffb,
        index % 3
    )
}

/// Type, state key and content of an event.
fn content(version: &str, kind: &Value, what: &Value) -> (String, String, Value) {
    let user_of = |value: &Value| user(value.as_u64().unwrap());
    let with_key = |what: &Value| match what {
        Value::Array(both) => (text(&both[0]), text(&both[1])),
        _ => (text(what), String::new()),
    };
    match kind.as_str().unwrap() {
        "c" => {
            let mut content = json!({ "room_version": version });
            if version.parse::<u32>().unwrap() < 11 {
                content["creator"] = user(0).into();
            }
            if let Value::Array(more) = what {
                content["additional_creators"] = more.iter().map(user_of).collect();
            }
            ("m.room.create".into(), String::new(), content)
        }
        kind @ ("j" | "v" | "l" | "b" | "k") => {
            let membership = match kind {
                "j" => "join",
                "v" => "invite",
                "l" => "leave",
                "b" => "ban",
                _ => "knock",
            };
            let mut content = json!({ "membership": membership });
            let target = user_of(what.get(0).unwrap_or(what));
            if let Some(via) = what.get(1).filter(|via| !via.is_null()) {
                content["join_authorised_via_users_server"] = user_of(via).into();
            }
            if let Some(token) = what.get(2).filter(|token| !token.is_null()) {
                let all = INVITES["signed"].as_array().unwrap();
                let signed = all
                    .iter()
                    .find(|s| s["mxid"] == *target && s["token"] == *token)
                    .unwrap();
                content["third_party_invite"] = json!({ "display_name": "x", "signed": signed });
            }
            ("m.room.member".into(), target, content)
        }
        "p" => {
            let mut content = json!({ "users": {}, "events": {} });
            for (name, level) in LEVELS.iter().zip(what[0].as_array().unwrap()) {
                content[name] = level.clone();
            }
            for entry in what[1].as_array().unwrap() {
                content["users"][user_of(&entry[0])] = entry[1].clone();
            }
            for entry in what[2].as_array().unwrap() {
                content["events"][text(&entry[0])] = entry[1].clone();
            }
            ("m.room.power_levels".into(), String::new(), content)
        }
        "r" => {
            let (rule, state_key) = with_key(what);
            (
                "m.room.join_rules".into(),
                state_key,
                json!({ "join_rule": rule }),
            )
        }
        "t" => {
            let content = json!({ "display_name": "x", "public_key": INVITES["public_key"] });
            ("m.room.third_party_invite".into(), text(what), content)
        }
        "s" => {
            let (kind, state_key) = with_key(what);
            (kind, state_key, json!({}))
        }
        kind => panic!("unknown kind {kind}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
