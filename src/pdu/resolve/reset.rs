//! State resets: what a resolution took from a room though nobody contested it.

use super::{StateKey, run::Run};
use crate::EventNumber;

/// An entry that a resolution took from the room though nobody contested it: a *state reset*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The key of the entry.
    pub key: StateKey,
    /// What happened.
    pub kind: ResetKind,
    /// The latest event that a state held under the key.
    pub from: EventNumber,
    /// What the resolved state holds there.
    pub to: Option<EventNumber>,
}

/// The ways in which uncontested state gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// All states held an event under the key, the resolved one holds none.
    Removed,
    /// The resolved state holds an event that none of the states held any more.
    Revived,
    /// The candidates were no rivals, as the latest of them leans on all others; but an older one won.
    Reverted,
}

/// The resets among the winners of the differences.
pub(super) fn find(run: &mut Run<'_>, winners: &[Option<EventNumber>]) -> Vec<Reset> {
    let mut resets = Vec::new();
    for (candidates, &to) in run.differences.entries.iter().zip(winners) {
        let held = || candidates.iter().copied().flatten();
        let Some(latest) = held().max() else { continue };
        let kind = match to {
            Some(winner) if winner == latest => continue,
            None if candidates.contains(&None) => continue,
            None => ResetKind::Removed,
            Some(winner) if !candidates.contains(&Some(winner)) => ResetKind::Revived,
            Some(_) => {
                let Some(chain) = run.ask.chain(latest) else {
                    continue;
                };
                if held().any(|number| number != latest && !chain.contains(number)) {
                    continue;
                }
                ResetKind::Reverted
            }
        };
        if let Some(key) = run.ask.event(latest).and_then(|event| event.key.clone()) {
            resets.push(Reset {
                key,
                kind,
                from: latest,
                to,
            });
        }
    }
    resets
}
