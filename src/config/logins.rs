//! Section `logins`.

use std::time::Duration;

use crate::{
    kinds::{ByteCount, Secret},
    problem::Problem,
};

section! {
    /// How people log in, besides by password.
    pub struct Logins {
        /// How long an access token is good for that its client can refresh. Those of clients that
        /// cannot are good until logout.
        access_token_lifetime: Duration = Duration::from_secs(300),

        /// Lets people log in with a JSON Web Token (`org.matrix.login.jwt`) that this key proves: a
        /// shared secret for `HS…`, a public key in PEM for others. Empty: nobody.
        jwt_key: Option<Secret> = None,

        /// How JSON Web Tokens are signed.
        jwt_algorithm: JwtAlgorithm = JwtAlgorithm::Hs256,

        /// The claim that holds the user name.
        jwt_subject: String = "sub".to_owned(),

        /// The issuer (`iss`) that must have made the token. Empty: any.
        jwt_issuer: String = String::new(),

        /// The audience (`aud`) that the token must be for. Empty: a token that names one is refused.
        jwt_audience: String = String::new(),
    }
}

choice! {
    /// How a JSON Web Token is signed.
    pub enum JwtAlgorithm {
        /// HMAC with SHA-256.
        Hs256 = "HS256",
        /// HMAC with SHA-384.
        Hs384 = "HS384",
        /// HMAC with SHA-512.
        Hs512 = "HS512",
        /// RSA (PKCS 1) with SHA-256.
        Rs256 = "RS256",
        /// RSA (PKCS 1) with SHA-512.
        Rs512 = "RS512",
        /// RSA (PSS) with SHA-256.
        Ps256 = "PS256",
        /// ECDSA on P-256 with SHA-256.
        Es256 = "ES256",
        /// Ed25519.
        EdDsa = "EdDSA",
    }
}

/// A lifetime that leaves time for a request, and a key that cannot be guessed.
pub(crate) fn check(logins: &Logins, problems: &mut Vec<Problem>) {
    if logins.access_token_lifetime < Duration::from_secs(10) {
        problems.push(Problem::new(
            "logins.access_token_lifetime must be at least 10 s".to_owned(),
        ));
    }
    if logins.jwt_subject.is_empty() {
        problems.push(Problem::new(
            "logins.jwt_subject cannot be empty".to_owned(),
        ));
    }
    let least = ByteCount::new(16);
    let short = |key: &Secret| (key.reveal().len() as u64) < least.get();
    if logins.jwt_key.as_ref().is_some_and(short) {
        problems.push(Problem::new(format!(
            "logins.jwt_key must have at least {least}: anybody who finds it out is everybody"
        )));
    }
}
