//! Push rules: what of all that happens a user wants to be told of ([spec]). They are the account data
//! `m.push_rules`; until a user changes them, nothing is stored and the specification's defaults hold.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use error::Result;
use http::StatusCode;
use ruma::{
    UserId,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData,
        InsertPushRuleError, NewPushRule, PushCondition, RemovePushRuleError,
        RoomMemberCountConditionData, RoomMemberCountIs, RuleKind, Ruleset, SoundTweakValue, Tweak,
    },
    uint,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use storage::{
    Batch, Found, Reads, ShortUserId, Snapshot, Stamped,
    schema::{ACCOUNT_BY_USER, ACCOUNT_DATA_BY_USER, AccountDataRow},
};

use crate::{
    AccountData, Users,
    account::no_account,
    account_data::{self, account_data_key},
};

/// The type of the account data that push rules are.
pub const TYPE: &str = "m.push_rules";

/// Its content.
#[derive(Deserialize)]
struct Content {
    global: Ruleset,
}

#[derive(Serialize)]
struct ContentRef<'a> {
    global: &'a Ruleset,
}

/// A user's rules and the row they come from, if they are stored.
pub(crate) struct Stored {
    pub(crate) rules: Ruleset,
    pub(crate) row: Option<Found<Stamped<AccountDataRow>>>,
}

/// The rules that hold for somebody who has changed none: the specification's, and MSC3930's for polls.
///
/// Ruma has the latter too, with conditions of a newer kind than the proposal and its tests have.
pub fn default_rules(user_id: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user_id);
    let event_type = |name: &str| {
        let pattern = format!("org.matrix.msc3381.poll.{name}");
        let data = EventMatchConditionData::new("type".to_owned(), pattern);
        PushCondition::EventMatch(data)
    };
    let rule = |name: &str, conditions, actions| {
        ConditionalPushRule::from(ConditionalPushRuleInit {
            actions,
            default: true,
            enabled: true,
            rule_id: format!(".org.matrix.msc3930.rule.poll_{name}"),
            conditions,
        })
    };
    let silent = rule("response", vec![event_type("response")], Vec::new());
    rules.override_.insert(silent);
    for name in ["start", "end"] {
        let two = RoomMemberCountIs::from(uint!(2));
        let two = PushCondition::RoomMemberCount(RoomMemberCountConditionData::new(two));
        let sound = Action::SetTweak(Tweak::Sound(SoundTweakValue::Default));
        rules.underride.insert(rule(
            &format!("{name}_one_to_one"),
            vec![two, event_type(name)],
            vec![Action::Notify, sound],
        ));
        let loud = rule(name, vec![event_type(name)], vec![Action::Notify]);
        rules.underride.insert(loud);
    }
    rules
}

/// The push rules that a stored row of account data holds, with the defaults as they are now.
///
/// # Errors
///
/// The row holds something else.
pub fn ruleset(user_id: &UserId, row: &AccountDataRow) -> Result<Ruleset> {
    let mut content: Content = serde_json::from_str(&row.json).map_err(error::internal)?;
    // Defaults that came with a newer specification, and those whose wording changed.
    content
        .global
        .update_with_server_default(default_rules(user_id));
    Ok(content.global)
}

impl Users {
    /// The push rules that hold for a user.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user.
    pub async fn push_rules(&self, user: ShortUserId) -> Result<Ruleset> {
        let snapshot = self.snapshot().await?;
        Ok(self.stored_push_rules(&snapshot, user).await?.rules)
    }

    pub(crate) async fn stored_push_rules(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
    ) -> Result<Stored> {
        let key = account_data_key(&self.0.storage, user, None, TYPE);
        let mut reads = Reads::new();
        let row = reads.get(&ACCOUNT_DATA_BY_USER, &key);
        let account = reads.get(&ACCOUNT_BY_USER, &user);
        let answers = snapshot.read(&reads).await?;
        let row = answers.one(&row)?;
        let account = answers.one(&account)?.ok_or_else(no_account)?;
        let user_id =
            <&UserId>::try_from(account.value.user_id.as_str()).map_err(error::internal)?;
        let rules = match &row {
            Some(found) => ruleset(user_id, &found.value.value)?,
            None => default_rules(user_id),
        };
        Ok(Stored { rules, row })
    }

