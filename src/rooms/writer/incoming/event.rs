//! The event that came in as it is going to be stored: its auth chain, its place, what redacts it.

use std::{collections::HashMap, sync::Arc};

use pdu::{AuthChain, PowerLevels};
use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType},
};
use storage::{
    NameHash, Range, Reads,
    schema::{self, EventHeader, Gap, Place, Sent},
};

use super::Judging;
use crate::{Room, Standing, StoredEvent, redact_all, writer::Way};

impl Judging<'_> {
    /// The auth chain of the event, and the hash of the set that names it.
    pub(super) async fn auth_chain(&self) -> error::Result<(NameHash, Arc<AuthChain>)> {
        let hash = self.auth_set();
        if hash == NameHash::NONE {
            return Ok((hash, Arc::default()));
        }
        if let Some((known, _)) = self.working.auth_sets.get(&hash) {
            return Ok((hash, Arc::clone(known)));
        }
        let sets = self.auth_events.iter().map(|event| event.header.chain);
        let sets = sets.filter(|set| *set != NameHash::NONE);
        let sets: Vec<_> = std::iter::once(hash).chain(sets).collect();
        let keys: Vec<_> = sets.iter().map(|set| (self.room.short, *set)).collect();
        let rows = self
            .snapshot
            .multi_get(&schema::CHAIN_BY_SET, &keys)
            .await?;
        let mut known = HashMap::from([(NameHash::NONE, AuthChain::default())]);
        for (set, row) in sets.into_iter().zip(rows) {
            if let Some(row) = row {
                let chain = AuthChain::from_bytes(&row.value.0).map_err(error::internal)?;
                known.insert(set, chain);
            }
        }
        if let Some(known) = known.remove(&hash) {
            return Ok((hash, Arc::new(known)));
        }
        let mut chains = Vec::new();
        for event in &self.auth_events {
            let chain = known.get(&event.header.chain);
            let chain = chain.ok_or_else(|| error::internal("a stored auth chain is missing"))?;
            chains.push((event.number, chain));
        }
        Ok((hash, Arc::new(AuthChain::of(chains))))
    }

    pub(super) fn own_event(
        &self,
        place: Option<Place>,
        visibility: schema::Visibility,
        replaced: Option<&Arc<StoredEvent>>,
        chain: NameHash,
    ) -> Arc<StoredEvent> {
        let pdu = Arc::clone(self.pdu());
        let header = EventHeader {
            event_id: pdu.event_id().to_string(),
            place,
            sender: pdu.sender().to_string(),
            event_type: pdu.event_type().to_string(),
            state_key: pdu.state_key().map(ToOwned::to_owned),
            origin_server_ts: pdu.origin_server_ts().get().into(),
            received_ts: self.rooms.now(),
            depth: pdu.depth(),
            content: pdu.content_span(),
            auth_events: self.auth_events.iter().map(|event| event.number).collect(),
            chain,
            replaces_state: replaced.map(|event| event.number),
            thread: None,
            visibility,
            sent: self.sent(),
            redacts: pdu.redacts().map(ToString::to_string),
            redacted_because: None,
        };
        Arc::new(StoredEvent {
            number: self.number(),
            header,
            pdu,
        })
    }

    /// The device of ours that sent the event, and its transaction; or that we tell the others.
    fn sent(&self) -> Option<Sent> {
        match self.way {
            Way::Ours(group) => group.drafts.first()?.sent.clone(),
            Way::HandedOver => Some(Sent::passed_on()),
            _ => None,
        }
    }

    /// What comes in late of somebody who was removed together with all they said is stored pruned (MSC4293).
    pub(super) fn pruned_if_removed(&self, own: Arc<StoredEvent>) -> Arc<StoredEvent> {
        let current = |kind, key| self.working.current(&kind, key);
        let member = current(StateEventType::RoomMember, &own.header.sender);
        let create = current(StateEventType::RoomCreate, "");
        let (Some(member), Some(create)) = (member, create) else {
            return own;
        };
        if !redact_all::is_asked_by(member) {
            return own;
        }
        let levels = current(StateEventType::RoomPowerLevels, "").map(|event| &*event.pdu);
        let power = PowerLevels::new(self.room.rules, &create.pdu, levels);
        pruned_by(self.room, member, &own, &power).map_or(own, Arc::new)
    }

    /// A redaction may come before its target, which is then stored pruned.
    pub(super) async fn pruned_if_redacted(
        &mut self,
        own: Arc<StoredEvent>,
        create: Option<&StoredEvent>,
        before: [u8; 16],
    ) -> error::Result<Arc<StoredEvent>> {
        let numbers = std::mem::take(&mut self.redactions);
        let Some(create) = create.filter(|_| !numbers.is_empty()) else {
            return Ok(own);
        };
        let levels = (StateEventType::RoomPowerLevels, String::new());
        let state = self.find(&[before], std::slice::from_ref(&levels)).await?;
        let levels = state.get(&(before, levels)).map(|event| &*event.pdu);
        let power = PowerLevels::new(self.room.rules, &create.pdu, levels);
        for redaction in self.room.stored_events(self.snapshot, &numbers).await? {
            if let Some(pruned) = pruned_by(self.room, &redaction, &own, &power) {
                return Ok(Arc::new(pruned));
            }
        }
        Ok(own)
    }

    /// The place that an event of history is to have, if it is free; else the next one before everything
    /// that was found before its slot.
    pub(super) async fn free_place(&self, wanted: Place) -> error::Result<Place> {
        let room = self.room.short;
        let lowest = Place {
            step: i32::MIN,
            ..wanted
        };
        let first = Range::prefix(&(room,))
            .from(&(room, lowest))
            .up_to(&(room, Place::live(wanted.slot)))
            .limit(1);
        let mut reads = Reads::new();
        let own = reads.get(&schema::EVENT_BY_PLACE, &(room, wanted));
        let first = reads.range(&schema::EVENT_BY_PLACE, &first);
        let answers = self.snapshot.read(&reads).await?;
        if answers.one(&own)?.is_none() && wanted.step < 0 {
            return Ok(wanted);
        }
        let first = answers.rows(&first)?.into_iter().next();
        let step = first.map_or(0, |((_, place), _)| place.step.min(0));
        Ok(Place {
            step: step.saturating_sub(1),
            ..wanted
        })
    }

    /// The holes in the timeline that change: one before the event, if it follows what is not here; and the
    /// one that it fills, from which it is missing no more.
    pub(super) async fn gaps(
        &self,
        place: Place,
        lacking: Vec<OwnedEventId>,
    ) -> error::Result<Vec<(Place, Option<Gap>)>> {
        let room = self.room.short;
        let mut gaps = Vec::new();
        let mut missing: Vec<_> = lacking.iter().map(ToString::to_string).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            gaps.push((place, Some(Gap { missing })));
        }
        if let Standing::Historic {
            fills: Some(at), ..
        } = self.incoming.standing
        {
            let keys = [(room, at)];
            let rows = self
                .snapshot
                .multi_get(&schema::GAP_BY_PLACE, &keys)
                .await?;
            if let Some(mut gap) = rows.into_iter().flatten().next().map(|row| row.value) {
                let own = self.pdu().event_id().as_str();
                gap.missing.retain(|id| id != own);
                let left = Some(gap).filter(|gap| !gap.missing.is_empty());
                gaps.push((at, left));
            }
        }
        Ok(gaps)
    }
}

/// The target of a redaction, or of the removal of its sender that asks for the same, without what it takes
/// away, if the redaction may.
pub(crate) fn pruned_by(
    room: &Room,
    redaction: &StoredEvent,
    target: &StoredEvent,
    power: &PowerLevels<'_>,
) -> Option<StoredEvent> {
    let is_create = *target.pdu.event_type() == TimelineEventType::RoomCreate;
    let applies = if redact_all::is_asked_by(redaction) {
        pdu::may_redact_others(redaction.pdu.sender(), power)
    } else {
        pdu::redaction_applies(&redaction.pdu, &target.pdu, room.rules, power)
    };
    if is_create || !applies.unwrap_or(false) {
        return None;
    }
    let pruned = target.pdu.redacted(room.rules).ok()?;
    let mut header = target.header.clone();
    header.content = pruned.content_span();
    header.redacts = pruned.redacts().map(ToString::to_string);
    header.redacted_because = Some(redaction.number);
    Some(StoredEvent {
        number: target.number,
        header,
        pdu: Arc::new(pruned),
    })
}
