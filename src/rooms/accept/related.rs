//! What an event does to others: relations, threads, redactions, totals, mentions.

use std::sync::Arc;

use pdu::{EventNumber, Pdu, PowerLevels};
use ruma::{
    OwnedUserId,
    events::{StateEventType, TimelineEventType},
};
use storage::{
    ShortUserId,
    schema::{self, MentionRow, Place, RedactionRow, RelationRow},
};

use super::Writing;
use crate::{
    StoredEvent,
    event::{Mentions, Relation},
    redact_all::Pruning,
    writer::{Judged, pruned_by},
};

/// Stands for everybody in the room, in the table of mentions.
pub(crate) const EVERYBODY: ShortUserId = ShortUserId([0; 8]);

impl Writing<'_> {
    /// Whether the event is one that the default push rules count; not if its redaction came first.
    pub(super) fn counts(&self, judged: &Judged) -> bool {
        let header = &judged.event.header;
        header.place.is_some()
            && header.redacted_because.is_none()
            && !judged.is_historic()
            && judged.mentions.counts(&header.event_type)
    }

    /// The root of the thread that the event belongs to: by its own relation, or by that of the event
    /// which it relates to in another way ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
    pub(super) fn thread(&self, judged: &Judged) -> Option<EventNumber> {
        let relation = judged.mentions.relation.as_ref()?;
        let parent = self.working.events.get(&relation.parent)?.as_ref()?;
        if relation.rel_type == "m.thread" {
            Some(parent.number)
        } else {
            parent.header.thread
        }
    }

    pub(super) fn related(&mut self, judged: &Judged, counted: bool) {
        let Some(place) = judged.event.header.place else {
            return;
        };
        if let Some(relation) = &judged.mentions.relation {
            self.relation(&judged.event, relation, place);
        }
        if !judged.is_historic() {
            if let Some(root) = judged.event.header.thread {
                self.thread_row(judged, root, place, counted);
            }
            let everybody = self.mentions(judged, place, counted);
            if judged.event.header.state_key.is_none() || counted || everybody {
                self.sender_has_read(&judged.event, place);
            }
        }
        if judged.event.header.redacts.is_some()
            && *judged.event.pdu.event_type() == TimelineEventType::RoomRedaction
        {
            self.redaction(judged);
        }
    }

    fn thread_row(&mut self, judged: &Judged, root: EventNumber, place: Place, counted: bool) {
        let relation = judged.mentions.relation.as_ref();
        let direct = relation.is_some_and(|relation| relation.rel_type == "m.thread");
        if !direct && !counted {
            return;
        }
        let short = self.short();
        let row = self.working.threads.entry(root).or_default();
        row.notify += u64::from(counted);
        let first = row.count == 0;
        if direct {
            if !first {
                let old = (short, row.latest_place);
                self.batch.delete(&schema::THREAD_BY_PLACE, &old);
            }
            row.count += 1;
            row.latest = judged.event.number;
            row.latest_place = place;
            self.batch
                .put(&schema::THREAD_BY_PLACE, &(short, place), &root);
        }
        let row = row.clone();
        self.batch
            .put(&schema::THREAD_BY_ROOT, &(short, root), &row);
        if direct {
            let parent = relation.and_then(|relation| self.working.events.get(&relation.parent));
            let parent = parent.and_then(Option::as_ref).filter(|_| first);
            let began = parent.map(|parent| parent.header.sender.clone());
            for user in began.iter().chain([&judged.event.header.sender]) {
                let key = (short, root, self.storage.user_hash(user));
                self.batch.put(&schema::PARTICIPANT_BY_THREAD, &key, &());
            }
        }
    }

    /// A reply of a thread is gone. A thread without replies is none.
    fn thread_without(&mut self, reply: &StoredEvent) {
        let short = self.short();
        let Some(root) = reply.header.thread else {
            return;
        };
        let Some(row) = self
            .working
            .threads
            .get_mut(&root)
            .filter(|row| row.count > 0)
        else {
            return;
        };
        row.count -= 1;
        if row.count == 0 {
            let old = (short, row.latest_place);
            self.batch.delete(&schema::THREAD_BY_PLACE, &old);
            (row.latest, row.latest_place) = Default::default();
        }
        let row = row.clone();
        self.batch
            .put(&schema::THREAD_BY_ROOT, &(short, root), &row);
    }

    fn relation(&mut self, event: &StoredEvent, relation: &Relation, place: Place) {
        let row = RelationRow {
            number: event.number,
            rel_type: relation.rel_type.clone(),
            event_type: event.header.event_type.clone(),
            sender: event.header.sender.clone(),
            key: relation.key.clone(),
        };
        let key = (
            self.short(),
            self.storage.event_hash(&relation.parent),
            place,
        );
        self.batch.put(&schema::RELATION_BY_PARENT, &key, &row);
    }

    /// `.m.rule.is_user_mention`, `.m.rule.is_room_mention`, `.m.rule.tombstone`, where no rule before them
    /// says otherwise. An edit is not silent here: what it mentions are those whom it mentions newly.
    /// Whether it mentions everybody.
    fn mentions(&mut self, judged: &Judged, place: Place, counted: bool) -> bool {
        let header = &judged.event.header;
        if judged.mentions.is_silent(&header.event_type) {
            return false;
        }
        let row = MentionRow {
            number: judged.event.number,
            highlight: true,
            notify: !counted,
            thread: header.thread,
            redacted: false,
        };
        let tombstone = header.event_type.eq_ignore_ascii_case("m.room.tombstone")
            && header.state_key.as_deref() == Some("");
        let everybody =
            tombstone || (judged.mentions.room && self.may_notify_room(&judged.event.pdu));
        if everybody {
            let key = (EVERYBODY, self.short(), place);
            self.batch.put(&schema::MENTION_BY_USER_ROOM, &key, &row);
        }
        let mentioned: Vec<&OwnedUserId> = judged
            .mentions
            .users
            .iter()
            .filter(|user| **user != judged.event.pdu.sender())
            .collect();
        for user in mentioned {
            if let Some(Some(local)) = self.working.users.get(user) {
                let key = (local.short, self.short(), place);
                self.batch.put(&schema::MENTION_BY_USER_ROOM, &key, &row);
            }
        }
        everybody
    }

    fn may_notify_room(&self, pdu: &Pdu) -> bool {
        let Some(create) = self.working.current(&StateEventType::RoomCreate, "") else {
            return false;
        };
        let levels = self.working.current(&StateEventType::RoomPowerLevels, "");
        let rules = self.working.room.rules;
        let power = PowerLevels::new(rules, &create.pdu, levels.map(|event| event.pdu.as_ref()));
        match (power.user(pdu.sender()), power.to_notify("room")) {
            (Ok(level), Ok(needed)) => level >= needed.into(),
            _ => false,
        }
    }

    /// Prunes the target of a redaction, if it is here and the redaction may.
    fn redaction(&mut self, judged: &Judged) {
        let Some(target_id) = judged.event.pdu.redacts().map(ToOwned::to_owned) else {
            return;
        };
        let target = self.working.events.get(&target_id).cloned().flatten();
        let applied = target.is_some_and(|target| self.prune(&judged.event, &target));
        let target_hash = self.storage.event_hash(&target_id);
        let key = (self.short(), target_hash, judged.event.number);
        self.batch.put(
            &schema::REDACTION_BY_TARGET,
            &key,
            &RedactionRow { applied },
        );
    }

    /// Prunes events of somebody who was removed together with all they said (MSC4293), and tells those who
    /// keep an index of them.
    pub(super) fn prune_all(&mut self, pruning: &Pruning) {
        let member = StateEventType::RoomMember;
        let Some(because) = self.working.current(&member, &pruning.user).cloned() else {
            return;
        };
        if because.number != pruning.because {
            return;
        }
        for target in &pruning.targets {
            let target = self.working.events.get(target).cloned().flatten();
            let target = target.filter(|target| target.header.redacted_because.is_none());
            let Some(target) = target.filter(|target| self.prune(&because, target)) else {
                continue;
            };
            self.look_again(target.number, target.header.place);
            self.index = self.index.saturating_add(1);
        }
    }

    fn prune(&mut self, because: &StoredEvent, target: &Arc<StoredEvent>) -> bool {
        let room = &self.working.room;
        let Some(create) = self.working.current(&StateEventType::RoomCreate, "") else {
            return false;
        };
        let levels = self.working.current(&StateEventType::RoomPowerLevels, "");
        let levels = levels.map(|event| event.pdu.as_ref());
        let power = PowerLevels::new(room.rules, &create.pdu, levels);
        let Some(pruned) = pruned_by(room, because, target, &power) else {
            return false;
        };
        let pruned = Arc::new(pruned);
        let old = Mentions::of(&target.pdu);
        let short = self.short();
        self.batch.put(
            &schema::EVENT_BY_NUMBER,
            &(short, target.number),
            &pruned.row(),
        );
        // What was redacted before says nothing about itself any more.
        if let Some(place) = target.header.place
            && target.header.redacted_because.is_none()
        {
            let row = MentionRow {
                number: target.number,
                highlight: false,
                notify: old.counts(&target.header.event_type),
                thread: target.header.thread,
                redacted: true,
            };
            let key = (EVERYBODY, short, place);
            self.batch.put(&schema::MENTION_BY_USER_ROOM, &key, &row);
        }
        if let (Some(relation), Some(place)) = (old.relation, target.header.place) {
            let parent = self.storage.event_hash(&relation.parent);
            self.batch
                .delete(&schema::RELATION_BY_PARENT, &(short, parent, place));
            if relation.rel_type == "m.thread" && place.step == 0 {
                self.thread_without(target);
            }
        }
        for current in self.working.state.values_mut().flatten() {
            if current.number == pruned.number {
                *current = Arc::clone(&pruned);
            }
        }
        self.working
            .events
            .insert(pruned.pdu.event_id().to_owned(), Some(pruned));
        true
    }
}
