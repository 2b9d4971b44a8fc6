//! Accounts made by who knows the shared secret ([Synapse's documentation]).
//!
//! [Synapse's documentation]: https://element-hq.github.io/synapse/latest/admin_api/register_api.html

use error::Result;

use crate::{Call, Server};

/// `GET /_synapse/admin/v1/register`.
pub mod get_registration_nonce {
    use ruma::{
        api::{auth_scheme::NoAuthentication, request, response},
        metadata,
    };

    metadata! {
        method: GET,
        rate_limited: true,
        authentication: NoAuthentication,
        path: "/_synapse/admin/v1/register",
    }

    /// Nothing to say.
    #[request]
    pub struct Request {}

    /// A nonce for one registration.
    #[response]
    pub struct Response {
        /// The nonce.
        pub nonce: String,
    }
}

/// `POST /_synapse/admin/v1/register`.
pub mod register_with_shared_secret {
    use ruma::{
        OwnedDeviceId, OwnedServerName, OwnedUserId,
        api::{auth_scheme::NoAuthentication, request, response},
        metadata,
    };
    use users::SharedSecretRegistration;

    metadata! {
        method: POST,
        rate_limited: true,
        authentication: NoAuthentication,
        path: "/_synapse/admin/v1/register",
    }

    /// Who is to be made, and the proof that one may.
    #[request]
    pub struct Request {
        /// All of it.
        #[ruma_api(body)]
        pub registration: SharedSecretRegistration,
    }

    /// As an answer to `/register`.
    #[response]
    pub struct Response {
        /// The new account.
        pub user_id: OwnedUserId,
        /// Our name.
        pub home_server: OwnedServerName,
        /// The new device, unless nobody was to be logged in.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub device_id: Option<OwnedDeviceId>,
        /// Its access token.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub access_token: Option<String>,
    }
}

/// A nonce, good for a minute.
pub(super) async fn get_registration_nonce(
    server: Server,
    _: Call<get_registration_nonce::Request>,
) -> Result<get_registration_nonce::Response> {
    let nonce = server.users.registration_nonce()?;
    Ok(get_registration_nonce::Response { nonce })
}

/// Makes an account, whether registration is open or not.
pub(super) async fn register_with_shared_secret(
    server: Server,
    call: Call<register_with_shared_secret::Request>,
) -> Result<register_with_shared_secret::Response> {
    let wish = call.request.registration;
    let registered = server.users.register_with_shared_secret(wish).await?;
    let (device_id, access_token) = registered
        .login
        .map(|login| (login.device_id, login.access_token.into_string()))
        .unzip();
    Ok(register_with_shared_secret::Response {
        user_id: registered.user_id,
        home_server: server.users.server_name().to_owned(),
        device_id,
        access_token,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::fmt::Write as _;

    use config::Config;
    use hmac::{Hmac, Mac};
    use http::Method;
    use serde_json::{Value, json};
    use sha1::Sha1;

    use crate::{
        Server,
        tests::{ALL, json as json_of, parts, request},
    };

    const PATH: &str = "/_synapse/admin/v1/register";

    async fn ask(server: &Server, method: Method, body: String) -> (u16, Value) {
        let answer = server.answer(ALL, request(method, PATH, body)).await;
        (answer.status().as_u16(), json_of(&answer))
    }

    fn mac(parts: &[&str]) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(b"complement").unwrap();
        mac.update(parts.join("\0").as_bytes());
        let bytes = mac.finalize().into_bytes();
        bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        })
    }

    #[tokio::test]
    async fn who_knows_the_secret_makes_accounts() {
        let mut config = Config::default();
        config.registration.shared_secret = Some(config::Secret::new("complement".to_owned()));
        let server = Server::open(parts(config)).await.unwrap();
        let nonce = || async {
            let (status, body) = ask(&server, Method::GET, String::new()).await;
            assert_eq!(status, 200, "{body}");
            body["nonce"].as_str().unwrap().to_owned()
        };
        let known = nonce().await;
        let wish = |nonce: &str, name: &str, mac: String| {
            let password = "alice-password";
            json!({
                "nonce": nonce, "username": name, "password": password, "admin": true, "mac": mac,
            })
            .to_string()
        };
        let right = mac(&[&known, "alice", "alice-password", "admin"]);
        let body = wish(&known, "alice", right.clone());
        let (status, made) = ask(&server, Method::POST, body.clone()).await;
        assert_eq!(status, 200, "{made}");
        assert_eq!(made["user_id"], "@alice:localhost");
        assert_eq!(made["home_server"], "localhost");
        assert!(made["access_token"].is_string() && made["device_id"].is_string());

        let (status, again) = ask(&server, Method::POST, body).await;
        assert_eq!((status, &again["errcode"]), (400, &json!("M_UNKNOWN")));
        let body = wish(&nonce().await, "bob", right);
        let (status, wrong) = ask(&server, Method::POST, body).await;
        assert_eq!((status, &wrong["errcode"]), (403, &json!("M_UNKNOWN")));
        let (status, lacking) = ask(&server, Method::POST, "{}".to_owned()).await;
        assert_eq!(
            (status, &lacking["errcode"]),
            (400, &json!("M_MISSING_PARAM"))
        );
    }

    #[tokio::test]
    async fn without_a_secret_nobody_does() {
        let server = Server::open(parts(Config::default())).await.unwrap();
        let (status, _) = ask(&server, Method::GET, String::new()).await;
        assert_eq!(status, 400);
    }
}
