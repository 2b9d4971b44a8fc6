//! What people reported, for administrators: events as in [Synapse's documentation], rooms and people in
//! the same form.
//!
//! [Synapse's documentation]: https://element-hq.github.io/synapse/latest/admin_api/event_reports.html

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use error::Result;
use rooms::{Report, ReportKind, ReportQuery, RoomNames};
use ruma::{EventId, RoomId, api::Direction};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{Call, Server, endpoint::Written};

/// How many reports a page has where nobody says.
const PAGE: u32 = 100;

/// The most on a page.
const LARGEST_PAGE: u32 = 1_000;

/// The three endpoints of a kind of report: to list, look at and delete them.
macro_rules! endpoints {
    ($kind:expr, $field:literal, $path:literal, $path_of_one:literal, $target:ident:
     $list:ident, $one:ident, $delete:ident) => {
        #[doc = concat!("`GET ", $path, "`.")]
        pub mod $list {
            use ruma::{
                api::{Direction, auth_scheme::AccessToken, request, response},
                metadata,
            };

            metadata! {
                method: GET,
                rate_limited: false,
                authentication: AccessToken,
                path: $path,
            }

            /// Which reports.
            #[request]
            pub struct Request {
                /// How many to leave out.
                #[ruma_api(query)]
                #[serde(default)]
                pub from: u32,
                /// How many at most.
                #[ruma_api(query)]
                pub limit: Option<u32>,
                /// Whether to begin with the newest (`b`), as is usual, or the oldest (`f`).
                #[ruma_api(query)]
                pub dir: Option<Direction>,
                /// What the reporter's user id contains.
                #[ruma_api(query)]
                pub user_id: Option<String>,
                /// What the room's id contains.
                #[ruma_api(query)]
                pub room_id: Option<String>,
                /// What the user id of the person, or of the event's sender, contains.
                #[ruma_api(query)]
                pub $target: Option<String>,
            }

            /// Written by the handler.
            #[response]
            pub struct Response {}
        }

        #[doc = concat!("`GET ", $path_of_one, "`.")]
        pub mod $one {
            use ruma::{
                api::{auth_scheme::AccessToken, request, response},
                metadata,
            };

            metadata! {
                method: GET,
                rate_limited: false,
                authentication: AccessToken,
                path: $path_of_one,
            }

            /// Which one.
            #[request]
            pub struct Request {
                /// Its number.
                #[ruma_api(path)]
                pub report_id: String,
            }

            /// Written by the handler.
            #[response]
            pub struct Response {}
        }

        #[doc = concat!("`DELETE ", $path_of_one, "`.")]
        pub mod $delete {
            use ruma::{
                api::{auth_scheme::AccessToken, request, response},
                metadata,
            };

            metadata! {
                method: DELETE,
                rate_limited: false,
                authentication: AccessToken,
                path: $path_of_one,
            }

            /// Which one.
            #[request]
            pub struct Request {
                /// Its number.
                #[ruma_api(path)]
                pub report_id: String,
            }

            /// Nothing to say.
            #[response]
            pub struct Response {}
        }

        pub(super) async fn $list(server: Server, call: Call<$list::Request>) -> Result<Written> {
            let Call { request, .. } = call;
            let query = ReportQuery {
                from: request.from as usize,
                limit: request.limit.unwrap_or(PAGE).min(LARGEST_PAGE) as usize,
                oldest_first: request.dir == Some(Direction::Forward),
                reporter: request.user_id,
                room_id: request.room_id,
                user_id: request.$target,
            };
            list(&server, $kind, $field, &query).await
        }

        pub(super) async fn $one(server: Server, call: Call<$one::Request>) -> Result<Written> {
            one(&server, $kind, &call.report_id).await
        }

        pub(super) async fn $delete(
            server: Server,
            call: Call<$delete::Request>,
        ) -> Result<$delete::Response> {
            delete(&server, $kind, &call.report_id).await?;
            Ok($delete::Response {})
        }
    };
}

endpoints!(
    ReportKind::Event, "event_reports",
    "/_synapse/admin/v1/event_reports", "/_synapse/admin/v1/event_reports/{report_id}",
    event_sender_user_id: get_event_reports, get_event_report, delete_event_report
);
endpoints!(
    ReportKind::Room, "room_reports",
    "/_synapse/admin/v1/room_reports", "/_synapse/admin/v1/room_reports/{report_id}",
    target_user_id: get_room_reports, get_room_report, delete_room_report
);
endpoints!(
    ReportKind::User, "user_reports",
    "/_synapse/admin/v1/user_reports", "/_synapse/admin/v1/user_reports/{report_id}",
    target_user_id: get_user_reports, get_user_report, delete_user_report
);

