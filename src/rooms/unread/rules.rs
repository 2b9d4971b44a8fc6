//! Push rules as counting sees them: which rooms can be counted by totals, and which event by event.

use std::collections::HashSet;

use pdu::canonical;
use ruma::{
    RoomId, UserId,
    events::AnySyncTimelineEvent,
    push::{
        Action, AnyPushRuleRef, ConditionalPushRule, PredefinedOverrideRuleId, PushCondition,
        PushConditionRoomCtx, Ruleset,
    },
    serde::Raw,
};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use storage::schema::EventRow;

use crate::{event::named_in, read::content_of};

/// How the events of a room are counted for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As the default rules do: by totals and mentions.
    Totals,
    /// Nothing counts.
    Muted,
    /// Mentions alone count, as rows of their own.
    Mentions,
    /// Each event by itself.
    Scan,
}

/// Somebody's push rules and the people whom they ignore.
#[derive(Debug, Default)]
pub(super) struct CountingRules {
    /// None: the default rules.
    changed: Option<Changed>,
    ignored: HashSet<String>,
}

#[derive(Debug)]
struct Changed {
    rules: Ruleset,
    /// `.m.rule.master` is on, and lets nothing through.
    all_off: bool,
    /// The default rules are on and act as they do by default: override rules, underride rules.
    default_overrides: bool,
    default_underrides: bool,
}

impl CountingRules {
    /// The rules of a user, `None` where they never changed any, and who they ignore (the content of
    /// `m.ignored_user_list`).
    pub(super) fn new(user: &UserId, rules: Option<Ruleset>, ignored: Option<&str>) -> Self {
        Self {
            changed: rules.map(|rules| Changed::new(user, rules)),
            ignored: ignored.map(users::ignored_users).unwrap_or_default(),
        }
    }

    /// How the events of a room are counted.
    pub(super) fn mode(&self, room_id: &RoomId) -> Mode {
        let mode = match &self.changed {
            Some(changed) => changed.mode(room_id),
            None => Mode::Totals,
        };
        if self.ignored.is_empty() || mode == Mode::Muted {
            mode
        } else {
            Mode::Scan
        }
    }

    /// What is to be done about an event.
    pub(super) async fn actions<'a>(
        &'a self,
        defaults: &'a Ruleset,
        event: &EventRow,
        context: &PushConditionRoomCtx,
    ) -> error::Result<&'a [Action]> {
        if self.ignored.contains(&event.header.sender) {
            return Ok(&[]);
        }
        let json = as_mentioning(event)?;
        let changed = self.changed.as_ref();
        let rules = changed.map_or(defaults, |changed| &changed.rules);
        Ok(rules.get_actions(&json, context).await)
    }
}

/// An event for the rules to look at, which know of no other mention than `m.mentions`.
fn as_mentioning(event: &EventRow) -> error::Result<Raw<AnySyncTimelineEvent>> {
    let json = String::from_utf8(event.json.to_vec()).map_err(error::internal)?;
    let content = content_of(event);
    let mentions = canonical::member(content, "m.mentions");
    let body = canonical::member(content, "body").filter(|_| mentions.is_none());
    let body = body.and_then(canonical::string);
    let named = body.map_or_else(Vec::new, |body| named_in(&body));
    if named.is_empty() {
        let json = RawValue::from_string(json).map_err(error::internal)?;
        return Ok(Raw::from_json(json));
    }
    let mut event: serde_json::Value = serde_json::from_str(&json).map_err(error::internal)?;
    if let Some(content) = event.get_mut("content") {
        content["m.mentions"] = json!({ "user_ids": named });
    }
    Ok(Raw::from_json(
        to_raw_value(&event).map_err(error::internal)?,
    ))
}

/// Whether these actions notify, and whether they highlight.
pub(super) fn effect_of(actions: &[Action]) -> (bool, bool) {
    let notify = actions.iter().any(Action::should_notify);
    (notify, notify && actions.iter().any(Action::is_highlight))
}

/// When a rule with conditions matches in a room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matches {
    Never,
    Always,
    Sometimes,
}

fn matches(rule: &ConditionalPushRule, room_id: &RoomId) -> Matches {
    let mut all = Matches::Always;
    for condition in &rule.conditions {
        match condition {
            PushCondition::EventMatch(data)
                if data.key == "room_id" && !data.pattern.contains(['*', '?']) =>
            {
                if data.pattern.to_lowercase() != room_id.as_str().to_lowercase() {
                    return Matches::Never;
                }
            }
            _ => all = Matches::Sometimes,
        }
    }
    all
}

