//! Writing what changed for `/sync` ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync

use rooms::Count;
use ruma::{
    UInt,
    api::client::sync::sync_events::{UnreadNotificationsCount, v3},
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{Request, Timeline, Token, Update, update::Joined};

pub(crate) fn encode(request: &Request, update: Update, token: Token) -> v3::Response {
    let mut response = v3::Response::new(token.to_string());
    let rooms = &mut response.rooms;
    for joined in update.joined {
        let room_id = joined.room.room_id.clone();
        rooms.join.insert(room_id, encode_joined(request, joined));
    }
    for left in update.left {
        let mut room = v3::LeftRoom::new();
        room.timeline = timeline(left.timeline);
        room.state = state(request, left.state);
        room.account_data.events = raw(left.account_data);
        rooms.leave.insert(left.room.room_id.clone(), room);
    }
    for invited in update.invited {
        let mut room = v3::InvitedRoom::new();
        room.invite_state.events = raw(invited.stripped_state);
        rooms.invite.insert(invited.room.room_id.clone(), room);
    }
    for knocked in update.knocked {
        let mut room = v3::KnockedRoom::new();
        room.knock_state.events = raw(knocked.stripped_state);
        rooms.knock.insert(knocked.room.room_id.clone(), room);
    }
    response.account_data.events = raw(update.account_data);
    response
}

fn encode_joined(request: &Request, joined: Joined) -> v3::JoinedRoom {
    let mut room = v3::JoinedRoom::new();
    if let Some(summary) = joined.summary {
        room.summary.heroes = summary.heroes.unwrap_or_default();
        room.summary.joined_member_count = Some(UInt::new_saturating(summary.joined));
        room.summary.invited_member_count = Some(UInt::new_saturating(summary.invited));
    }
    let by_thread = request.filter.room.timeline.unread_thread_notifications;
    if by_thread {
        room.unread_notifications = count(joined.unread.main);
        room.unread_thread_notifications = joined
            .unread
            .threads
            .into_iter()
            .map(|(root, unread)| (root, count(unread)))
            .collect();
    } else {
        room.unread_notifications = count(joined.unread.whole());
    }
    room.timeline = timeline(joined.timeline);
    room.state = state(request, joined.state);
    room.ephemeral.events = raw(joined.ephemeral);
    room.account_data.events = raw(joined.account_data);
    room
}

fn count(count: Count) -> UnreadNotificationsCount {
    let mut counts = UnreadNotificationsCount::new();
    counts.notification_count = Some(UInt::new_saturating(count.notifications));
    counts.highlight_count = Some(UInt::new_saturating(count.highlights));
    counts
}

fn timeline(timeline: Timeline) -> v3::Timeline {
    let mut encoded = v3::Timeline::new();
    encoded.limited = timeline.limited;
    encoded.prev_batch = timeline.prev_batch.map(|token| token.to_string());
    encoded.events = raw(timeline.events);
    encoded
}

fn state(request: &Request, events: Vec<Box<RawValue>>) -> v3::State {
    let events = v3::StateEvents::with_events(raw(events));
    if request.state_after {
        v3::State::After(events)
    } else {
        v3::State::Before(events)
    }
}

fn raw<T>(events: Vec<Box<RawValue>>) -> Vec<Raw<T>> {
    events.into_iter().map(Raw::from_json).collect()
}
