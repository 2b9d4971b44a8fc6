//! Carries commands out.

use config::ServerRule;
use error::Result;
use ruma::{EventId, OwnedUserId, UserId};
use storage::ShortUserId;
use tokio::task::spawn_blocking;
use users::NewAccount;

use super::{Account, Answer, Command};
use crate::Server;

/// How many accounts one answer lists.
const PAGE: usize = 1_000;

/// Carries a command out. What goes wrong is told to the operator whole: who may ask may know.
pub async fn perform(server: Server, command: Command) -> Answer {
    match try_perform(&server, command).await {
        Ok(answer) => answer,
        Err(error) => Answer::Refused(match error.message() {
            Some(message) => message.to_owned(),
            None => error.to_string(),
        }),
    }
}

async fn try_perform(server: &Server, command: Command) -> Result<Answer> {
    let users = &server.users;
    match command {
        Command::CreateUser {
            localpart,
            password,
            admin,
        } => {
            let new = NewAccount {
                username: &localpart,
                password: Some(&password),
                admin,
                guest: false,
            };
            let account = users.create(new).await?;
            Ok(Answer::User(account.user_id.into()))
        }
        Command::ResetPassword { user, password } => {
            let user = find(server, &user).await?;
            users.reset_password(&user, &password, true).await?;
            Ok(Answer::User(user.into()))
        }
        Command::MakeAdmin { user } => {
            let user = find(server, &user).await?;
            users.set_admin(&user, true).await?;
            Ok(Answer::User(user.into()))
        }
        Command::Deactivate { user } => {
            let user = find(server, &user).await?;
            users.deactivate(&user, false).await?;
            Ok(Answer::User(user.into()))
        }
        Command::LimitUser { user, limits } => {
            let limits = limits
                .parse()
                .map_err(|no_rate: config::NoRate| error::invalid_param(no_rate.to_string()))?;
            let user = find(server, &user).await?;
            users.set_own_limits(&user, limits).await?;
            Ok(Answer::User(user.into()))
        }
        Command::SetLocked { user, locked } => {
            let user = find(server, &user).await?;
            users.set_locked(&user, locked).await?;
            Ok(Answer::User(user.into()))
        }
        Command::SetSuspended { user, suspended } => {
            let user = find(server, &user).await?;
            users.set_suspended(&user, suspended).await?;
            Ok(Answer::User(user.into()))
        }
        Command::ListUsers { from } => list(server, from.as_deref()).await,
        Command::RotateSigningKey => {
            let keys = server.federation.signing_keys();
            keys.rotate(server.clock.now()).await?;
            Ok(Answer::SigningKey(keys.current().key_id().to_string()))
        }
        Command::SetFederationPolicy {
            enabled,
            allow,
            deny,
        } => {
            let rules = |texts: Vec<String>| -> Result<Vec<ServerRule>> {
                let rules = texts.iter().map(|text| {
                    let rule = text.parse();
                    rule.map_err(|no: config::NoServerRule| error::invalid_param(no.to_string()))
                });
                rules.collect()
            };
            server.federation.set_policy(&config::Federation {
                enabled,
                allow: rules(allow)?,
                deny: rules(deny)?,
                ..config::Federation::default()
            });
            Ok(Answer::Done {})
        }
        Command::ExplainState {
            event_id,
            event_type,
        } => {
            let no_id = |error| error::invalid_param(format!("{event_id} is not an id: {error}"));
            let event_id = EventId::parse(&event_id).map_err(no_id)?;
            let explained = server.rooms.explain(&event_id, event_type.as_deref());
            Ok(Answer::State(Box::new(explained.await?)))
        }
        Command::Backup { folder } => {
            let (storage, media) = (server.storage.clone(), server.media.clone());
            let back_up = move || storage.backup(&folder, |backup| media.back_up(backup));
            let made = spawn_blocking(back_up).await;
            made.map_err(error::internal)?.map_err(error::internal)?;
            Ok(Answer::Done {})
        }
    }
}

/// The account that an operator means by a user ID, or by what stands before its colon.
async fn find(server: &Server, user: &str) -> Result<OwnedUserId> {
    let name = server.users.server_name();
    let whole = if user.starts_with('@') {
        user.to_owned()
    } else {
        format!("@{user}:{name}")
    };
    let user_id = UserId::parse(whole.as_str())
        .map_err(|error| error::invalid_param(format!("{whole} is not a user ID: {error}")))?;
    if user_id.server_name() != name {
        return Err(error::not_found(format!(
            "{user_id} is a user of another server; this is {name}"
        )));
    }
    match server.users.find_account(&user_id).await? {
        Some(account) => Ok(account.user_id),
        None => Err(error::not_found(format!("There is no user {user_id}"))),
    }
}

async fn list(server: &Server, from: Option<&str>) -> Result<Answer> {
    let after = from.map(read_place).transpose()?;
    let accounts = server.users.accounts(after, PAGE).await?;
    let next = match accounts.last() {
        Some(last) if accounts.len() == PAGE => Some(write_place(last.user)),
        _ => None,
    };
    let users = accounts.into_iter().map(|account| Account {
        user_id: account.user_id.into(),
        created_ts: account.created_ts,
        admin: account.admin,
        deactivated: account.deactivated,
        locked: account.locked,
        suspended: account.suspended,
    });
    Ok(Answer::Users {
        users: users.collect(),
        next,
    })
}

fn write_place(user: ShortUserId) -> String {
    format!("{:016x}", u64::from_be_bytes(user.0))
}

fn read_place(text: &str) -> Result<ShortUserId> {
    match u64::from_str_radix(text, 16) {
        Ok(place) => Ok(ShortUserId(place.to_be_bytes())),
        Err(error) => Err(error::invalid_param(format!(
            "{text:?} is no place in the list: {error}"
        ))),
    }
}
