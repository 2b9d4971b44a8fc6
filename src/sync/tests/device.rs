//! A device that believes what it is told, and compares it with what really happened.

use std::collections::BTreeMap;

use rooms::{PlaceToken, Room};
use serde_json::{Value, json};

use super::{
    World, each,
    history::{History, State},
};
use crate::{Request, StateForm, Timeline, Token};

/// A device with its own way to ask.
pub(super) struct Device {
    person: usize,
    number: usize,
    lazy: bool,
    /// A type that its timelines are to be without.
    without: Option<&'static str>,
    token: Option<Token>,
    rooms: BTreeMap<String, Known>,
}

/// What the device knows of a room.
#[derive(Clone, Default)]
struct Known {
    state: State,
    /// How many of the room's events had happened when it was last told.
    until: usize,
    joined: bool,
}

/// How a sync asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) limit: u64,
    pub(super) after: bool,
    pub(super) full_state: bool,
}

impl Device {
    pub(super) fn new(person: usize, number: usize) -> Self {
        Self {
            person,
            number,
            lazy: number % 3 == 1,
            without: (number % 4 == 2).then_some("m.room.name"),
            token: None,
            rooms: BTreeMap::new(),
        }
    }

    fn request(&self, world: &World, ask: Ask) -> Request {
        let not_types: Vec<_> = self.without.into_iter().collect();
        let filter = json!({ "room": {
            "timeline": { "limit": ask.limit, "not_types": not_types },
            "state": { "lazy_load_members": self.lazy },
        }});
        let mut request = world.request(self.person, self.token, filter);
        let user = request.viewer.user_id.to_string();
        let device = format!("DEVICE{}", self.number);
        request.viewer.device = world.storage.user_device_hash(&user, &device);
        request.full_state = ask.full_state;
        if ask.after {
            request.state = StateForm::After;
        }
        request
    }

    /// Syncs, and compares everything it then knows with what happened.
    pub(super) async fn sync(&mut self, world: &World, rooms: &[std::sync::Arc<Room>], ask: Ask) {
        let request = self.request(world, ask);
        let (update, token) = world.ask(&request).await;
        let (again, _) = world.ask(&request).await;
        assert_eq!(ids(&update), ids(&again), "the same token, the same answer");
        let user = request.viewer.user_id.to_string();
        let first = self.token.is_none();
        for room in rooms {
            let history = History::of(world, room).await;
            let memberships = history.memberships(&user);
            let now = memberships.last().map_or("", String::as_str);
            let joined = update
                .joined
                .iter()
                .find(|joined| joined.room.short == room.short);
            let left = update
                .left
                .iter()
                .find(|left| left.room.short == room.short);
            let told_outside = [&update.invited, &update.knocked]
                .map(|list| list.iter().any(|one| one.room.short == room.short));
            assert!(now == "join" || joined.is_none());
            assert!(matches!(now, "leave" | "ban") || left.is_none());
            assert!(now == "invite" || !told_outside[0]);
            let key = room.room_id.to_string();
            let known = self.rooms.get(&key).cloned().unwrap_or_default();
            let end = history.0.len();
            match (joined, left) {
                (Some(joined), _) => {
                    let told = Told {
                        timeline: &joined.timeline,
                        state: &joined.state,
                        until: end,
                        anew: !known.joined,
                    };
                    let known = self.learn(&history, known, &told, &user, ask);
                    let joined = Known {
                        joined: true,
                        ..known
                    };
                    self.check(&history, &joined, end);
                    self.rooms.insert(key, joined);
                }
                (None, Some(left)) => {
                    let was = memberships.iter().rposition(|was| was == "join");
                    if let Some(was) = was.filter(|_| known.joined || told_whole(&history, left)) {
                        let told = Told {
                            timeline: &left.timeline,
                            state: &left.state,
                            // The event by which they went out of it.
                            until: was + 2,
                            anew: !known.joined,
                        };
                        let known = self.learn(&history, known, &told, &user, ask);
                        self.check(&history, &known, was + 2);
                    }
                    self.rooms.remove(&key);
                }
                // Who was sent out and invited anew learns of the invite.
                (None, None) if told_outside[0] => drop(self.rooms.remove(&key)),
                (None, None) => {
                    assert_eq!(known.joined, now == "join", "a membership was not told");
                    if known.joined {
                        self.check(&history, &known, end);
                        assert_eq!(known.until, end, "an event was not told");
                    }
                    assert!(!first || now != "invite" || told_outside[0]);
                }
            }
        }
        self.token = Some(token);
    }

