//! The tables of rooms.

use pdu::EventNumber;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    NameHash, Position, Raw, ShortRoomId, ShortUserId, Stamped,
    key::{KeyError, KeyPart, KeyReader, KeyWriter},
    schema::{EventRow, Place, Visibility},
    table::tables,
    value::records,
};

/// Which of a room's sets of flat tables is in force; the head names it.
pub type Generation = u32;

tables! { ROOM_TABLES:
    /// The room that an id names. The room's writer writes it, once for each incarnation.
    20 ROOM_BY_NAME Point: NameHash => ShortRoomId;
    /// What never changes of a room.
    21 ROOM_BY_SHORT_ID Point: ShortRoomId => RoomRow;
    /// What changes with every event of a room, and is every event's precondition.
    22 HEAD_BY_ROOM Hot: ShortRoomId => Head;
    /// The events of a room whose auth events are all known.
    23 EVENT_BY_NUMBER Bulk: (ShortRoomId, EventNumber) => EventRow;
    /// Where the event with an id is.
    24 NUMBER_BY_EVENT Point: NameHash => EventRef;
    /// Events that have no number: their auth events are not all known, or we are not in the room.
    25 LOOSE_EVENT_BY_ID Bulk: (ShortRoomId, NameHash) => EventRow;
    /// The timeline: live events and history, in the order in which people see them.
    26 EVENT_BY_PLACE Range: (ShortRoomId, Place) => PlacedEvent;
    /// The timeline by what senders' servers say the time was; events of one time in the order of their places.
    133 EVENT_BY_TIME Range: (ShortRoomId, u64, Place) => EventNumber;
    /// What we think of an event, where it is not simply accepted and in the timeline.
    27 VERDICT_BY_EVENT Point: (ShortRoomId, EventNumber) => Verdict;
    /// The room's state before and after an event.
    28 ROOTS_BY_EVENT Point: (ShortRoomId, EventNumber) => EventRoots;
    /// The redactions of an event, which may come before it.
    29 REDACTION_BY_TARGET Range: (ShortRoomId, NameHash, EventNumber) => RedactionRow;
    /// Where the timeline lacks events, and which.
    30 GAP_BY_PLACE Range: (ShortRoomId, Place) => Gap;
    /// The room log: what each commit changed in a room.
    31 CHANGE_BY_ROOM_POSITION Log: (ShortRoomId, Position) => RoomChange;
    /// When a room last changed.
    32 TAIL_BY_ROOM Hot: ShortRoomId => Stamped<()>;
    /// Nodes of the state trees of a room.
    33 NODE_BY_HASH Bulk: (ShortRoomId, [u8; 16]) => Raw;
    /// Current state, by type and state key (hashes of 8 and 16 bytes).
    34 STATE_BY_ROOM Range: (ShortRoomId, Generation, [u8; 8], NameHash) => EventNumber;
    /// Current members, by membership and user.
    35 MEMBER_BY_ROOM Range: (ShortRoomId, Generation, u8, NameHash) => MemberRow;
    /// Servers that are in the room, with the number of their joined members.
    36 SERVER_BY_ROOM Range: (ShortRoomId, Generation, NameHash) => ServerRow;
    /// Everyone of a server who ever was a member (server, user), with their latest member event.
    37 MEMBER_BY_SERVER Range: (ShortRoomId, Generation, NameHash, NameHash) => EventNumber;
    /// Auth chains, by the hash of the set of auth events that they begin with: roaring bitmaps.
    38 CHAIN_BY_SET Bulk: (ShortRoomId, NameHash) => Raw;
    /// Events that relate to an event, in the order of their places.
    39 RELATION_BY_PARENT Range: (ShortRoomId, NameHash, Place) => RelationRow;
    /// Totals of a thread, by its root event.
    40 THREAD_BY_ROOT Point: (ShortRoomId, EventNumber) => ThreadRow;
    /// The roots of threads, by the places of the threads' latest events.
    47 THREAD_BY_PLACE Range: (ShortRoomId, Place) => EventNumber;
    /// Who has said something in a thread, or begun it (root, user).
    48 PARTICIPANT_BY_THREAD Point: (ShortRoomId, EventNumber, NameHash) => ();
    /// The latest receipt of a user (user, kind, thread).
    41 RECEIPT_BY_ROOM Range: (ShortRoomId, NameHash, u8, NameHash) => Stamped<ReceiptRow>;
    /// Receipts in the order in which we learned of them; those since replaced are skipped by readers.
    42 RECEIPT_BY_POSITION Log: (ShortRoomId, Position) => ReceiptRef;
    /// When a receipt of a room last changed.
    43 RECEIPT_TAIL_BY_ROOM Hot: ShortRoomId => Stamped<()>;
    /// The room that an alias names.
    44 ROOM_BY_ALIAS Point: NameHash => AliasRow;
    /// The local aliases of a room.
    45 ALIAS_BY_ROOM Range: (ShortRoomId, NameHash) => String;
    /// A local user's rooms, those they were only invited to and those they left too. Rooms write it.
    50 ROOM_BY_USER Range: (ShortUserId, ShortRoomId) => Stamped<UserRoomRow>;
    /// Where a local user has read to in a room: all of it, its main timeline, or the thread of a root.
    51 READ_BY_USER_ROOM Range: (ShortUserId, ShortRoomId, ReadScope) => ReadRow;
    /// Events that concern a local user more than the default rules count: mentions and the like.
    53 MENTION_BY_USER_ROOM Range: (ShortUserId, ShortRoomId, Place) => MentionRow;
    /// What a local user says about how they are, and when they last did something. Rooms write it.
    54 PRESENCE_BY_USER Hot: ShortUserId => PresenceRow;
}

