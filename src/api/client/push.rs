//! Push rules, pushers, and what rules have notified of.

mod notifications;

use error::Result;
use ruma::{
    api::client::push::{
        delete_pushrule, get_pushers, get_pushrule, get_pushrule_actions, get_pushrule_enabled,
        get_pushrules_all, get_pushrules_global_scope, set_pusher, set_pushrule,
        set_pushrule_actions, set_pushrule_enabled,
    },
    push::{AnyPushRule, RuleKind},
};
use users::Requester;

pub(super) use self::notifications::get_notifications;
use crate::{Call, Server};

/// [`GET /pushrules/`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules).
pub(super) async fn get_pushrules_all(
    server: Server,
    call: Call<get_pushrules_all::v3::Request>,
) -> Result<get_pushrules_all::v3::Response> {
    let rules = server.users.push_rules(call.caller.user).await?;
    Ok(get_pushrules_all::v3::Response::new(rules))
}

/// [`GET /pushrules/global/`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal).
pub(super) async fn get_pushrules_global_scope(
    server: Server,
    call: Call<get_pushrules_global_scope::v3::Request>,
) -> Result<get_pushrules_global_scope::v3::Response> {
    let rules = server.users.push_rules(call.caller.user).await?;
    Ok(get_pushrules_global_scope::v3::Response::new(rules))
}

/// [`GET /pushrules/global/{kind}/{ruleId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid).
pub(super) async fn get_pushrule(
    server: Server,
    call: Call<get_pushrule::v3::Request>,
) -> Result<get_pushrule::v3::Response> {
    let rule = rule(&server, &call.caller, &call.kind, &call.rule_id).await?;
    Ok(get_pushrule::v3::Response::new(rule.into()))
}

/// [`PUT /pushrules/global/{kind}/{ruleId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid).
pub(super) async fn set_pushrule(
    server: Server,
    call: Call<set_pushrule::v3::Request>,
) -> Result<set_pushrule::v3::Response> {
    let (user, request) = (call.caller.user, call.request);
    let (after, before) = (request.after.as_deref(), request.before.as_deref());
    server
        .users
        .set_push_rule(user, request.rule, after, before)
        .await?;
    Ok(set_pushrule::v3::Response::new())
}

/// [`DELETE /pushrules/global/{kind}/{ruleId}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid).
pub(super) async fn delete_pushrule(
    server: Server,
    call: Call<delete_pushrule::v3::Request>,
) -> Result<delete_pushrule::v3::Response> {
    let (user, request) = (call.caller.user, call.request);
    server
        .users
        .delete_push_rule(user, request.kind, &request.rule_id)
        .await?;
    Ok(delete_pushrule::v3::Response::new())
}

/// [`GET /pushrules/global/{kind}/{ruleId}/actions`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidactions).
pub(super) async fn get_pushrule_actions(
    server: Server,
    call: Call<get_pushrule_actions::v3::Request>,
) -> Result<get_pushrule_actions::v3::Response> {
    let rule = rule(&server, &call.caller, &call.kind, &call.rule_id).await?;
    let actions = rule.actions().to_vec();
    Ok(get_pushrule_actions::v3::Response::new(actions))
}

/// [`PUT /pushrules/global/{kind}/{ruleId}/actions`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions).
pub(super) async fn set_pushrule_actions(
    server: Server,
    call: Call<set_pushrule_actions::v3::Request>,
) -> Result<set_pushrule_actions::v3::Response> {
    let (user, request) = (call.caller.user, call.request);
    server
        .users
        .set_push_rule_actions(user, request.kind, &request.rule_id, &request.actions)
        .await?;
    Ok(set_pushrule_actions::v3::Response::new())
}

/// [`GET /pushrules/global/{kind}/{ruleId}/enabled`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled).
pub(super) async fn get_pushrule_enabled(
    server: Server,
    call: Call<get_pushrule_enabled::v3::Request>,
) -> Result<get_pushrule_enabled::v3::Response> {
    let rule = rule(&server, &call.caller, &call.kind, &call.rule_id).await?;
    Ok(get_pushrule_enabled::v3::Response::new(rule.enabled()))
}

/// [`PUT /pushrules/global/{kind}/{ruleId}/enabled`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled).
pub(super) async fn set_pushrule_enabled(
    server: Server,
    call: Call<set_pushrule_enabled::v3::Request>,
) -> Result<set_pushrule_enabled::v3::Response> {
    let (user, request) = (call.caller.user, call.request);
    server
        .users
        .set_push_rule_enabled(user, request.kind, &request.rule_id, request.enabled)
        .await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

/// [`GET /pushers`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers).
pub(super) async fn get_pushers(
    server: Server,
    call: Call<get_pushers::v3::Request>,
) -> Result<get_pushers::v3::Response> {
    let pushers = server.users.pushers(call.caller.user).await?;
    Ok(get_pushers::v3::Response::new(pushers))
}

/// [`POST /pushers/set`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset).
pub(super) async fn set_pusher(
    server: Server,
    call: Call<set_pusher::v3::Request>,
) -> Result<set_pusher::v3::Response> {
    server.users.set_pusher(&call.caller, &call.action).await?;
    Ok(set_pusher::v3::Response::new())
}

/// The rule of that kind and id.
async fn rule(
    server: &Server,
    requester: &Requester,
    kind: &RuleKind,
    rule_id: &str,
) -> Result<AnyPushRule> {
    let rules = server.users.push_rules(requester.user).await?;
    let found = rules.get(kind.clone(), rule_id).map(|rule| rule.to_owned());
    found.ok_or_else(|| error::not_found("You have no such push rule"))
}
