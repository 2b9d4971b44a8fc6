//! Versions 2 and 2.1 of the algorithm, of all later room versions.

use ruma::room_version_rules::StateResolutionV2Rules;

use super::{
    Resolution, check,
    conflicted::full_conflicted_set,
    mainline, power,
    run::{Resolved, Run},
};
use crate::EventNumber;

/// Version 2 and 2.1 of the algorithm. Room versions 2 and 12, *State resolution*, *Algorithm*.
///
/// `None` if a fact was missing.
pub(super) fn resolve(run: &mut Run<'_>, rules: StateResolutionV2Rules) -> Option<Resolution> {
    let agreed_count = !rules.begin_iterative_auth_checks_with_empty_state_map;
    let full = full_conflicted_set(run, rules.consider_conflicted_state_subgraph, agreed_count)?;
    if full.is_empty() {
        return Some(run.finish(&Resolved::new()));
    }
    for number in full.iter().map(EventNumber) {
        run.load_surroundings(number, agreed_count);
    }
    if !run.ask.is_content() {
        return None;
    }

    // 1. The power events and what they lean on.
    let power_events = power::order(run, &full)?;

    // 2. Applied to the agreed entries, or since version 2.1 to nothing.
    let mut state = Resolved::new();
    check::apply(run, &power_events, agreed_count, &mut state)?;

    // 3. All others, in the order of the power levels that they know.
    let mut rest = full;
    for number in power_events {
        rest.remove(number.0);
    }
    let rest = mainline::order(run, &rest, agreed_count, &state)?;

    // 4. Applied to the result.
    check::apply(run, &rest, agreed_count, &mut state)?;

    // 5. Where the states agree, they are right.
    Some(run.finish(&state))
}