/// What never changes of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRow {
    /// The room's id.
    pub room_id: String,
    /// Its version.
    pub version: String,
}

/// What changes with every event of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The room's version, so that no event needs another row for it.
    pub version: String,
    /// The forward extremities: accepted events that no accepted event follows.
    pub extremities: SmallVec<[Extremity; 1]>,
    /// The slot that the next live event takes.
    pub next_slot: u64,
    /// The number that the next event takes.
    pub next_number: EventNumber,
    /// The root of the current state.
    pub root: [u8; 16],
    /// Which flat tables are in force.
    pub generation: Generation,
    /// Running totals over the timeline.
    pub totals: Totals,
    /// How many people are joined.
    pub joined: u64,
    /// How many people are invited.
    pub invited: u64,
    /// `m.room.history_visibility` in force.
    pub visibility: Visibility,
    /// We do not know the full state yet (MSC3902).
    pub partial: bool,
}

/// A forward extremity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extremity {
    /// The event's number.
    pub number: EventNumber,
    /// The event's id.
    pub event_id: String,
    /// The event's depth.
    pub depth: u64,
}

/// Running totals over a timeline, so that an unread count is a subtraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Events that the default push rules count as notifications for everyone but their sender.
    pub notify: u64,
    /// Of these, the ones that belong to a thread.
    pub threaded: u64,
}

/// Where the event with an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// Its room.
    pub room: ShortRoomId,
    /// Its number there; none while it is loose.
    pub number: Option<EventNumber>,
}

/// An event in the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedEvent {
    /// The event.
    pub number: EventNumber,
    /// The room's totals, this event counted.
    pub totals: Totals,
    /// Whether it is a state event.
    pub state: bool,
    /// The root of the thread it belongs to, if any.
    pub thread: Option<EventNumber>,
    /// The root of the room's current state then, where that is not the state after the event: with several
    /// forward extremities.
    pub root: Option<[u8; 16]>,
}

/// How an event stands to the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Known as somebody's auth event or state only.
    Outlier,
    /// Found after what came later.
    Historic,
    /// Received or made as it happened.
    Live,
}

/// The outcome of the checks on an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It passed.
    Accepted,
    /// Allowed by the state before it, not by the current state: kept out of sight.
    SoftFailed,
    /// Not allowed.
    Rejected,
}

/// What we think of an event. No row: live and accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it stands to the timeline.
    pub standing: Standing,
    /// The outcome of the checks.
    pub outcome: Outcome,
    /// Judged by a state that was not complete (MSC3902): to be judged again.
    pub partial: bool,
    /// Why it was not accepted.
    pub reason: Option<String>,
}

/// The room's state around an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRoots {
    /// The state before it.
    pub before: [u8; 16],
    /// The state after it.
    pub after: [u8; 16],
}

/// A redaction of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedactionRow {
    /// Whether it was allowed to, and has pruned its target.
    pub applied: bool,
}

/// Events that the timeline lacks before a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The ids of the missing events that placed ones follow.
    pub missing: Vec<String>,
}

/// What one commit changed in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomChange {
    /// The event, if it was one that did it.
    pub number: Option<EventNumber>,
    /// Its place, if it has one.
    pub place: Option<Place>,
    /// Found later than it happened.
    pub historic: bool,
    /// The root of the current state after this.
    pub root: [u8; 16],
    /// The changed entries of the current state; none when they were too many: compare the roots.
    pub state: Option<Vec<StateChange>>,
    /// Who sent the event, if it is live and they were a member.
    pub speaker: Option<Speaker>,
}

/// The sender of an event, for who loads members lazily: so their member event can be read beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// The hash of the state key of their member event.
    pub user: NameHash,
    /// That event.
    pub member: EventNumber,
    /// The one that it replaced.
    pub replaced: Option<EventNumber>,
}

/// One entry of the current state that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The event's type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
    /// The event that was there.
    pub before: Option<EventNumber>,
    /// The event that is there now.
    pub after: Option<EventNumber>,
}

