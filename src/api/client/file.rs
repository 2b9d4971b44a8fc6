//! How files are given out: as a file and not as a page, whatever is in them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#content-repository

use std::time::Duration;

use bytes::Bytes;
use error::Result;
use http::{
    HeaderName, HeaderValue, Response,
    header::{
        CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use media::{Stored, Thumbnail, Wanted};
use ruma::{
    ServerName,
    api::client::media::is_safe_inline_content_type,
    http_headers::{ContentDisposition, ContentDispositionType},
    media::Method,
};

use crate::{Content, Server};

/// What files without a type are.
const UNTYPED: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Lets pages with special rights load them.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// What a file may do when it is looked at in a browser: nothing.
const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
     style-src 'unsafe-inline'; object-src 'self';",
);

/// A file never changes. It is for those who may ask for it, and not for caches between.
const CACHED: HeaderValue = HeaderValue::from_static("private, max-age=86400, immutable");

/// The longest name that a client may give a file to save it under, in bytes.
const LONGEST_NAME: usize = 1024;

/// Which file is asked for, and how long the client would wait for it.
pub(crate) struct Asked<'a> {
    pub(crate) server_name: &'a ServerName,
    pub(crate) media_id: &'a str,
    pub(crate) patience: Duration,
}

/// The shape of a thumbnail that is asked for.
pub(crate) struct Shape {
    pub(crate) width: u64,
    pub(crate) height: u64,
    pub(crate) method: Option<Method>,
    pub(crate) animated: Option<bool>,
}

/// What a call of any of the endpoints asks for.
macro_rules! asked {
    ($call:expr) => {
        $crate::client::file::Asked {
            server_name: &$call.server_name,
            media_id: &$call.media_id,
            patience: $call.timeout_ms,
        }
    };
}

/// The shape that a call for a thumbnail asks for.
macro_rules! shape {
    ($call:expr) => {
        $crate::client::file::Shape {
            width: $call.width.into(),
            height: $call.height.into(),
            method: $call.method.clone(),
            animated: $call.animated,
        }
    };
}

pub(super) use {asked, shape};

impl Asked<'_> {
    async fn find(&self, server: &Server) -> Result<Stored> {
        let stop = server.shutdown.begun();
        let media = &server.media;
        media
            .find(self.server_name, self.media_id, self.patience, stop)
            .await
    }
}

/// The file, under its own name or another one.
///
/// # Errors
///
/// Those of [`media::Media::find`].
pub(crate) async fn download(
    server: &Server,
    asked: Asked<'_>,
    filename: Option<String>,
) -> Result<Response<Content>> {
    if filename
        .as_ref()
        .is_some_and(|name| name.len() > LONGEST_NAME)
    {
        return Err(error::invalid_param(format!(
            "A file name has at most {LONGEST_NAME} bytes"
        )));
    }
    let stored = asked.find(server).await?;
    original(server, stored, filename).await
}

/// A smaller picture of the file.
///
/// # Errors
///
/// Those of [`media::Media::find`] and [`media::Media::thumbnail`].
pub(crate) async fn thumbnail(
    server: &Server,
    asked: Asked<'_>,
    shape: Shape,
) -> Result<Response<Content>> {
    let wanted = Wanted {
        width: shape.width,
        height: shape.height,
        crop: shape.method == Some(Method::Crop),
        animated: shape.animated == Some(true),
    };
    let stored = asked.find(server).await?;
    match server.media.thumbnail(&stored, wanted).await? {
        Thumbnail::Original => original(server, stored, None).await,
        Thumbnail::Picture {
            content,
            content_type,
            extension,
        } => Ok(answer(
            Content::Whole(Bytes::from(content)),
            Some(content_type),
            Some(format!("thumbnail.{extension}")),
        )),
    }
}

async fn original(
    server: &Server,
    stored: Stored,
    filename: Option<String>,
) -> Result<Response<Content>> {
    let file = server.media.open_file(&stored).await?;
    Ok(answer(
        Content::file(file, stored.length),
        stored.described.content_type.as_deref(),
        filename.or(stored.described.filename),
    ))
}

fn answer(
    content: Content,
    content_type: Option<&str>,
    filename: Option<String>,
) -> Response<Content> {
    let mut response = Response::new(content);
    let headers = response.headers_mut();
    let kind = content_type.unwrap_or_default();
    let disposition = if is_harmless(kind) {
        ContentDispositionType::Inline
    } else {
        ContentDispositionType::Attachment
    };
    let plain = HeaderValue::from_static(if is_harmless(kind) {
        "inline"
    } else {
        "attachment"
    });
    let disposition = ContentDisposition::new(disposition).with_filename(filename);
    let disposition = HeaderValue::try_from(disposition.to_string());
    headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or(plain));
    let kind = match kind {
        "" => UNTYPED,
        kind => HeaderValue::try_from(kind).unwrap_or(UNTYPED),
    };
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("cross-origin"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, CACHED);
    response
}

/// Whether a browser may show it ([spec]). Spaces are what HTTP takes for them; of types behind a comma a browser takes the last one it
/// knows, whatever the first says.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content
fn is_harmless(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim_matches([' ', '\t']).to_ascii_lowercase();
    !content_type.contains(',') && is_safe_inline_content_type(&essence)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn disposition(content_type: Option<&str>, filename: Option<&str>) -> String {
        let whole = Content::Whole(Bytes::new());
        let answer = answer(whole, content_type, filename.map(str::to_owned));
        let value = &answer.headers()[CONTENT_DISPOSITION];
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn only_what_is_harmless_is_shown() {
        for harmless in [
            "image/png",
            "IMAGE/PNG",
            "text/plain; charset=utf-8",
            "video/mp4 ",
        ] {
            assert_eq!(disposition(Some(harmless), None), "inline", "{harmless}");
        }
        for other in [
            "text/html",
            "Text/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xhtml+xml",
            "application/pdf",
            "text/xml",
            "image/png, text/html",
            "image/png; a=\",\", text/html",
            "image/png\u{b}",
            "",
            ";image/png",
        ] {
            assert_eq!(disposition(Some(other), None), "attachment", "{other}");
        }
        assert_eq!(disposition(None, None), "attachment");
    }

    #[test]
    fn names_cannot_end_the_header() {
        for (name, header) in [
            ("ascii", "inline; filename=ascii"),
            ("with space", "inline; filename=\"with space\""),
            ("a\"b\\c;d", "inline; filename=\"a\\\"b\\\\c;d\""),
            ("🐔", "inline; filename*=utf-8''%F0%9F%90%94"),
            ("a\r\nSet-Cookie: b", "inline; filename=\"aSet-Cookie: b\""),
            ("é\r\nX", "inline; filename*=utf-8''%C3%A9%0D%0AX"),
        ] {
            assert_eq!(disposition(Some("image/png"), Some(name)), header);
        }
    }
}