async fn list(
    server: &Server,
    kind: ReportKind,
    field: &str,
    query: &ReportQuery,
) -> Result<Written> {
    let (page, total) = server.rooms.reports(kind, query).await?;
    let names = names(server, &page).await?;
    let written = page
        .iter()
        .map(|report| Value::Object(told(kind, report, &names)));
    let mut answer = Map::new();
    answer.insert(field.to_owned(), written.collect());
    answer.insert("total".to_owned(), json!(total));
    let next = query.from.saturating_add(page.len());
    if next < total && !page.is_empty() {
        answer.insert("next_token".to_owned(), json!(next));
    }
    Ok(written_as(answer))
}

async fn one(server: &Server, kind: ReportKind, report_id: &str) -> Result<Written> {
    let number = number(report_id)?;
    let report = server.rooms.find_report(kind, number).await?;
    let page = [report.ok_or_else(no_report)?];
    let names = names(server, &page).await?;
    let [report] = page;
    let mut answer = told(kind, &report, &names);
    if kind == ReportKind::Event {
        let event = event_json(server, &report).await?;
        answer.insert("event_json".to_owned(), json!(event));
    }
    Ok(written_as(answer))
}

async fn delete(server: &Server, kind: ReportKind, report_id: &str) -> Result<()> {
    match server.rooms.delete_report(kind, number(report_id)?).await? {
        true => Ok(()),
        false => Err(no_report()),
    }
}

fn number(report_id: &str) -> Result<u64> {
    let number = report_id.parse().ok();
    number.ok_or_else(|| error::invalid_param("The number of a report is a whole number from 0 on"))
}

fn no_report() -> error::Error {
    error::not_found("There is no report of this number")
}

async fn names(server: &Server, page: &[Report]) -> Result<HashMap<String, RoomNames>> {
    let rooms: BTreeSet<_> = page
        .iter()
        .filter_map(|(_, row)| row.room_id.as_deref())
        .collect();
    server.rooms.names_of_rooms(rooms).await
}

/// A report as administrators get it.
fn told(
    kind: ReportKind,
    (number, row): &Report,
    names: &HashMap<String, RoomNames>,
) -> Map<String, Value> {
    let mut told = Map::new();
    let mut tell = |key: &str, value: Value| told.insert(key.to_owned(), value);
    tell("id", json!(number));
    tell("received_ts", json!(row.received_ts));
    tell("reason", json!(row.reason));
    tell("user_id", json!(row.reporter));
    if kind == ReportKind::Event {
        tell("event_id", json!(row.event_id));
        tell("sender", json!(row.user_id));
        // The specification has no score any more; the tools of operators still look for it.
        tell("score", Value::Null);
    }
    if kind == ReportKind::User {
        tell("target_user_id", json!(row.user_id));
    }
    if let Some(room_id) = &row.room_id {
        let names = names.get(room_id).cloned().unwrap_or_default();
        tell("room_id", json!(room_id));
        tell("name", json!(names.name));
        tell("canonical_alias", json!(names.canonical_alias));
    }
    told
}

/// The event as servers have it; none if it is gone.
async fn event_json(server: &Server, (_, row): &Report) -> Result<Option<Box<RawValue>>> {
    let (Some(room_id), Some(event_id)) = (&row.room_id, &row.event_id) else {
        return Ok(None);
    };
    let room_id = <&RoomId>::try_from(room_id.as_str()).map_err(error::internal)?;
    let event_id = <&EventId>::try_from(event_id.as_str()).map_err(error::internal)?;
    let Some(room) = server.rooms.find_room(room_id).await? else {
        return Ok(None);
    };
    let snapshot = server.rooms.snapshot().await?;
    let event = room.find_event(&server.rooms, &snapshot, event_id).await?;
    let json = event.map(|event| String::from_utf8(event.row.json.into()));
    let json = json.transpose().map_err(error::internal)?;
    json.map(RawValue::from_string)
        .transpose()
        .map_err(error::internal)
}

fn written_as(answer: Map<String, Value>) -> Written {
    Written(Bytes::from(Value::Object(answer).to_string()))
}
