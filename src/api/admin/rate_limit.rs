//! How often one user may send messages, if not as often as others ([Synapse's documentation]).
//!
//! [Synapse's documentation]: https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#override-ratelimiting-for-users

use config::Rate;
use error::Result;
use serde_json::{Number, json};
use users::OwnLimits;

use super::check_local;
use crate::{Call, Server, endpoint::Written};

/// `GET /_synapse/admin/v1/users/{userId}/override_ratelimit`.
pub mod get_override {
    use ruma::{
        OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };

    metadata! {
        method: GET,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/users/{user_id}/override_ratelimit",
    }

    /// Whose.
    #[request]
    pub struct Request {
        /// Whose.
        #[ruma_api(path)]
        pub user_id: OwnedUserId,
    }

    /// Written by the handler: there may be nothing to say.
    #[response]
    pub struct Response {}
}

/// `POST /_synapse/admin/v1/users/{userId}/override_ratelimit`.
pub mod set_override {
    use ruma::{
        OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };

    metadata! {
        method: POST,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/users/{user_id}/override_ratelimit",
    }

    /// How often.
    #[request]
    pub struct Request {
        /// Whose.
        #[ruma_api(path)]
        pub user_id: OwnedUserId,
        /// How many messages a second; with 0, nothing is limited.
        #[serde(default)]
        pub messages_per_second: u32,
        /// How many at once.
        #[serde(default)]
        pub burst_count: u32,
    }

    /// Written by the handler, as that of `GET`.
    #[response]
    pub struct Response {}
}

/// `DELETE /_synapse/admin/v1/users/{userId}/override_ratelimit`.
pub mod delete_override {
    use ruma::{
        OwnedUserId,
        api::{auth_scheme::AccessToken, request, response},
        metadata,
    };

    metadata! {
        method: DELETE,
        rate_limited: false,
        authentication: AccessToken,
        path: "/_synapse/admin/v1/users/{user_id}/override_ratelimit",
    }

    /// Whose.
    #[request]
    pub struct Request {
        /// Whose.
        #[ruma_api(path)]
        pub user_id: OwnedUserId,
    }

    /// Nothing to say.
    #[response]
    pub struct Response {}
}

/// The limits that a user has instead of the usual ones; an empty object if they have none.
pub(super) async fn get_override(
    server: Server,
    call: Call<get_override::Request>,
) -> Result<Written> {
    check_local(&server, &call.user_id)?;
    Ok(written(server.users.own_limits(&call.user_id).await?))
}

/// Sets them.
pub(super) async fn set_override(
    server: Server,
    call: Call<set_override::Request>,
) -> Result<Written> {
    check_local(&server, &call.user_id)?;
    let limits = match (call.burst_count, call.messages_per_second) {
        (_, 0) => OwnLimits::None,
        (burst, count) => Rate::of_seconds(burst, count)
            .map(OwnLimits::Messages)
            .ok_or_else(|| {
                error::invalid_param(
                    "`messages_per_second` and `burst_count` are at least 1 and at most a million",
                )
            })?,
    };
    server.users.set_own_limits(&call.user_id, limits).await?;
    Ok(written(limits))
}

/// Gives a user the usual limits again.
pub(super) async fn delete_override(
    server: Server,
    call: Call<delete_override::Request>,
) -> Result<delete_override::Response> {
    check_local(&server, &call.user_id)?;
    let usual = OwnLimits::Usual;
    server.users.set_own_limits(&call.user_id, usual).await?;
    Ok(delete_override::Response {})
}

fn written(limits: OwnLimits) -> Written {
    let told = match limits {
        OwnLimits::Usual => json!({}),
        OwnLimits::None => json!({"messages_per_second": 0, "burst_count": 0}),
        OwnLimits::Messages(rate) => {
            let each_second = rate.each_second();
            // Synapse knows whole numbers only, and its tools may too.
            let whole = each_second.fract() == 0.0;
            let number = match whole {
                true => Some(Number::from(each_second as u64)),
                false => Number::from_f64(each_second),
            };
            json!({"messages_per_second": number, "burst_count": rate.burst()})
        }
    };
    Written(told.to_string().into())
}
