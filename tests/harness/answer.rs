//! What came back, and what a test may demand of it.

use serde_json::Value;

/// The answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, as they came.
    pub headers: reqwest::header::HeaderMap,
    /// The JSON of the body; `null` where the body is no JSON.
    pub body: Value,
    /// What was asked, for the message of a failing test.
    asked: String,
}

impl Answer {
    pub(crate) async fn read(
        asked: String,
        response: reqwest::Response,
    ) -> Result<Self, reqwest::Error> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Self {
            status,
            headers,
            body,
            asked,
        })
    }

    /// The body of a success (status 200, a JSON object); anything else fails the test.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(
            self.status == 200 && self.body.is_object(),
            "not a success: {self}"
        );
        self.body
    }

    /// Demands an error with this status and `errcode`, and a sentence in `error`; gives the body.
    #[track_caller]
    pub fn refused(self, status: u16, errcode: &str) -> Value {
        let code = self.body["errcode"].as_str();
        assert!(
            self.status == status && code == Some(errcode),
            "expected {status} {errcode}: {self}"
        );
        let sentence = self.body["error"].as_str().unwrap_or_default();
        assert!(
            sentence.len() >= 8 && sentence.contains(' '),
            "no sentence in `error`: {self}"
        );
        self.body
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut body = self.body.to_string();
        if let Some((cut, _)) = body.char_indices().nth(2000) {
            body.truncate(cut);
        }
        write!(f, "{} → {} {body}", self.asked, self.status)
    }
}

/// Percent-encodes one segment of a path or one value of a query.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
