//! Filters that a client stores to name them later.

use bytes::Bytes;
use error::Result;
use ruma::api::client::filter::{create_filter, get_filter};
use serde_json::value::RawValue;

use super::check_own;
use crate::{Call, Server, endpoint::Written};

/// [`POST /user/{userId}/filter`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter).
pub(super) async fn create_filter(
    server: Server,
    call: Call<create_filter::v3::Request>,
) -> Result<create_filter::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    // As it was written: Ruma's type leaves some of it out.
    let filter: Box<RawValue> =
        serde_json::from_slice(&call.body).map_err(|fault| error::bad_json(fault.to_string()))?;
    let id = server
        .users
        .create_filter(call.caller.user, &filter)
        .await?;
    Ok(create_filter::v3::Response::new(id))
}

/// [`GET /user/{userId}/filter/{filterId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid).
pub(super) async fn get_filter(
    server: Server,
    call: Call<get_filter::v3::Request>,
) -> Result<Written> {
    check_own(&call.caller, &call.user_id)?;
    let found = server
        .users
        .find_filter(call.caller.user, &call.filter_id)
        .await?;
    let filter = found.ok_or_else(|| error::not_found("You have no filter with this id"))?;
    Ok(Written(Bytes::from(Box::<str>::from(filter).into_string())))
}
