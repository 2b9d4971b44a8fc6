//! Counting: by subtraction, by rows of mentions, event by event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pdu::EventNumber;
use ruma::{
    EventId, OwnedEventId,
    push::{PushConditionRoomCtx, Ruleset},
};
use storage::{
    Answers, Found, Range, Reads, ShortRoomId, ShortUserId, Slot, Snapshot,
    schema::{self, EventRow, MentionRow, Place, PlacedEvent, ReadRow, ReadScope, Totals},
};

use super::{
    Asked, Count, CountingRules, Mode, RulesId, UNREAD_SCAN, Unread,
    context::{AskedContext, FoundContext},
    rules::effect_of,
};
use crate::{Room, Rooms, Viewer, accept::EVERYBODY};

/// So many mentions of a room count, at most: the latest.
const MENTIONS_MAX: usize = 1_000;

/// Up to where somebody has read in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    room: ReadRow,
    scopes: BTreeMap<ReadScope, ReadRow>,
}

impl Read {
    /// None if they never joined.
    pub(super) fn new(mut scopes: BTreeMap<ReadScope, ReadRow>) -> Option<Self> {
        let room = scopes.remove(&ReadScope::Room)?;
        // What lies before the end of the whole room's read part says nothing any more.
        scopes.retain(|_, row| row.place > room.place);
        Some(Self { room, scopes })
    }

    /// Up to where a thread is read, or the main timeline.
    pub(super) fn of(&self, thread: Option<EventNumber>) -> &ReadRow {
        let scope = thread.map_or(ReadScope::Main, ReadScope::Thread);
        self.scopes.get(&scope).unwrap_or(&self.room)
    }
}

/// What was counted by looking at events, and up to where.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    read: Read,
    rules: RulesId,
    mode: Mode,
    through: Place,
    /// The room's next slot when this was begun: what was redacted before was not counted.
    began: u64,
    /// The room's totals there.
    totals: Totals,
    counts: BTreeMap<Option<EventNumber>, Count>,
    roots: HashMap<EventNumber, OwnedEventId>,
}

impl Asked {
    /// Whether anything can be unread.
    fn is_behind(&self) -> bool {
        let latest = Place::live(self.head.next_slot.saturating_sub(1));
        self.mode != Mode::Muted && self.read.room.place < latest
    }

    /// Whether events have to be looked at: to tell threads apart, or by rules of one's own.
    fn looks(&self) -> bool {
        match self.mode {
            Mode::Scan => true,
            Mode::Totals => self.head.totals.threaded > self.read.room.totals.threaded,
            Mode::Muted | Mode::Mentions => false,
        }
    }

    /// Where to begin: with what was counted before, if it still holds.
    fn tally(&self, known: Option<Arc<Tally>>) -> Tally {
        if let Some(known) = known
            && known.read == self.read
            && (known.rules, known.mode) == (self.rules, self.mode)
            && known.through.slot < self.head.next_slot
        {
            return Arc::unwrap_or_clone(known);
        }
        Tally {
            read: self.read.clone(),
            rules: self.rules,
            mode: self.mode,
            through: self.read.room.place,
            began: self.head.next_slot,
            totals: self.read.room.totals,
            counts: BTreeMap::new(),
            roots: HashMap::new(),
        }
    }
}

type ListSlot<V> = Slot<Vec<Option<Found<V>>>>;
type RangeSlot<K, V> = Slot<Vec<(K, Found<V>)>>;
type MentionSlot = RangeSlot<(ShortUserId, ShortRoomId, Place), MentionRow>;

/// Where the second round trip's answers for a room are found.
struct Second {
    mentions: Option<[MentionSlot; 2]>,
    looked: Option<Looked>,
}

struct Looked {
    tally: Tally,
    placed: RangeSlot<(ShortRoomId, Place), PlacedEvent>,
    context: Option<AskedContext>,
}

/// What is known of a room after the second round trip, and where the third one's answers are found.
struct Third {
    mentions: BTreeMap<Place, MentionRow>,
    tally: Option<Tally>,
    placed: Vec<(Place, PlacedEvent)>,
    whole: bool,
    /// The count cannot go on from the one before.
    void: bool,
    context: Option<FoundContext>,
    events: ListSlot<EventRow>,
    /// The ids of roots of threads that are known.
    roots: HashMap<EventNumber, OwnedEventId>,
    new_roots: (Vec<EventNumber>, ListSlot<EventRow>),
}