impl Changed {
    fn new(user: &UserId, rules: Ruleset) -> Self {
        let default = users::default_rules(user);
        let master = PredefinedOverrideRuleId::Master.as_str();
        let all_off = rules
            .override_
            .get(master)
            .is_some_and(|rule| rule.enabled && !effect_of(&rule.actions).0);
        let same = |(rule, default): (AnyPushRuleRef<'_>, AnyPushRuleRef<'_>)| {
            rule.rule_id() == default.rule_id()
                && rule.enabled() == default.enabled()
                && effect_of(rule.actions()) == effect_of(default.actions())
        };
        let overrides = rules.override_.iter().filter(|rule| rule.default);
        let underrides = rules.underride.iter().filter(|rule| rule.default);
        let default_overrides = overrides.clone().count() == default.override_.len()
            && overrides
                .map(AnyPushRuleRef::Override)
                .zip(default.override_.iter().map(AnyPushRuleRef::Override))
                .all(same);
        let default_underrides = underrides.clone().count() == default.underride.len()
            && underrides
                .map(AnyPushRuleRef::Underride)
                .zip(default.underride.iter().map(AnyPushRuleRef::Underride))
                .all(same);
        Self {
            rules,
            all_off,
            default_overrides,
            default_underrides,
        }
    }

    fn mode(&self, room_id: &RoomId) -> Mode {
        if self.all_off {
            return Mode::Muted;
        }
        let rules = &self.rules;
        let own = |rule: &&ConditionalPushRule| !rule.default && rule.enabled;
        for rule in rules.override_.iter().filter(own) {
            match matches(rule, room_id) {
                Matches::Never => {}
                Matches::Always if !effect_of(&rule.actions).0 => return Mode::Muted,
                _ => return Mode::Scan,
            }
        }
        if !self.default_overrides || rules.content.iter().any(|rule| rule.enabled) {
            return Mode::Scan;
        }
        // A rule for the room catches everything that comes so far.
        let of_room = rules
            .room
            .iter()
            .find(|rule| rule.enabled && rule.rule_id == room_id);
        if let Some(rule) = of_room {
            let (notify, _) = effect_of(&rule.actions);
            return if notify { Mode::Scan } else { Mode::Mentions };
        }
        let others = rules.sender.iter().any(|rule| rule.enabled)
            || rules
                .underride
                .iter()
                .filter(own)
                .any(|rule| matches(rule, room_id) != Matches::Never);
        if self.default_underrides && !others {
            Mode::Totals
        } else {
            Mode::Scan
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ruma::{
        push::{
            NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, RuleKind,
        },
        room_id, user_id,
    };

    use super::*;

    fn changed(change: impl Fn(&mut Ruleset)) -> CountingRules {
        let user = user_id!("@me:example.org");
        let mut rules = users::default_rules(user);
        change(&mut rules);
        CountingRules::new(user, Some(rules), None)
    }

    fn with(rule: &NewPushRule) -> CountingRules {
        changed(|rules| rules.insert(rule.clone(), None, None).unwrap())
    }

    #[test]
    fn rooms_are_counted_event_by_event_only_where_rules_ask_for_it() {
        let (here, there) = (
            room_id!("!here:example.org"),
            room_id!("!there:example.org"),
        );
        let modes = |rules: &CountingRules| [rules.mode(here), rules.mode(there)];
        let (totals, muted, scan) = (Mode::Totals, Mode::Muted, Mode::Scan);
        assert_eq!(modes(&CountingRules::default()), [totals; 2]);
        assert_eq!(modes(&changed(|_| ())), [totals; 2]);

        let only = with(&NewPushRule::Room(NewSimplePushRule::new(
            here.to_owned(),
            vec![],
        )));
        assert_eq!(modes(&only), [Mode::Mentions, totals]);
        let loud = vec![Action::Notify];
        let loud = with(&NewPushRule::Room(NewSimplePushRule::new(
            here.to_owned(),
            loud,
        )));
        assert_eq!(modes(&loud), [scan, totals]);

        let in_room = |pattern: &str| {
            PushCondition::EventMatch(ruma::push::EventMatchConditionData::new(
                "room_id".to_owned(),
                pattern.to_owned(),
            ))
        };
        let mute = |pattern: &str| {
            let conditions = vec![in_room(pattern)];
            let rule = NewConditionalPushRule::new("mute".to_owned(), conditions, vec![]);
            with(&NewPushRule::Override(rule))
        };
        assert_eq!(modes(&mute(here.as_str())), [muted, totals]);
        assert_eq!(modes(&mute("!h*")), [scan; 2]);
        let word = NewPatternedPushRule::new("w".to_owned(), "word".to_owned(), vec![]);
        assert_eq!(modes(&with(&NewPushRule::Content(word))), [scan; 2]);

        let set = |kind: RuleKind, id: &str, enabled| {
            changed(|rules| rules.set_enabled(kind.clone(), id, enabled).unwrap())
        };
        let (over, under) = (RuleKind::Override, RuleKind::Underride);
        assert_eq!(
            modes(&set(over.clone(), ".m.rule.master", true)),
            [muted; 2]
        );
        assert_eq!(
            modes(&set(over, ".m.rule.is_room_mention", false)),
            [scan; 2]
        );
        assert_eq!(modes(&set(under, ".m.rule.message", false)), [scan; 2]);

        let list = r#"{"ignored_users": {"@spam:example.org": {}}}"#;
        let ignoring = CountingRules::new(user_id!("@me:example.org"), None, Some(list));
        assert_eq!(modes(&ignoring), [scan; 2]);
    }
}
