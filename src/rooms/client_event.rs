//! Events as clients get them, written from header and span without parsing ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-event-format

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use pdu::{EventNumber, canonical};
use serde_json::value::RawValue;
use storage::{
    Reads, Snapshot, Storage,
    schema::{EventHeader, EventRow, Membership},
};

use crate::{Look, ReadEvent, Room, Rooms, Viewer, delayed, read::content_of, relations::Bundle};

/// How events are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventForm {
    /// In which format.
    pub format: EventFormat,
    /// As the timeline shows them: with what relates to them (`m.relations` of `unsigned`), and without what
    /// was [erased](crate::erased).
    pub timeline: bool,
}

impl From<EventFormat> for EventForm {
    /// As the state shows them.
    fn from(format: EventFormat) -> Self {
        Self {
            format,
            timeline: false,
        }
    }
}

/// In which format events are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFormat {
    /// `ClientEvent`, with `room_id`.
    #[default]
    Client,
    /// Without `room_id`: for answers that name the room once.
    WithoutRoomId,
    /// As servers exchange it, with `unsigned` (`event_format: federation` in filters).
    Federation,
}

impl Room {
    /// Events as clients get them, in their order. One round trip for what some of them replaced or were
    /// redacted by, and the state tree where the viewer's membership at an event is not the current one.
    pub async fn client_events(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[ReadEvent],
        form: EventForm,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let all: Vec<_> = events.iter().collect();
        let memberships = self.memberships_after(snapshot, viewer, look, &all);
        let memberships: Vec<_> = memberships.await?.into_iter().map(Some).collect();
        let writing = Writing {
            events,
            memberships,
            form,
        };
        self.write_events(rooms, snapshot, viewer, look, writing)
            .await
    }

    /// State events as clients get them beside a timeline: as [`Room::client_events`], but for the viewer's
    /// membership then, which is left out where only the state tree could tell it.
    pub async fn client_state(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[ReadEvent],
        format: EventFormat,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let known = events.iter().map(|event| look.known_after(viewer, event));
        let writing = Writing {
            events,
            memberships: known.collect(),
            form: format.into(),
        };
        self.write_events(rooms, snapshot, viewer, look, writing)
            .await
    }

    async fn write_events(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        writing: Writing<'_>,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let Writing {
            events,
            memberships,
            form,
        } = writing;
        let named = events.iter().flat_map(|event| {
            let header = &event.row.header;
            [header.replaces_state, header.redacted_because]
        });
        let named: BTreeSet<_> = named.flatten().collect();
        let named: Vec<_> = named.into_iter().collect();
        let mut reads = Reads::new();
        let named = self.ask_state(&mut reads, &named);
        let related = form
            .timeline
            .then(|| self.ask_related(rooms, &mut reads, viewer, events));
        let mut bundles = HashMap::new();
        let mut read = Vec::new();
        if !reads.is_empty() {
            let answers = snapshot.read(&reads).await?;
            read = named.state(&answers)?;
            if let Some(related) = related {
                let related = related.answer(&answers)?;
                bundles = self
                    .bundles(snapshot, viewer, look, events, related)
                    .await?;
            }
        }
        let others: HashMap<_, _> = read
            .into_iter()
            .flatten()
            .map(|event| (event.number, event))
            .collect();
        let erased = if form.timeline {
            let told = events.iter().zip(memberships.iter().copied());
            let beside = bundles
                .values()
                .flat_map(Bundle::events)
                .chain(others.values());
            let beside = beside.map(|event| (event, look.known_after(viewer, event)));
            self.erased(rooms, snapshot, viewer, told.chain(beside))
                .await?
        } else {
            HashMap::new()
        };
        let hidden = self
            .hidden_before(snapshot, viewer, look, events, &memberships, &others)
            .await?;
        let writer = Writer {
            storage: rooms.storage(),
            room: self,
            viewer,
            others: &others,
            hidden: &hidden,
            erased: &erased,
            bundles: &bundles,
            now: rooms.now(),
            format: form.format,
        };
        let all = events.iter().zip(memberships);
        // One buffer for all: each text is then allocated in its size.
        let mut json = String::new();
        all.map(|(event, membership)| {
            json.clear();
            writer.write(&mut json, event, membership)?;
            RawValue::from_string(json.as_str().to_owned()).map_err(error::internal)
        })
        .collect()
    }

    /// Of the events that some state events replaced, those that the viewer may not see. Who was in the
    /// room when they were replaced may, since they were part of its state until then; of others the
    /// history visibility decides.
    async fn hidden_before(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[ReadEvent],
        memberships: &[MembershipThen],
        others: &HashMap<EventNumber, ReadEvent>,
    ) -> error::Result<BTreeSet<EventNumber>> {
        let replaced: Vec<ReadEvent> = events
            .iter()
            .zip(memberships)
            .filter(|(event, membership)| {
                **membership != Some(Some(Membership::Join))
                    && !event.is_member_event_of(&viewer.user_id)
            })
            .filter_map(|(event, _)| others.get(&event.row.header.replaces_state?).cloned())
            .collect();
        if replaced.is_empty() {
            return Ok(BTreeSet::new());
        }
        let visible = self.visible(snapshot, viewer, look, &replaced).await?;
        let all = replaced.iter().zip(visible);
        Ok(all
            .filter(|(_, visible)| !visible)
            .map(|(event, _)| event.number)
            .collect())
    }
}

