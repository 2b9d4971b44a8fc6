//! The user directory.

use error::Result;
use ruma::api::client::user_directory::search_users;
use search::PeopleQuery;

use crate::{Call, Server};

/// The most people in one answer.
const MOST: usize = 50;

/// [`POST /user_directory/search`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch).
pub(super) async fn search_users(
    server: Server,
    call: Call<search_users::v3::Request>,
) -> Result<search_users::v3::Response> {
    let limit = usize::try_from(u64::from(call.limit)).unwrap_or(MOST);
    let found = server
        .search
        .people(&PeopleQuery {
            user: call.caller.user,
            user_id: &call.caller.user_id,
            term: &call.search_term,
            limit: limit.min(MOST),
        })
        .await?;
    let people = found.people.into_iter();
    let people = people.map(|person| {
        let mut user = search_users::v3::User::new(person.user_id);
        user.display_name = person.display_name;
        user.avatar_url = person.avatar_url.map(Into::into);
        user
    });
    Ok(search_users::v3::Response::new(
        people.collect(),
        found.limited,
    ))
}
