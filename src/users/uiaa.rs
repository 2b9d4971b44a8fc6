//! User-interactive authentication: what a client still has to prove, and what it has proven.
//!
//! Sessions are kept in memory. They are few, short-lived and bound to what they were begun for; one
//! that is unknown, over or another's is as good as none, and the client begins anew.

use std::collections::{HashMap, VecDeque};

use error::{Error, Result};
use ruma::api::client::uiaa::{AuthData, AuthFlow, AuthType, Password, UiaaInfo};
use storage::NameHash;

use crate::{Requester, Users, failures::Tried, localpart, login::name_in, password::Checked};

/// How long a session lasts, in milliseconds.
const LIFETIME: u64 = 15 * 60 * 1000;

/// How many sessions there may be; a new one ends the oldest.
const MAX_SESSIONS: usize = 10_000;

/// Letters in the name of a session.
const NAME_LETTERS: usize = 24;

/// Sessions, in the order in which they end.
#[derive(Default)]
pub(crate) struct Sessions {
    by_name: HashMap<String, Session>,
    order: VecDeque<(u64, String)>,
}

struct Session {
    purpose: String,
    completed: Vec<AuthType>,
    ends: u64,
    registration_token: Option<NameHash>,
}

impl Sessions {
    fn remove_old(&mut self, now: u64) {
        while let Some((ends, name)) = self.order.front() {
            if *ends > now && self.order.len() < MAX_SESSIONS {
                break;
            }
            self.by_name.remove(name);
            self.order.pop_front();
        }
    }
}

/// What a request asks to be proven.
pub(crate) struct Interaction<'a> {
    /// What the session is good for: the same words for the same request only.
    pub(crate) purpose: String,
    /// The ways to prove it: the stages of each.
    pub(crate) flows: Vec<Vec<AuthType>>,
    /// Whose password counts.
    pub(crate) requester: Option<&'a Requester>,
}

/// A session in which everything was proven.
pub(crate) struct Proven {
    session: String,
    /// The registration token that was shown.
    pub(crate) registration_token: Option<NameHash>,
}

impl Users {
    /// Has a requester prove with their password that it is them who asks for `purpose`: words that
    /// name the request and what it is about, such as the endpoint and a device id.
    ///
    /// # Errors
    ///
    /// 401 with what is left to be proven; 403 `M_FORBIDDEN` for the password of somebody else, which no
    /// further try makes a proof.
    pub async fn prove_again(
        &self,
        requester: &Requester,
        purpose: &str,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        if let Some(AuthData::Password(password)) = auth {
            let name = name_in(&password.identifier)?;
            let meant = localpart::login_candidates(name, &self.0.server_name);
            if !meant.contains(&requester.user_id) {
                return Err(error::forbidden("This is somebody else"));
            }
        }
        let interaction = Interaction {
            purpose: format!("{:?} {purpose}", requester.user),
            flows: vec![vec![AuthType::Password]],
            requester: Some(requester),
        };
        let proven = self.interact(&interaction, auth).await?;
        self.end_interaction(&proven);
        Ok(())
    }

    /// The same, but an application service that acts as its user has nothing to prove: it has no password, and
    /// full control.
    ///
    /// # Errors
    ///
    /// Those of [`Users::prove_again`].
    pub async fn prove_again_or_serve(
        &self,
        requester: &Requester,
        purpose: &str,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        match requester.service {
            Some(_) => Ok(()),
            None => self.prove_again(requester, purpose, auth).await,
        }
    }

