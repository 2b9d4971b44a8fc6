//! Searching people ([spec]).
//!
//! Somebody is found by those who share a room with them, and by everybody if they are in a public room. The
//! index gives candidates, each with a room in which the viewer may find them; then it is read who they are,
//! and whether they still are there.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-directory

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedUserId, UserId};
use storage::{
    NameHash, Reads, ShortRoomId, ShortUserId, Snapshot,
    schema::{self, MemberRow, Membership},
};
use tantivy::{
    Term,
    query::{BooleanQuery, ConstScoreQuery, FuzzyTermQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{Field, IndexRecordOption},
};

use crate::{
    Search, WORDS_MAX,
    fields::{EVERYBODY, Fields, member_key},
    hits::{People, PersonHit},
    people::is_ours,
    words::Wanted,
};

/// Candidates that are looked at together.
const AT_ONCE: usize = 100;
/// Candidates that are looked at, at most.
const LOOKED_AT_MAX: usize = 1_000;

/// How much it counts that a word of a name begins with one that is searched for, that it is the same, that
/// a word of the server's name begins with it, and that one shares a room.
const BEGINS: f32 = 1.0;
const IS: f32 = 1.0;
const SERVER: f32 = 0.25;
const SHARES_A_ROOM: f32 = 0.5;

/// Who is searched.
#[derive(Clone, Copy, Debug)]
pub struct PeopleQuery<'a> {
    /// Who searches.
    pub user: ShortUserId,
    /// Who searches: they find themselves only where everybody does.
    pub user_id: &'a UserId,
    /// How words of the name or the user id begin.
    pub term: &'a str,
    /// How many, at most.
    pub limit: usize,
}

/// Who was found.
#[derive(Clone, Debug, Default)]
pub struct FoundPeople {
    /// The best first.
    pub people: Vec<FoundPerson>,
    /// Whether there are more.
    pub limited: bool,
}

/// Somebody who was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPerson {
    /// Their id.
    pub user_id: OwnedUserId,
    /// What they call themselves.
    pub display_name: Option<String>,
    /// The address of their avatar.
    pub avatar_url: Option<String>,
}

impl Search {
    /// Searches people.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for too many words.
    pub async fn people(&self, query: &PeopleQuery<'_>) -> error::Result<FoundPeople> {
        let wanted = Wanted::of(query.term);
        if wanted.words.len() > WORDS_MAX {
            return Err(error::invalid_param(format!(
                "`search_term` has more than {WORDS_MAX} words"
            )));
        }
        if wanted.words.is_empty() {
            return Ok(FoundPeople::default());
        }
        self.wait().await?;
        let snapshot = self.rooms().snapshot().await?;
        let own = self.rooms().rooms_of(&snapshot, query.user).await?;
        let own: Vec<_> = own
            .into_iter()
            .filter(|(_, row)| row.value.membership == Membership::Join)
            .map(|(room, _)| room)
            .collect();
        let viewer = self.storage().user_hash(query.user_id);
        let asked = wanted.clone();
        let hits = self
            .ask(move |index| {
                let question = question(&index.fields, &asked, viewer, &own);
                index.searcher().search(&question, &People)
            })
            .await?;
        let mut found = FoundPeople::default();
        for hits in hits.chunks(AT_ONCE).take(LOOKED_AT_MAX / AT_ONCE) {
            let mut people = self.read_people(&snapshot, hits).await?;
            people.retain(|(_, person)| {
                let names = [
                    person.display_name.as_deref(),
                    Some(person.user_id.as_str()),
                ];
                wanted.begins_words_of(names.into_iter().flatten())
            });
            people.sort_by(|(a, one), (b, other)| {
                let named = |person: &FoundPerson| person.display_name.is_some();
                b.score
                    .total_cmp(&a.score)
                    .then_with(|| named(other).cmp(&named(one)))
            });
            found.people.extend(people.into_iter().map(|(_, it)| it));
            if found.people.len() > query.limit {
                found.people.truncate(query.limit);
                found.limited = true;
                break;
            }
        }
        Ok(found)
    }