impl Rooms {
    /// Counts, and tells in which rooms there was more to look at than is done in one go.
    pub(super) async fn count(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rules: &CountingRules,
        asked: &[Option<Asked>],
    ) -> error::Result<(Vec<Unread>, Vec<Arc<Room>>)> {
        let mut reads = Reads::new();
        let second: Vec<_> = asked
            .iter()
            .map(|asked| {
                let asked = asked.as_ref().filter(|asked| asked.is_behind())?;
                Some(self.ask_second(&mut reads, viewer, asked))
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut reads = Reads::new();
        let mut third = Vec::new();
        for (asked, second) in asked.iter().zip(second) {
            third.push(match (asked, second) {
                (Some(asked), Some(second)) => Some(third_of(&mut reads, &answers, asked, second)?),
                _ => None,
            });
        }
        let answers = snapshot.read(&reads).await?;
        let defaults = users::default_rules(&viewer.user_id);
        let (mut unread, mut behind) = (Vec::new(), Vec::new());
        for (asked, third) in asked.iter().zip(third) {
            let (Some(asked), Some(mut third)) = (asked, third) else {
                unread.push(Unread::default());
                continue;
            };
            let rows = answers.all(&third.events)?;
            third.take_roots(&answers)?;
            if let Some(context) = third.context.take() {
                let context = context.context(viewer, asked, &answers)?;
                third
                    .apply(rules, &defaults, rows, viewer, &context)
                    .await?;
            } else {
                third.tell_threads_apart();
            }
            if !third.whole && !third.void {
                behind.push(Arc::clone(&asked.room));
            }
            let key = (viewer.short, asked.room.short);
            if third.void {
                self.counts().tallies.remove(&key);
                let anew = [Some(asked.clone())];
                let counted = Box::pin(self.count(snapshot, viewer, rules, &anew));
                let (counted, more) = counted.await?;
                unread.extend(counted);
                behind.extend(more);
                continue;
            }
            unread.push(third.unread(asked));
            if let Some(mut tally) = third.tally.take() {
                tally.roots = third.roots;
                self.counts().tallies.insert(key, Arc::new(tally));
            }
        }
        Ok((unread, behind))
    }

    /// Reads ahead what the second round trip will ask of a room where the last count still holds, as that of
    /// who polls on does.
    pub(super) fn read_second_ahead(&self, snapshot: &Snapshot, viewer: &Viewer, room: &Room) {
        let key = (viewer.short, room.short);
        let Some(tally) = self.counts().tallies.get(&key) else {
            return;
        };
        let mut reads = Reads::new();
        if tally.mode != Mode::Scan {
            ask_mentions(&mut reads, viewer, room.short, &tally.read);
        }
        ask_placed(&mut reads, room.short, tally.through);
        snapshot.read_ahead(&reads);
    }

    fn ask_second(&self, reads: &mut Reads, viewer: &Viewer, asked: &Asked) -> Second {
        let short = asked.room.short;
        let mentions =
            (asked.mode != Mode::Scan).then(|| ask_mentions(reads, viewer, short, &asked.read));
        let looked = asked.looks().then(|| {
            let known = self.counts().tallies.get(&(viewer.short, short));
            let tally = asked.tally(known);
            let placed = ask_placed(reads, short, tally.through);
            let scans = asked.mode == Mode::Scan;
            let context = scans.then(|| AskedContext::ask(self, reads, viewer, asked));
            Looked {
                tally,
                placed,
                context,
            }
        });
        Second { mentions, looked }
    }
}

fn ask_mentions(
    reads: &mut Reads,
    viewer: &Viewer,
    room: ShortRoomId,
    read: &Read,
) -> [MentionSlot; 2] {
    [viewer.short, EVERYBODY].map(|who| {
        let range = Range::prefix(&(who, room))
            .after(&(who, room, read.room.place))
            .reverse()
            .limit(MENTIONS_MAX);
        reads.range(&schema::MENTION_BY_USER_ROOM, &range)
    })
}

fn ask_placed(
    reads: &mut Reads,
    room: ShortRoomId,
    through: Place,
) -> RangeSlot<(ShortRoomId, Place), PlacedEvent> {
    let range = Range::prefix(&(room,))
        .after(&(room, through))
        .limit(UNREAD_SCAN);
    reads.range(&schema::EVENT_BY_PLACE, &range)
}

/// Takes the second round trip's answers for a room and asks for the third's: the events to be judged,
/// the roots of the threads met, the state by which is judged.
fn third_of(
    reads: &mut Reads,
    answers: &Answers,
    asked: &Asked,
    second: Second,
) -> error::Result<Third> {
    let short = asked.room.short;
    let mut mentions = BTreeMap::new();
    for slot in second.mentions.iter().flatten() {
        for ((_, _, place), row) in answers.rows(slot)? {
            // Who is mentioned by name and with everybody is mentioned once. That an event was redacted
            // stands with what everybody is told, which comes last.
            mentions.insert(place, row.value);
        }
    }
    mentions.retain(|place, row: &mut MentionRow| asked.read.of(row.thread).place < *place);
    let (mut tally, mut placed, mut whole) = (None, Vec::new(), true);
    let mut context = None;
    if let Some(looked) = second.looked {
        let rows = answers.rows(&looked.placed)?;
        whole = rows.len() < UNREAD_SCAN;
        placed.extend(rows.into_iter().map(|((_, place), row)| (place, row.value)));
        tally = Some(looked.tally);
        if let Some(asked) = looked.context {
            context = Some(asked.answered(reads, answers, short)?);
        }
    }
    let judged: Vec<_> = placed
        .iter()
        .filter(|_| asked.mode == Mode::Scan)
        .map(|(_, placed)| (short, placed.number))
        .collect();
    let known = tally.as_mut().map(|tally| std::mem::take(&mut tally.roots));
    let known = known.unwrap_or_default();
    let threads = placed.iter().filter_map(|(_, placed)| placed.thread);
    let threads = threads.chain(mentions.values().filter_map(|row| row.thread));
    let new: BTreeSet<_> = threads.filter(|root| !known.contains_key(root)).collect();
    let new: Vec<_> = new.into_iter().collect();
    let root_keys: Vec<_> = new.iter().map(|root| (short, *root)).collect();
    Ok(Third {
        mentions,
        tally,
        placed,
        whole,
        void: false,
        context,
        events: reads.get_all(&schema::EVENT_BY_NUMBER, &judged),
        roots: known,
        new_roots: (new, reads.get_all(&schema::EVENT_BY_NUMBER, &root_keys)),
    })
}

impl Third {
    /// The ids of the roots of threads.
    fn take_roots(&mut self, answers: &Answers) -> error::Result<()> {
        let (numbers, slot) = &self.new_roots;
        for (number, row) in numbers.iter().zip(answers.all(slot)?) {
            if let Some(row) = row {
                let id = EventId::parse(&row.value.header.event_id).map_err(error::internal)?;
                self.roots.insert(*number, id);
            }
        }
        Ok(())
    }

    /// Adds what came since the last count to the threads it belongs to.
    fn tell_threads_apart(&mut self) {
        let Some(tally) = &mut self.tally else { return };
        for (place, placed) in &self.placed {
            // History that was found later is not new, and has no part in the totals.
            if place.step == 0 {
                let counted = placed.totals.threaded > tally.totals.threaded;
                if counted && tally.read.of(placed.thread).place < *place {
                    tally.counts.entry(placed.thread).or_default().notifications += 1;
                }
                tally.totals = placed.totals;
            }
            tally.through = *place;
        }
    }

    /// Judges what came since the last count by rules of the user's own.
    async fn apply(
        &mut self,
        rules: &CountingRules,
        defaults: &Ruleset,
        rows: Vec<Option<Found<EventRow>>>,
        viewer: &Viewer,
        context: &PushConditionRoomCtx,
    ) -> error::Result<()> {
        let Some(tally) = &mut self.tally else {
            return Ok(());
        };
        for ((place, placed), row) in self.placed.iter().zip(rows) {
            tally.through = *place;
            tally.totals = placed.totals;
            let Some(row) = row.map(|row| row.value) else {
                continue;
            };
            let sender = row.header.sender.as_str();
            let read = tally.read.of(placed.thread).place >= *place;
            if row.header.event_type == "m.room.redaction" && place.slot >= tally.began {
                // What it redacts may be counted already.
                self.void = true;
                return Ok(());
            }
            let redacted = row.header.redacted_because.is_some();
            if read || redacted || place.step != 0 || sender == viewer.user_id {
                continue;
            }
            let actions = rules.actions(defaults, &row, context).await?;
            let (notify, highlight) = effect_of(actions);
            let count = Count {
                notifications: notify.into(),
                highlights: highlight.into(),
            };
            tally.counts.entry(placed.thread).or_default().add(count);
        }
        Ok(())
    }

    /// All in all.
    fn unread(&self, asked: &Asked) -> Unread {
        let mut counts = match &self.tally {
            Some(tally) => tally.counts.clone(),
            None => BTreeMap::new(),
        };
        if asked.mode == Mode::Totals {
            let outside = |totals: &Totals| totals.notify.saturating_sub(totals.threaded);
            let read = outside(&asked.read.of(None).totals);
            let main = counts.entry(None).or_default();
            main.notifications = outside(&asked.head.totals).saturating_sub(read);
        }
        for mention in self.mentions.values() {
            if mention.redacted {
                let count = counts.entry(mention.thread).or_default();
                let counted = mention.notify && asked.mode == Mode::Totals;
                let less = count.notifications.saturating_sub(counted.into());
                count.notifications = less;
                continue;
            }
            let notify = mention.notify || asked.mode == Mode::Mentions;
            counts.entry(mention.thread).or_default().add(Count {
                notifications: notify.into(),
                highlights: mention.highlight.into(),
            });
        }
        let mut unread = Unread {
            main: counts.remove(&None).unwrap_or_default(),
            threads: BTreeMap::new(),
        };
        for (thread, count) in counts {
            let root = thread.and_then(|thread| self.roots.get(&thread));
            if let Some(root) = root
                && count != Count::default()
            {
                unread.threads.insert(root.clone(), count);
            }
        }
        unread
    }
}