    /// The push rules that hold for a user, as account data.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user.
    pub async fn push_rules_data(&self, user: ShortUserId) -> Result<AccountData> {
        let global = self.push_rules(user).await?;
        Ok(AccountData {
            event_type: TYPE.to_owned(),
            content: RawValue::from_string(to_json(&global)?).map_err(error::internal)?,
        })
    }
}

/// How many rules a user may have, those of the specification included.
const MAX_RULES: usize = 1_000;

/// The longest rules, as JSON, in bytes.
const MAX_JSON: usize = 256 * 1024;

impl Users {
    /// Adds a rule, or replaces the one of that kind and id, before or after another of the user's own.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for an id that is not the user's to give, 400 `M_UNKNOWN` if the other rule
    /// is not there, 413 if there are too many.
    pub async fn set_push_rule(
        &self,
        user: ShortUserId,
        rule: NewPushRule,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<()> {
        self.change_push_rules(user, |rules| {
            rules
                .insert(rule.clone(), after, before)
                .map_err(|failure| match failure {
                    InsertPushRuleError::UnknownRuleId => {
                        let message = "There is no rule of this kind to put it before or after";
                        error::unknown(StatusCode::BAD_REQUEST, message)
                    }
                    _ => error::invalid_param(failure.to_string()),
                })
        })
        .await
    }

    /// Removes a rule of the user's own.
    ///
    /// # Errors
    ///
    /// 404 if there is no such rule, 400 `M_INVALID_PARAM` if it is one of the specification's.
    pub async fn delete_push_rule(
        &self,
        user: ShortUserId,
        kind: RuleKind,
        rule_id: &str,
    ) -> Result<()> {
        self.change_push_rules(user, |rules| {
            rules
                .remove(kind.clone(), rule_id)
                .map_err(|failure| match failure {
                    RemovePushRuleError::ServerDefault => error::invalid_param(failure.to_string()),
                    _ => no_rule(),
                })
        })
        .await
    }

    /// Turns a rule on or off.
    ///
    /// # Errors
    ///
    /// 404 if there is no such rule.
    pub async fn set_push_rule_enabled(
        &self,
        user: ShortUserId,
        kind: RuleKind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<()> {
        self.change_push_rules(user, |rules| {
            rules
                .set_enabled(kind.clone(), rule_id, enabled)
                .map_err(|_| no_rule())
        })
        .await
    }

    /// Sets what a rule does.
    ///
    /// # Errors
    ///
    /// 404 if there is no such rule.
    pub async fn set_push_rule_actions(
        &self,
        user: ShortUserId,
        kind: RuleKind,
        rule_id: &str,
        actions: &[Action],
    ) -> Result<()> {
        self.change_push_rules(user, |rules| {
            rules
                .set_actions(kind.clone(), rule_id, actions.to_vec())
                .map_err(|_| no_rule())
        })
        .await
    }

    async fn change_push_rules(
        &self,
        user: ShortUserId,
        change: impl Fn(&mut Ruleset) -> Result<()>,
    ) -> Result<()> {
        let key = account_data_key(&self.0.storage, user, None, TYPE);
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let Stored { rules: old, row } = self.stored_push_rules(&snapshot, user).await?;
            let before = to_json(&old)?;
            let mut rules = old;
            change(&mut rules)?;
            let json = to_json(&rules)?;
            if json == before {
                return Ok(());
            }
            if rules.iter().count() > MAX_RULES || json.len() > MAX_JSON {
                return Err(error::too_large("There are too many push rules"));
            }
            let mut batch = Batch::new();
            let raw = row.as_ref().map(|row| &row.raw);
            batch.expect_unchanged(&ACCOUNT_DATA_BY_USER, &key, raw);
            account_data::put(&mut batch, key, TYPE, &json);
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }
}

pub(crate) fn to_json(rules: &Ruleset) -> Result<String> {
    serde_json::to_string(&ContentRef { global: rules }).map_err(error::internal)
}

fn no_rule() -> error::Error {
    error::not_found("You have no such push rule")
}
