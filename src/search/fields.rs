//! What the index holds: documents of messages, of members of rooms, and one of each room whose members are
//! in it. They are made of keys and folded words only; what is shown is read from storage.

use pdu::EventNumber;
use storage::{NameHash, ShortRoomId, schema::Place};
use tantivy::{
    TantivyDocument, Term,
    schema::{
        BytesOptions, Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing,
        TextOptions,
    },
    tokenizer::{PreTokenizedString, Token},
};

use crate::words::words;

/// The form of the index. One of another form is thrown away and built anew.
pub(crate) const FORMAT: u32 = 1;

/// Stands among the rooms of a member for everybody: the room is public, or its history readable by all.
pub(crate) const EVERYBODY: ShortRoomId = ShortRoomId::NONE;

/// The fields of documents.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) schema: Schema,
    /// By what a document is removed: [`message_key`], [`member_key`] or [`listing_key`].
    pub(crate) key: Field,
    /// Of an edited message: the [`message_key`] of the edit.
    pub(crate) edit: Field,
    /// The room.
    pub(crate) room: Field,
    /// The hash of the sender of a message.
    pub(crate) sender: Field,
    /// Which key of the content was searched: [`Kind`].
    pub(crate) kind: Field,
    /// 1 if the message has a URL, otherwise 0.
    pub(crate) url: Field,
    /// What a message says.
    pub(crate) text: Field,
    /// When it was sent, but not later than it came, in milliseconds since 1970; [`Message::place`].
    time: Field,
    slot: Field,
    step: Field,
    /// The message, and the event that says what is indexed of it: itself, or its latest edit.
    number: Field,
    said: Field,
    /// 1 if all who are in the room may see it, whenever they came; 0 if that has to be found out.
    shared: Field,
    /// Of a member: the room, and [`EVERYBODY`].
    pub(crate) scope: Field,
    /// The words of the member's display name and the local part of their id.
    pub(crate) name: Field,
    /// The words of their server's name.
    pub(crate) server: Field,
    /// The hash of the user's id, in two halves.
    person_high: Field,
    person_low: Field,
}

/// Names of the columns that are read for each hit.
pub(crate) mod columns {
    pub(crate) const ROOM: &str = "room";
    pub(crate) const TIME: &str = "time";
    pub(crate) const SLOT: &str = "slot";
    pub(crate) const STEP: &str = "step";
    pub(crate) const NUMBER: &str = "number";
    pub(crate) const SAID: &str = "said";
    pub(crate) const SHARED: &str = "shared";
    pub(crate) const PERSON_HIGH: &str = "person_high";
    pub(crate) const PERSON_LOW: &str = "person_low";
}

/// Which key of a content is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// `content.body` of `m.room.message`.
    Body = 1,
    /// `content.name` of `m.room.name`.
    Name = 2,
    /// `content.topic` of `m.room.topic`, and its plain text in `m.topic`.
    Topic = 3,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Body, Self::Name, Self::Topic];

    /// The type of event that has it.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Body => "m.room.message",
            Self::Name => "m.room.name",
            Self::Topic => "m.room.topic",
        }
    }
}

/// What is indexed of a message.
#[derive(Clone, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) room: ShortRoomId,
    pub(crate) number: EventNumber,
    pub(crate) said: EventNumber,
    pub(crate) kind: Kind,
    pub(crate) sender: NameHash,
    pub(crate) url: bool,
    pub(crate) shared: bool,
    pub(crate) time: u64,
    pub(crate) place: Place,
    pub(crate) text: &'a str,
}

/// What is indexed of a member of a room.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) room: ShortRoomId,
    pub(crate) person: NameHash,
    pub(crate) public: bool,
    pub(crate) names: Vec<&'a str>,
    pub(crate) server: &'a str,
}

impl Fields {
    pub(crate) fn new() -> Self {
        let mut schema = Schema::builder();
        let indexed = || NumericOptions::default().set_indexed();
        let fast = || NumericOptions::default().set_fast();
        let bytes = || BytesOptions::default().set_indexed();
        let text = |option, lengths| {
            let indexing = TextFieldIndexing::default()
                .set_index_option(option)
                .set_fieldnorms(lengths);
            TextOptions::default().set_indexing_options(indexing)
        };
        Self {
            key: schema.add_bytes_field("key", bytes()),
            edit: schema.add_bytes_field("edit", bytes()),
            room: schema.add_u64_field(columns::ROOM, indexed().set_fast()),
            sender: schema.add_bytes_field("sender", bytes()),
            kind: schema.add_u64_field("kind", indexed()),
            url: schema.add_u64_field("url", indexed()),
            text: schema.add_text_field("text", text(IndexRecordOption::WithFreqs, true)),
            time: schema.add_u64_field(columns::TIME, fast()),
            slot: schema.add_u64_field(columns::SLOT, fast()),
            step: schema.add_i64_field(columns::STEP, fast()),
            number: schema.add_u64_field(columns::NUMBER, fast()),
            said: schema.add_u64_field(columns::SAID, fast()),
            shared: schema.add_u64_field(columns::SHARED, fast()),
            scope: schema.add_u64_field("scope", indexed()),
            name: schema.add_text_field("name", text(IndexRecordOption::Basic, false)),
            server: schema.add_text_field("server", text(IndexRecordOption::Basic, false)),
            person_high: schema.add_u64_field(columns::PERSON_HIGH, fast()),
            person_low: schema.add_u64_field(columns::PERSON_LOW, fast()),
            schema: schema.build(),
        }
    }