/// The viewer's membership after an event, if it is known: none, or which.
pub(crate) type MembershipThen = Option<Option<Membership>>;

/// What is to be written.
struct Writing<'a> {
    events: &'a [ReadEvent],
    memberships: Vec<MembershipThen>,
    form: EventForm,
}

struct Writer<'a> {
    storage: &'a Storage,
    room: &'a Room,
    viewer: &'a Viewer,
    /// The events that those to be written name.
    others: &'a HashMap<EventNumber, ReadEvent>,
    /// Those of the others whose content the viewer may not see.
    hidden: &'a BTreeSet<EventNumber>,
    /// Redacted copies, to be told in the place of these events.
    erased: &'a HashMap<EventNumber, ReadEvent>,
    /// What relates to the events.
    bundles: &'a HashMap<EventNumber, Bundle>,
    now: u64,
    format: EventFormat,
}

impl Writer<'_> {
    fn write(
        &self,
        json: &mut String,
        event: &ReadEvent,
        membership: MembershipThen,
    ) -> error::Result<()> {
        let event = self.erased.get(&event.number).unwrap_or(event);
        self.event(json, &event.row)?;
        json.push_str(",\"unsigned\":{");
        self.unsigned(json, &event.row.header)?;
        self.replaced(json, &event.row.header)?;
        self.redaction(json, &event.row.header)?;
        if let Some(bundle) = self.bundles.get(&event.number) {
            self.bundle(json, bundle)?;
        }
        if let Some(membership) = membership {
            let membership = membership.map_or("leave", Membership::as_str);
            let _ = write!(json, ",\"membership\":\"{membership}\"");
        }
        json.push_str("}}");
        Ok(())
    }

    /// The event without `unsigned`, and without the brace at its end.
    fn event(&self, json: &mut String, row: &EventRow) -> error::Result<()> {
        match self.format {
            EventFormat::Federation => self.federation_form(json, row),
            EventFormat::Client | EventFormat::WithoutRoomId => self.client_form(json, row),
        }
    }

    fn client_form(&self, json: &mut String, row: &EventRow) -> error::Result<()> {
        let header = &row.header;
        json.push_str("{\"type\":");
        quote(json, &header.event_type)?;
        json.push_str(",\"event_id\":");
        quote(json, &header.event_id)?;
        json.push_str(",\"sender\":");
        quote(json, &header.sender)?;
        if self.format == EventFormat::Client {
            json.push_str(",\"room_id\":");
            quote(json, self.room.room_id.as_str())?;
        }
        let _ = write!(json, ",\"origin_server_ts\":{}", header.origin_server_ts);
        if let Some(state_key) = &header.state_key {
            json.push_str(",\"state_key\":");
            quote(json, state_key)?;
        }
        if let Some(redacts) = &header.redacts {
            json.push_str(",\"redacts\":");
            quote(json, redacts)?;
        }
        json.push_str(",\"content\":");
        match &header.redacts {
            Some(redacts) => content_with_redacts(json, row, redacts),
            None => text(json, content_of(row)),
        }
    }

    /// The event as it lies, with the id that servers make of it themselves.
    fn federation_form(&self, json: &mut String, row: &EventRow) -> error::Result<()> {
        let open = row.json.strip_suffix(b"}").unwrap_or_default();
        text(json, open)?;
        if !self.room.rules.has_event_id_field() {
            json.push_str(",\"event_id\":");
            quote(json, &row.header.event_id)?;
        }
        Ok(())
    }

    /// What `unsigned` says of every event, and of one inside another too.
    fn unsigned(&self, json: &mut String, header: &EventHeader) -> error::Result<()> {
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let age = signed(self.now).saturating_sub(signed(header.origin_server_ts));
        let _ = write!(json, "\"age\":{age}");
        if let Some(sent) = &header.sent
            && sent.device == self.viewer.device
        {
            json.push_str(",\"transaction_id\":");
            quote(json, &sent.transaction_id)?;
        }
        if let Some(delay_id) = delayed::delay_id(self.storage, self.viewer, header) {
            json.push_str(",\"org.matrix.msc4140.delay_id\":");
            quote(json, delay_id)?;
        }
        Ok(())
    }

    /// The state event that this one took the place of.
    fn replaced(&self, json: &mut String, header: &EventHeader) -> error::Result<()> {
        let before = header
            .replaces_state
            .and_then(|number| self.others.get(&number));
        let Some(before) = before else { return Ok(()) };
        let before = self.erased.get(&before.number).unwrap_or(before);
        json.push_str(",\"replaces_state\":");
        quote(json, &before.row.header.event_id)?;
        if !self.hidden.contains(&before.number) {
            json.push_str(",\"prev_content\":");
            text(json, before.content())?;
            // NOTSPEC: clients look there for who invited somebody before they joined, as Synapse tells.
            json.push_str(",\"prev_sender\":");
            quote(json, &before.row.header.sender)?;
        }
        Ok(())
    }

    /// What relates to the event.
    fn bundle(&self, json: &mut String, bundle: &Bundle) -> error::Result<()> {
        json.push_str(",\"m.relations\":{");
        let mut separator = "";
        if let Some(edit) = &bundle.edit {
            json.push_str("\"m.replace\":");
            self.inner(json, edit)?;
            separator = ",";
        }
        if let Some(thread) = &bundle.thread {
            let _ = write!(json, "{separator}\"m.thread\":{{\"latest_event\":");
            self.inner(json, &thread.latest)?;
            let (count, participated) = (thread.count, thread.participated);
            let _ = write!(
                json,
                ",\"count\":{count},\"current_user_participated\":{participated}}}"
            );
            separator = ",";
        }
        if !bundle.references.is_empty() {
            let _ = write!(json, "{separator}\"m.reference\":{{\"chunk\":[");
            for (index, event_id) in bundle.references.iter().enumerate() {
                json.push_str(if index == 0 {
                    "{\"event_id\":"
                } else {
                    ",{\"event_id\":"
                });
                quote(json, event_id)?;
                json.push('}');
            }
            json.push_str("]}");
        }
        json.push('}');
        Ok(())
    }

    /// An event inside another one.
    fn inner(&self, json: &mut String, event: &ReadEvent) -> error::Result<()> {
        let event = self.erased.get(&event.number).unwrap_or(event);
        self.event(json, &event.row)?;
        json.push_str(",\"unsigned\":{");
        self.unsigned(json, &event.row.header)?;
        json.push_str("}}");
        Ok(())
    }

    /// The redaction that pruned this event.
    fn redaction(&self, json: &mut String, header: &EventHeader) -> error::Result<()> {
        let because = header
            .redacted_because
            .and_then(|number| self.others.get(&number));
        let Some(because) = because else {
            return Ok(());
        };
        json.push_str(",\"redacted_because\":");
        self.inner(json, because)
    }
}

