//! Taking in files, and the old paths on which they were given out to everybody ([frozen]): these answer
//! only where a setting says so.
//!
//! [frozen]: https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour
#![allow(deprecated)] // Ruma marks what the specification has given up.

use bytes::Bytes;
use error::Result;
use http::Response;
use media::Described;
use ruma::{
    MilliSecondsSinceUnixEpoch, ServerName, UInt,
    api::client::media::{
        create_content, create_content_async, create_mxc_uri, get_content, get_content_as_filename,
        get_content_thumbnail, get_media_config,
    },
};
use serde_json::json;
use users::Requester;

use super::file::{self, asked, shape};
use crate::{Call, Content, Server, body::Pieces, endpoint::Written};

/// [`POST /_matrix/media/v3/upload`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload).
pub(super) async fn create_content(
    server: Server,
    call: Call<create_content::v3::Request>,
    pieces: Pieces,
) -> Result<Written> {
    let described = Described {
        content_type: call.content_type.clone(),
        filename: call.filename.clone(),
    };
    let media_id = take_in(&server, &call.caller, None, described, pieces).await?;
    let uri = json!({ "content_uri": server.media.uri(&media_id) });
    Ok(Written(uri.to_string().into()))
}

/// [`PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid).
pub(super) async fn create_content_async(
    server: Server,
    call: Call<create_content_async::v3::Request>,
    pieces: Pieces,
) -> Result<Written> {
    let own = match call.server_name == server.users.server_name() {
        true => Ok(()),
        false => Err(error::not_found("This is an id of another server")),
    };
    let ((), pieces) = pieces.unless_refused(own).await?;
    let described = Described {
        content_type: call.content_type.clone(),
        filename: call.filename.clone(),
    };
    let media_id = Some(call.media_id.as_str());
    take_in(&server, &call.caller, media_id, described, pieces).await?;
    Ok(Written(Bytes::from_static(b"{}")))
}

/// Takes in a file whole, under a new id or one that was given out; gives the id.
async fn take_in(
    server: &Server,
    requester: &Requester,
    created: Option<&str>,
    described: Described,
    pieces: Pieces,
) -> Result<String> {
    let media = &server.media;
    let begun = media.begin_upload(requester.user, created, described).await;
    let (mut upload, mut pieces) = pieces.unless_refused(begun).await?;
    while let Some(piece) = pieces.next().await? {
        let written = upload.write(&piece).await;
        ((), pieces) = pieces.unless_refused(written).await?;
    }
    upload.finish().await
}

/// [`POST /_matrix/media/v1/create`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create).
pub(super) async fn create_mxc_uri(
    server: Server,
    call: Call<create_mxc_uri::v1::Request>,
) -> Result<create_mxc_uri::v1::Response> {
    let created = server.media.create(call.caller.user).await?;
    let uri = server.media.uri(&created.media_id);
    let mut response = create_mxc_uri::v1::Response::new(uri);
    let expires_ts = UInt::new_saturating(created.expires_ts);
    response.unused_expires_at = Some(MilliSecondsSinceUnixEpoch(expires_ts));
    Ok(response)
}

/// The old paths answer only where the operator says so.
///
/// # Errors
///
/// 404 `M_NOT_FOUND`.
fn check_open(server: &Server) -> Result<()> {
    if server.config.media.allow_unauthenticated {
        return Ok(());
    }
    Err(error::not_found(
        "This server gives out files to those with an account, below /_matrix/client/v1/media",
    ))
}

/// Other servers that ask by the old paths want what is here only: who asked each other for what neither has
/// would not end.
///
/// # Errors
///
/// 404 `M_NOT_FOUND`.
fn check_remote(server: &Server, allowed: bool, of: &ServerName) -> Result<()> {
    if allowed || of == server.federation.server_name() {
        return Ok(());
    }
    Err(error::not_found("This file is on another server"))
}

/// [`GET /_matrix/media/v3/download/{serverName}/{mediaId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid).
pub(super) async fn get_content(
    server: Server,
    call: Call<get_content::v3::Request>,
) -> Result<Response<Content>> {
    check_open(&server)?;
    check_remote(&server, call.allow_remote, &call.server_name)?;
    file::download(&server, asked!(call), None).await
}

/// [`GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaidfilename).
pub(super) async fn get_content_as_filename(
    server: Server,
    call: Call<get_content_as_filename::v3::Request>,
) -> Result<Response<Content>> {
    check_open(&server)?;
    check_remote(&server, call.allow_remote, &call.server_name)?;
    file::download(&server, asked!(call), Some(call.filename.clone())).await
}

/// [`GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3thumbnailservernamemediaid).
pub(super) async fn get_content_thumbnail(
    server: Server,
    call: Call<get_content_thumbnail::v3::Request>,
) -> Result<Response<Content>> {
    check_open(&server)?;
    check_remote(&server, call.allow_remote, &call.server_name)?;
    file::thumbnail(&server, asked!(call), shape!(call)).await
}

/// [`GET /_matrix/media/v3/config`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3config).
pub(super) async fn get_media_config(
    server: Server,
    _: Call<get_media_config::v3::Request>,
) -> Result<get_media_config::v3::Response> {
    let size = UInt::new_saturating(server.media.max_upload_size());
    Ok(get_media_config::v3::Response::new(size))
}
