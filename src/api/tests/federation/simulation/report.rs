//! What the servers of a simulation that disagree think of each event.

use std::collections::BTreeMap;

use storage::{
    Range,
    schema::{self, Outcome, Standing},
};

use super::{NAMES, World};

/// An event, as far as a report names it.
struct Line {
    depth: u64,
    what: String,
    /// What each server thinks of it; nothing where it is not known.
    verdicts: [String; NAMES.len()],
}

impl World {
    /// Prints all events that some server knows, with what each of them thinks, and the reasons for it.
    #[allow(clippy::print_stderr)]
    pub(super) async fn report(&self, seed: u64) {
        eprintln!("seed {seed}");
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for (server, name) in NAMES.iter().enumerate() {
            for (id, depth, what, verdict) in self.events_of(server).await {
                let line = lines.entry(id).or_insert_with(|| Line {
                    depth,
                    what,
                    verdicts: Default::default(),
                });
                line.verdicts[server] = verdict;
            }
            let ends = self.opinion(server).await.ends;
            eprintln!("{name} ends with {ends:?}");
        }
        let mut lines: Vec<_> = lines.into_iter().collect();
        lines.sort_by_key(|(_, line)| line.depth);
        for (id, line) in lines {
            let verdicts = line.verdicts.join(" | ");
            eprintln!("{} {id} {} | {verdicts}", line.depth, line.what);
        }
    }

    /// The events that a server has of the room: id, depth, what it is, what the server thinks of it.
    async fn events_of(&self, server: usize) -> Vec<(String, u64, String, String)> {
        let rooms = &self.servers[server].rooms;
        let room = rooms.room(&self.room).await.unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        let ranges = [Range::prefix(&(room.short,))];
        let rows = snapshot.multi_range(&schema::EVENT_BY_NUMBER, &ranges);
        let rows = rows.await.unwrap().remove(0);
        let keys: Vec<_> = rows.iter().map(|(key, _)| *key).collect();
        let verdicts = snapshot.multi_get(&schema::VERDICT_BY_EVENT, &keys);
        let verdicts = verdicts.await.unwrap();
        let all = rows.into_iter().zip(verdicts);
        let line = all.map(|((_, row), verdict)| {
            let (header, json) = (row.value.header, row.value.json);
            let verdict = match verdict.map(|row| row.value) {
                None => "yes".to_owned(),
                Some(verdict) => {
                    let standing = match verdict.standing {
                        Standing::Live => "",
                        Standing::Outlier => "outlier ",
                        Standing::Historic => "historic ",
                    };
                    let outcome = match verdict.outcome {
                        Outcome::Accepted => "yes",
                        Outcome::SoftFailed => "soft-failed",
                        Outcome::Rejected => "no",
                    };
                    let reason = verdict.reason.unwrap_or_default();
                    format!("{standing}{outcome} {reason}")
                }
            };
            let event = pdu::Pdu::parse(&json, room.rules).unwrap();
            let what = format!(
                "{} {:?} by {} {} after {:?}",
                header.event_type,
                header.state_key,
                header.sender,
                String::from_utf8_lossy(event.content_bytes()),
                event.prev_events(),
            );
            (header.event_id, header.depth, what, verdict)
        });
        line.collect()
    }
}
