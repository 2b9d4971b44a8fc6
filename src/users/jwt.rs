//! Logging in with a JSON Web Token that somebody else made, whom the operator trusts
//! (`org.matrix.login.jwt`, as in Synapse).

use error::Result;
use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};

use config::JwtAlgorithm;

/// The type of this way to log in.
pub(crate) const TYPE: &str = "org.matrix.login.jwt";

/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Checks tokens.
pub(crate) struct Jwt {
    key: DecodingKey,
    validation: Validation,
    subject: String,
}

impl Jwt {
    /// What the operator chose; `None` if nobody may log in this way.
    ///
    /// # Errors
    ///
    /// The key is not one of the algorithm.
    pub(crate) fn new(settings: &config::Logins) -> Result<Option<Self>> {
        let Some(key) = &settings.jwt_key else {
            return Ok(None);
        };
        let key = key.reveal().as_bytes();
        let (algorithm, key) = match settings.jwt_algorithm {
            JwtAlgorithm::Hs256 => (Algorithm::HS256, Ok(DecodingKey::from_secret(key))),
            JwtAlgorithm::Hs384 => (Algorithm::HS384, Ok(DecodingKey::from_secret(key))),
            JwtAlgorithm::Hs512 => (Algorithm::HS512, Ok(DecodingKey::from_secret(key))),
            JwtAlgorithm::Rs256 => (Algorithm::RS256, DecodingKey::from_rsa_pem(key)),
            JwtAlgorithm::Rs512 => (Algorithm::RS512, DecodingKey::from_rsa_pem(key)),
            JwtAlgorithm::Ps256 => (Algorithm::PS256, DecodingKey::from_rsa_pem(key)),
            JwtAlgorithm::Es256 => (Algorithm::ES256, DecodingKey::from_ec_pem(key)),
            JwtAlgorithm::EdDsa => (Algorithm::EdDSA, DecodingKey::from_ed_pem(key)),
        };
        let key =
            key.map_err(|failure| error::internal(failure).context("reading logins.jwt_key"))?;
        let mut validation = Validation::new(algorithm);
        // Times are checked below, on the clock that everything else goes by.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        if !settings.jwt_issuer.is_empty() {
            validation.set_issuer(&[&settings.jwt_issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if !settings.jwt_audience.is_empty() {
            validation.set_audience(&[&settings.jwt_audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        Ok(Some(Self {
            key,
            validation,
            subject: settings.jwt_subject.clone(),
        }))
    }

    /// The user name that a token proves. `now` in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// 403 if it proves none.
    pub(crate) fn prove(&self, token: &str, now: u64) -> Result<String> {
        if token.len() > MAX_TOKEN {
            return Err(error::forbidden("The JSON Web Token is too long"));
        }
        let claims = decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|failure| {
                error::forbidden(format!("The JSON Web Token is refused: {failure}"))
            })?
            .claims;
        check_time(&claims, now / 1_000)?;
        match claims.get(&self.subject).and_then(Value::as_str) {
            Some(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err(error::forbidden(format!(
                "The JSON Web Token does not say who logs in, in {}",
                self.subject
            ))),
        }
    }
}

/// Checks `exp` and `nbf` where they are; `now` in seconds.
fn check_time(claims: &Map<String, Value>, now: u64) -> Result<()> {
    let seconds = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_u64().or_else(|| whole_seconds(value)) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(error::forbidden(format!("{claim} is no time"))),
        },
    };
    if seconds("exp")?.is_some_and(|end| end <= now) {
        return Err(error::forbidden("The JSON Web Token has expired"));
    }
    if seconds("nbf")?.is_some_and(|begin| begin > now) {
        return Err(error::forbidden("The JSON Web Token is not valid yet"));
    }
    Ok(())
}

/// Times may have fractions.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole_seconds(value: &Value) -> Option<u64> {
    let seconds = value.as_f64()?;
    (0.0..=9e15).contains(&seconds).then_some(seconds as u64)
}

/// The token that a client sent.
///
/// # Errors
///
/// 400 `M_MISSING_PARAM` if there is none.
pub(crate) fn token_in(data: &Map<String, Value>) -> Result<&str> {
    data.get("token")
        .and_then(Value::as_str)
        .ok_or_else(|| error::missing_param("The JSON Web Token belongs into `token`"))
}

pub(crate) fn not_offered() -> error::Error {
    error::unknown(
        StatusCode::BAD_REQUEST,
        "This server does not offer this way to log in",
    )
}