/// A redaction names its target in its content since version 11, before that beside it; clients get both.
fn content_with_redacts(json: &mut String, row: &EventRow, redacts: &str) -> error::Result<()> {
    let content = content_of(row);
    match canonical::member(content, "redacts") {
        Some(named) if canonical::string(named).as_deref() == Some(redacts) => text(json, content),
        None => {
            json.push_str("{\"redacts\":");
            quote(json, redacts)?;
            let rest = content.strip_prefix(b"{").unwrap_or(b"}");
            if rest != b"}" {
                json.push(',');
            }
            text(json, rest)
        }
        // What stands there under the old versions binds nobody.
        Some(_) => {
            let mut members: BTreeMap<String, &RawValue> =
                serde_json::from_slice(content).map_err(error::internal)?;
            let quoted = serde_json::value::to_raw_value(redacts).map_err(error::internal)?;
            members.insert("redacts".to_owned(), &quoted);
            let written = serde_json::to_string(&members).map_err(error::internal)?;
            json.push_str(&written);
            Ok(())
        }
    }
}

/// A string of JSON; hardly any of those that are written here holds what has to be escaped.
fn quote(json: &mut String, text: &str) -> error::Result<()> {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::to_string(text).map_err(error::internal)?);
    }
    Ok(())
}

fn text(json: &mut String, bytes: &[u8]) -> error::Result<()> {
    json.push_str(std::str::from_utf8(bytes).map_err(error::internal)?);
    Ok(())
}