    /// The document of a message.
    pub(crate) fn message(&self, message: &Message<'_>) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        let key = message_key(message.room, message.number);
        document.add_bytes(self.key, &key);
        if message.said != message.number {
            document.add_bytes(self.edit, &message_key(message.room, message.said));
        }
        document.add_u64(self.room, number_of(message.room));
        document.add_bytes(self.sender, &message.sender.0);
        document.add_u64(self.kind, message.kind as u64);
        document.add_u64(self.url, message.url.into());
        document.add_pre_tokenized_text(self.text, taken_apart([message.text]));
        document.add_u64(self.time, message.time);
        document.add_u64(self.slot, message.place.slot);
        document.add_i64(self.step, message.place.step.into());
        document.add_u64(self.number, message.number.0.into());
        document.add_u64(self.said, message.said.0.into());
        document.add_u64(self.shared, message.shared.into());
        document
    }

    /// The document of a member.
    pub(crate) fn member(&self, member: &Member<'_>) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_bytes(self.key, &member_key(member.room, member.person));
        document.add_u64(self.room, number_of(member.room));
        document.add_u64(self.scope, number_of(member.room));
        if member.public {
            document.add_u64(self.scope, number_of(EVERYBODY));
        }
        let names = member.names.iter().copied();
        document.add_pre_tokenized_text(self.name, taken_apart(names));
        document.add_pre_tokenized_text(self.server, taken_apart([member.server]));
        let (high, low) = halves(member.person);
        document.add_u64(self.person_high, high);
        document.add_u64(self.person_low, low);
        document
    }

    /// The document that says that the members of a room are in the index, and whether everybody may find
    /// them.
    pub(crate) fn listing(&self, room: ShortRoomId, public: bool) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_bytes(self.key, &listing_key(room, public));
        document.add_u64(self.scope, number_of(room));
        document
    }

    /// By what all that is of a room is removed.
    pub(crate) fn all_of_room(&self, room: ShortRoomId) -> [Term; 2] {
        let of_room = Term::from_field_u64(self.room, number_of(room));
        [of_room, self.room_scope(room)]
    }

    /// What is removed with all members of a room.
    pub(crate) fn room_scope(&self, room: ShortRoomId) -> Term {
        Term::from_field_u64(self.scope, number_of(room))
    }
}

/// Names the document of a message.
pub(crate) fn message_key(room: ShortRoomId, number: EventNumber) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&room.0);
    tail.copy_from_slice(&number.0.to_be_bytes());
    key
}

/// Names the document of a member.
pub(crate) fn member_key(room: ShortRoomId, person: NameHash) -> [u8; 24] {
    let mut key = [0; 24];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&room.0);
    tail.copy_from_slice(&person.0);
    key
}

/// Names the document of a room.
pub(crate) fn listing_key(room: ShortRoomId, public: bool) -> [u8; 9] {
    let mut key = [0; 9];
    let (head, tail) = key.split_at_mut(8);
    head.copy_from_slice(&room.0);
    tail.copy_from_slice(&[public.into()]);
    key
}

/// A room as a number.
pub(crate) fn number_of(room: ShortRoomId) -> u64 {
    u64::from_be_bytes(room.0)
}

/// The room of a number.
pub(crate) fn room_of(number: u64) -> ShortRoomId {
    ShortRoomId(number.to_be_bytes())
}

/// The two halves of a hash.
fn halves(hash: NameHash) -> (u64, u64) {
    let whole = u128::from_be_bytes(hash.0);
    // Each is 64 bits of the 128.
    ((whole >> 64) as u64, whole as u64)
}

/// The hash of two halves.
pub(crate) fn whole(high: u64, low: u64) -> NameHash {
    NameHash(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}

/// Texts as the index takes them: the words, in all their forms.
fn taken_apart<'a>(texts: impl IntoIterator<Item = &'a str>) -> PreTokenizedString {
    let mut tokens: Vec<Token> = Vec::new();
    for (position, word) in texts.into_iter().flat_map(words).enumerate() {
        tokens.extend(word.forms().map(|form| Token {
            position,
            text: form.clone(),
            ..Token::default()
        }));
    }
    PreTokenizedString {
        text: String::new(),
        tokens,
    }
}
