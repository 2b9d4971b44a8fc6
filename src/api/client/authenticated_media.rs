//! Giving out files to those who have an account.

use error::Result;
use http::Response;
use ruma::{
    UInt,
    api::client::authenticated_media::{
        get_content, get_content_as_filename, get_content_thumbnail, get_media_config,
    },
};

use super::file::{self, asked, shape};
use crate::{Call, Content, Server};

/// [`GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid).
pub(super) async fn get_content(
    server: Server,
    call: Call<get_content::v1::Request>,
) -> Result<Response<Content>> {
    file::download(&server, asked!(call), None).await
}

/// [`GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaidfilename).
pub(super) async fn get_content_as_filename(
    server: Server,
    call: Call<get_content_as_filename::v1::Request>,
) -> Result<Response<Content>> {
    file::download(&server, asked!(call), Some(call.filename.clone())).await
}

/// [`GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid).
pub(super) async fn get_content_thumbnail(
    server: Server,
    call: Call<get_content_thumbnail::v1::Request>,
) -> Result<Response<Content>> {
    file::thumbnail(&server, asked!(call), shape!(call)).await
}

/// [`GET /_matrix/client/v1/media/config`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediaconfig).
pub(super) async fn get_media_config(
    server: Server,
    _: Call<get_media_config::v1::Request>,
) -> Result<get_media_config::v1::Response> {
    let size = UInt::new_saturating(server.media.max_upload_size());
    Ok(get_media_config::v1::Response::new(size))
}