    /// Takes the next step. Returns only when a whole flow was proven.
    ///
    /// # Errors
    ///
    /// 401 with the flows, what was completed, and why the last step failed, if it did.
    pub(crate) async fn interact(
        &self,
        interaction: &Interaction<'_>,
        auth: Option<&AuthData>,
    ) -> Result<Proven> {
        let session = self.find_or_begin(&interaction.purpose, auth.and_then(AuthData::session));
        let step = match auth {
            // Only asks how far it is.
            None | Some(AuthData::FallbackAcknowledgement(_)) => Ok(()),
            Some(auth) => self.prove_stage(interaction, &session, auth).await,
        };
        let completed = self.completed(&session);
        let proven = interaction
            .flows
            .iter()
            .any(|stages| stages.iter().all(|stage| completed.contains(stage)));
        if proven && step.is_ok() {
            let sessions = self.0.sessions.lock();
            let shown = sessions.by_name.get(&session);
            return Ok(Proven {
                registration_token: shown.and_then(|session| session.registration_token),
                session,
            });
        }
        let flows = interaction.flows.iter().cloned().map(AuthFlow::new);
        let mut info = UiaaInfo::new(flows.collect());
        info.completed = completed;
        info.session = Some(session);
        // Older clients look for it, and the specification shows it.
        info.params = serde_json::value::to_raw_value(&serde_json::json!({})).ok();
        Err(match step {
            Ok(()) => Error::challenge(info),
            Err(reason) => Error::challenge_again(info, reason),
        })
    }

    /// Ends a session whose proof was used.
    pub(crate) fn end_interaction(&self, proven: &Proven) {
        self.0.sessions.lock().by_name.remove(&proven.session);
    }

    fn find_or_begin(&self, purpose: &str, session: Option<&str>) -> String {
        let now = self.now();
        let mut sessions = self.0.sessions.lock();
        sessions.remove_old(now);
        if let Some(name) = session
            && let Some(session) = sessions.by_name.get(name)
            && session.purpose == purpose
            && session.ends > now
        {
            return name.to_owned();
        }
        let name = self.0.random.letters(NAME_LETTERS);
        let ends = now.saturating_add(LIFETIME);
        sessions.order.push_back((ends, name.clone()));
        sessions.by_name.insert(
            name.clone(),
            Session {
                purpose: purpose.to_owned(),
                completed: Vec::new(),
                ends,
                registration_token: None,
            },
        );
        name
    }

    fn completed(&self, session: &str) -> Vec<AuthType> {
        let sessions = self.0.sessions.lock();
        let session = sessions.by_name.get(session);
        session.map_or_else(Vec::new, |session| session.completed.clone())
    }

    async fn prove_stage(
        &self,
        interaction: &Interaction<'_>,
        session: &str,
        auth: &AuthData,
    ) -> Result<()> {
        let offered = |stage: &AuthType| interaction.flows.iter().any(|flow| flow.contains(stage));
        let Some(stage) = auth.auth_type().filter(offered) else {
            return Err(error::unrecognized("This is not one of the stages"));
        };
        let mut token = None;
        match (auth, interaction.requester) {
            (AuthData::Dummy(_), _) => {}
            (AuthData::Password(password), Some(requester)) => {
                self.prove_password(requester, password).await?;
            }
            (AuthData::RegistrationToken(shown), _) => {
                token = Some(self.check_registration_token(&shown.token).await?);
            }
            _ => return Err(error::unrecognized("This stage cannot be proven here")),
        }
        let mut sessions = self.0.sessions.lock();
        if let Some(session) = sessions.by_name.get_mut(session) {
            if !session.completed.contains(&stage) {
                session.completed.push(stage);
            }
            session.registration_token = token.or(session.registration_token);
        }
        Ok(())
    }

    async fn prove_password(&self, requester: &Requester, password: &Password) -> Result<()> {
        let account = self.failure_key(requester.user_id.as_str());
        let tried = Tried::new(account, None);
        self.0.failures.check(tried, self.now())?;
        let snapshot = self.snapshot().await?;
        let account = crate::account::find_row(&snapshot, requester.user).await?;
        let stored = account
            .as_ref()
            .and_then(|account| account.value.password_hash.as_deref());
        match self.0.passwords.check(&password.password, stored).await? {
            Checked::Right | Checked::RightBut(_) => {
                self.0.failures.succeeded(tried);
                Ok(())
            }
            Checked::Wrong => {
                self.0.failures.failed(tried, self.now());
                Err(error::forbidden("The password is wrong"))
            }
        }
    }
}