    /// Takes in what it was told of a room.
    fn learn(
        &self,
        history: &History,
        mut known: Known,
        told: &Told<'_>,
        user: &str,
        ask: Ask,
    ) -> Known {
        let shown = each(&told.timeline.events, "/event_id");
        if told.anew {
            known = Known::default();
        }
        self.check_timeline(history, &known, told, &shown, user, ask);
        if told.anew || ask.full_state {
            known.state.clear();
        }
        for (key, id) in keys(told.state) {
            known.state.insert(key, id);
        }
        if !ask.after {
            let first = shown.first().map_or(told.until, |id| history.index(id));
            let only_shared = history.visible(user, told.until)[..told.until]
                .iter()
                .all(|visible| *visible);
            if only_shared && !self.lazy && self.without.is_none() {
                let mut before = history.state_before(first);
                // What begins a timeline, where nothing stood before it, is told in both.
                let begins = keys(&told.timeline.events).into_iter().next();
                let begins =
                    begins.filter(|(_, id)| told.timeline.limited && Some(id) == shown.first());
                if let Some((key, id)) = begins
                    && known.state.get(&key) == Some(&id)
                {
                    before.entry(key).or_insert(id);
                }
                assert_eq!(known.state, before, "the state before the timeline");
            }
            for (key, id) in keys(&told.timeline.events) {
                known.state.insert(key, id);
            }
        }
        if self.lazy {
            for event in &told.timeline.events {
                let event: Value = serde_json::from_str(event.get()).unwrap();
                let sender = event["sender"].as_str().unwrap().to_owned();
                let key = ("m.room.member".to_owned(), sender);
                assert!(known.state.contains_key(&key), "who is {key:?}?");
            }
        }
        known.until = told.until;
        known
    }

    /// The timeline is what happened, in order, with nothing left out but where it says so.
    fn check_timeline(
        &self,
        history: &History,
        known: &Known,
        told: &Told<'_>,
        shown: &[String],
        user: &str,
        ask: Ask,
    ) {
        let visible = history.visible(user, told.until);
        let wanted: Vec<_> = (known.until..told.until)
            .filter(|index| visible[*index])
            .filter(|index| Some(history.0[*index].event_type.as_str()) != self.without)
            .map(|index| history.0[index].id.clone())
            .collect();
        let newest = &wanted[wanted.len() - wanted.len().min(shown.len())..];
        assert_eq!(shown, newest, "{ask:?}");
        let all = shown.len() == wanted.len();
        if !all && shown.len() as u64 != ask.limit {
            // What comes before is state that was replaced out of sight.
            assert!(!ask.after, "{ask:?}");
            let next = &history.0[history.index(&wanted[wanted.len() - shown.len() - 1])];
            let key = (next.event_type.clone(), next.state_key.clone().unwrap());
            let now = &history.state_before(told.until)[&key];
            assert!(*now != next.id && !wanted.contains(now), "{ask:?}");
        }
        if known.until > 0 || !all {
            // Who is new may be told of a gap though all that they may see is there.
            assert_eq!(told.timeline.limited, !all, "{ask:?} {shown:?} {wanted:?}");
        }
        if let Some(first) = shown.first() {
            let place = history.0[history.index(first)].place;
            assert_eq!(told.timeline.prev_batch, Some(PlaceToken::before(place)));
        }
    }

    /// The state that the device has put together is the room's.
    fn check(&self, history: &History, known: &Known, end: usize) {
        let truth = history.state_before(end);
        if !self.lazy {
            assert_eq!(known.state, truth);
            return;
        }
        let others = |state: &State| -> State {
            let others = state
                .iter()
                .filter(|((kind, _), _)| kind != "m.room.member");
            others.map(|(key, id)| (key.clone(), id.clone())).collect()
        };
        assert_eq!(others(&known.state), others(&truth));
        for (key, id) in &known.state {
            assert_eq!(truth.get(key), Some(id), "{key:?}");
        }
    }
}

/// What a device was told of a room.
struct Told<'a> {
    timeline: &'a Timeline,
    state: &'a [Box<serde_json::value::RawValue>],
    /// The number of events that it is to know of.
    until: usize,
    /// It did not know the room.
    anew: bool,
}

/// Whether a room that was left was told as one in which the user was, not only as a declined invite.
fn told_whole(history: &History, left: &crate::Left) -> bool {
    let shown = each(&left.timeline.events, "/event_id");
    !left.state.is_empty()
        || shown
            .iter()
            .any(|id| history.0[history.index(id)].event_type == "m.room.create")
}

fn keys(events: &[Box<serde_json::value::RawValue>]) -> Vec<((String, String), String)> {
    let key = |event: &serde_json::value::RawValue| {
        let event: Value = serde_json::from_str(event.get()).unwrap();
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        Some((
            (text("type").unwrap(), text("state_key")?),
            text("event_id").unwrap(),
        ))
    };
    events.iter().filter_map(|event| key(event)).collect()
}

/// All events of an answer.
fn ids(update: &crate::Update) -> Vec<String> {
    let joined = update
        .joined
        .iter()
        .flat_map(|joined| joined.timeline.events.iter().chain(&joined.state));
    let left = update
        .left
        .iter()
        .flat_map(|left| left.timeline.events.iter().chain(&left.state));
    each(joined.chain(left), "/event_id")
}