    /// Who some hits are, without those who left or whose account is not one to be found. Two round trips.
    async fn read_people(
        &self,
        snapshot: &Snapshot,
        hits: &[PersonHit],
    ) -> error::Result<Vec<(PersonHit, FoundPerson)>> {
        let rooms: BTreeSet<_> = hits.iter().map(|hit| hit.room).collect();
        let rooms: Vec<_> = rooms.into_iter().collect();
        let persons: Vec<_> = hits.iter().map(|hit| hit.person).collect();
        let mut reads = Reads::new();
        let heads = reads.get_all(&schema::HEAD_BY_ROOM, &rooms);
        let shorts = reads.get_all(&schema::USER_BY_NAME, &persons);
        let answers = snapshot.read(&reads).await?;
        let generations: HashMap<_, _> = rooms
            .iter()
            .zip(answers.all(&heads)?)
            .filter_map(|(room, head)| Some((*room, head?.value.generation)))
            .collect();
        let shorts = answers.all(&shorts)?;
        let fields = ["displayname", "avatar_url"].map(|field| self.storage().field_hash(field));
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for (hit, short) in hits.iter().zip(shorts) {
            let Some(generation) = generations.get(&hit.room) else {
                continue;
            };
            let joined = Membership::Join as u8;
            let key = (hit.room, *generation, joined, hit.person);
            let member = reads.get(&schema::MEMBER_BY_ROOM, &key);
            let account = short.map(|short| {
                let account = reads.get(&schema::ACCOUNT_BY_USER, &short.value);
                let fields = fields
                    .map(|field| reads.get(&schema::PROFILE_FIELD_BY_USER, &(short.value, field)));
                (account, fields)
            });
            asked.push((*hit, member, account));
        }
        let answers = snapshot.read(&reads).await?;
        let mut people = Vec::new();
        for (hit, member, account) in asked {
            let Some(member) = answers.one(&member)? else {
                continue;
            };
            let mut member = member.value;
            if let Some((account, [name, avatar])) = account {
                let account = answers.one(&account)?.map(|row| row.value);
                let hidden = account.is_none_or(|it| it.deactivated || it.guest || it.locked);
                if hidden {
                    continue;
                }
                let text = |row: Option<storage::Found<schema::ProfileFieldRow>>| {
                    row.and_then(|row| serde_json::from_str::<String>(&row.value.json).ok())
                };
                member.displayname = text(answers.one(&name)?);
                member.avatar_url = text(answers.one(&avatar)?);
            } else if is_ours(self.rooms(), &member.user_id) {
                continue;
            }
            people.extend(person(member).map(|person| (hit, person)));
        }
        Ok(people)
    }
}

fn person(member: MemberRow) -> Option<FoundPerson> {
    Some(FoundPerson {
        user_id: UserId::parse(&member.user_id).ok()?,
        display_name: member.displayname.filter(|name| !name.is_empty()),
        avatar_url: member.avatar_url.filter(|url| url.starts_with("mxc://")),
    })
}

/// The question to the index: each word begins one of the name or of the server's, at least one begins one of
/// the name; and it is somebody else whom the viewer shares a room with, or everybody may find them.
fn question(
    fields: &Fields,
    wanted: &Wanted,
    viewer: NameHash,
    own: &[ShortRoomId],
) -> BooleanQuery {
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    for (whole, parts) in &wanted.words {
        let mut ways = vec![word(fields, whole)];
        if !parts.is_empty() {
            let parts = parts.iter().map(|part| word(fields, part)).collect();
            ways.push(Box::new(BooleanQuery::intersection(parts)));
        }
        clauses.push((Occur::Must, Box::new(BooleanQuery::union(ways))));
    }
    let names = wanted
        .words
        .iter()
        .flat_map(|(whole, parts)| std::iter::once(whole).chain(parts))
        .map(|word| begins(fields.name, word, 0.0))
        .collect();
    clauses.push((Occur::Must, Box::new(BooleanQuery::union(names))));
    let scope = |rooms: &[ShortRoomId], score| -> Box<dyn Query> {
        let terms = rooms.iter().map(|room| fields.room_scope(*room));
        let set = TermSetQuery::new(terms.collect::<Vec<_>>());
        Box::new(ConstScoreQuery::new(Box::new(set), score))
    };
    let mut visible = vec![scope(&[EVERYBODY], 0.0)];
    if !own.is_empty() {
        let themselves = own.iter().map(|room| {
            let key = member_key(*room, viewer);
            Term::from_field_bytes(fields.key, &key)
        });
        let themselves = TermSetQuery::new(themselves.collect::<Vec<_>>());
        visible.push(Box::new(BooleanQuery::new(vec![
            (Occur::Must, scope(own, 0.0)),
            (Occur::MustNot, Box::new(themselves)),
        ])));
        clauses.push((Occur::Should, scope(own, SHARES_A_ROOM)));
    }
    clauses.push((Occur::Must, Box::new(BooleanQuery::union(visible))));
    BooleanQuery::new(clauses)
}

/// A word that a name has, or begins with.
fn word(fields: &Fields, word: &str) -> Box<dyn Query> {
    let term = Term::from_field_text(fields.name, word);
    let exact = TermQuery::new(term, IndexRecordOption::Basic);
    Box::new(BooleanQuery::union(vec![
        Box::new(ConstScoreQuery::new(Box::new(exact), IS)),
        begins(fields.name, word, BEGINS),
        begins(fields.server, word, SERVER),
    ]))
}

fn begins(field: Field, word: &str, score: f32) -> Box<dyn Query> {
    let prefix = FuzzyTermQuery::new_prefix(Term::from_field_text(field, word), 0, false);
    Box::new(ConstScoreQuery::new(Box::new(prefix), score))
}
