//! Giving out files to other servers.

use error::Result;
use http::{HeaderValue, Response, header};
use ruma::api::federation::authenticated_media::{get_content, get_content_thumbnail};

use crate::{
    Call, Content, Server,
    client::file::{self, Asked, Shape},
};

/// Letters of what separates the parts of an answer: so many that no file holds them by chance, and none
/// can be made to.
const BOUNDARY_LETTERS: usize = 32;

/// [`GET /_matrix/federation/v1/media/download/{mediaId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid).
pub(super) async fn get_content(
    server: Server,
    call: Call<get_content::v1::Request>,
) -> Result<Response<Content>> {
    let asked = Asked {
        server_name: server.federation.server_name(),
        media_id: &call.media_id,
        patience: call.timeout_ms,
    };
    let answer = file::download(&server, asked, None).await?;
    Ok(in_parts(&server, answer))
}

/// [`GET /_matrix/federation/v1/media/thumbnail/{mediaId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediathumbnailmediaid).
pub(super) async fn get_content_thumbnail(
    server: Server,
    call: Call<get_content_thumbnail::v1::Request>,
) -> Result<Response<Content>> {
    let asked = Asked {
        server_name: server.federation.server_name(),
        media_id: &call.media_id,
        patience: call.timeout_ms,
    };
    let shape = Shape {
        width: call.width.into(),
        height: call.height.into(),
        method: call.method.clone(),
        animated: call.animated,
    };
    let answer = file::thumbnail(&server, asked, shape).await?;
    Ok(in_parts(&server, answer))
}

/// The file as the second part of an answer, behind what is said of it: so far an empty object.
fn in_parts(server: &Server, answer: Response<Content>) -> Response<Content> {
    let boundary = server.random.letters(BOUNDARY_LETTERS);
    let (head, content) = answer.into_parts();
    let mut before =
        format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n")
            .into_bytes();
    for (name, shown) in [
        (header::CONTENT_TYPE, "Content-Type"),
        (header::CONTENT_DISPOSITION, "Content-Disposition"),
    ] {
        if let Some(value) = head.headers.get(name) {
            before.extend_from_slice(shown.as_bytes());
            before.extend_from_slice(b": ");
            before.extend_from_slice(value.as_bytes());
            before.extend_from_slice(b"\r\n");
        }
    }
    before.extend_from_slice(b"\r\n");
    let after = format!("\r\n--{boundary}--\r\n");
    let mut answer = Response::new(content.between(&before, after.as_bytes()));
    let kind = HeaderValue::try_from(format!("multipart/mixed; boundary={boundary}"));
    let kind = kind.unwrap_or(HeaderValue::from_static("multipart/mixed"));
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