/// A person's membership of a room, as a byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Membership {
    /// `join`
    Join = 1,
    /// `invite`
    Invite = 2,
    /// `knock`
    Knock = 3,
    /// `leave`
    Leave = 4,
    /// `ban`
    Ban = 5,
}

impl Membership {
    /// Its name in `m.room.member`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }
}

/// A member of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The member event.
    pub number: EventNumber,
    /// The user's id.
    pub user_id: String,
    /// Their display name here.
    pub displayname: Option<String>,
    /// Their avatar here.
    pub avatar_url: Option<String>,
}

/// A server that is in a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRow {
    /// Its name.
    pub name: String,
    /// How many of its people are joined.
    pub joined: u64,
}

/// An event that relates to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRow {
    /// The relating event.
    pub number: EventNumber,
    /// `rel_type`
    pub rel_type: String,
    /// Its type.
    pub event_type: String,
    /// Its sender.
    pub sender: String,
    /// The key of an annotation.
    pub key: Option<String>,
}

/// Totals of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// How many events it has, without its root.
    pub count: u64,
    /// How many of them the default rules count.
    pub notify: u64,
    /// Its latest event.
    pub latest: EventNumber,
    /// The place of its latest event.
    pub latest_place: Place,
}

/// Where somebody's receipt stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRow {
    /// Whose.
    pub user_id: String,
    /// At which event.
    pub event_id: String,
    /// The place of that event, if we have it.
    pub place: Option<Place>,
    /// `main`, or the id of a thread's root; none for an unthreaded receipt.
    pub thread: Option<String>,
    /// When it was sent, in milliseconds since 1970.
    pub ts: u64,
}

/// What kind of receipt, as a byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ReceiptKind {
    /// `m.read`
    Read = 1,
    /// `m.read.private`
    ReadPrivate = 2,
}

/// A receipt of the room, by its key in `RECEIPT_BY_ROOM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRef {
    /// Whose.
    pub user: NameHash,
    /// What kind.
    pub kind: ReceiptKind,
    /// The hash of its thread.
    pub thread: NameHash,
}

/// The room that an alias names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRow {
    /// The alias.
    pub alias: String,
    /// The room's id.
    pub room_id: String,
    /// Who made it.
    pub creator: String,
}

/// A local user's relation to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRoomRow {
    /// Their membership.
    pub membership: Membership,
    /// Their member event, if we are in the room.
    pub number: Option<EventNumber>,
    /// Who sent it.
    pub sender: String,
    /// The place of the member event.
    pub place: Option<Place>,
    /// For an invite or a knock: the stripped state events, each as JSON.
    pub stripped_state: Vec<String>,
    /// They have asked not to see it any more.
    pub forgotten: bool,
}

/// What of a room is read up to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReadScope {
    /// Everything, threads too.
    Room,
    /// What belongs to no thread.
    Main,
    /// The thread of this root.
    Thread(EventNumber),
}

impl KeyPart for ReadScope {
    fn write(&self, to: &mut KeyWriter) {
        let (kind, root): (u8, u32) = match self {
            Self::Room => (0, 0),
            Self::Main => (1, 0),
            Self::Thread(root) => (2, root.0),
        };
        KeyPart::write(&kind, to);
        KeyPart::write(&root, to);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        let kind: u8 = KeyPart::read(from)?;
        let root: u32 = KeyPart::read(from)?;
        Ok(match kind {
            0 => Self::Room,
            1 => Self::Main,
            _ => Self::Thread(EventNumber(root)),
        })
    }
}

/// Where a local user has read to: by a receipt, by joining, or by sending something themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRow {
    /// The place that is read, and everything before it.
    pub place: Place,
    /// The room's totals there.
    pub totals: Totals,
}

/// Why an event concerns somebody more than the default rules count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MentionRow {
    /// The event.
    pub number: EventNumber,
    /// Whether it highlights.
    pub highlight: bool,
    /// Whether it notifies beyond what the totals count already.
    pub notify: bool,
    /// The thread it belongs to.
    pub thread: Option<EventNumber>,
    /// It was redacted since: nobody is notified of it any more, in whatever other row it is, and if
    /// `notify` the totals count it all the same.
    pub redacted: bool,
}

/// What of somebody's presence outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRow {
    /// What they say about how they are.
    pub status_msg: Option<String>,
    /// When they last did something, in milliseconds since 1970; 0 if that is not known.
    pub active_ts: u64,
}

records!(
    RoomRow,
    Head,
    EventRef,
    PlacedEvent,
    Verdict,
    EventRoots,
    RedactionRow,
    Gap,
    RoomChange,
    MemberRow,
    ServerRow,
    RelationRow,
    ThreadRow,
    ReceiptRow,
    ReceiptRef,
    AliasRow,
    UserRoomRow,
    ReadRow,
    MentionRow,
    PresenceRow,
);
