//! `chapar user`: accounts.

use std::{
    fs::File,
    io::{self, Read as _},
};

use api::control::{Account, Answer, Command};
use clap::{Args, Subcommand};
use storage::Random;

use super::{
    Failure, Settings,
    operator::{self, Operator},
    output,
};

/// Of a password that is made here: 120 bits.
const MADE_LENGTH: usize = 20;

/// Of a password that is read: more than argon2 needs, less than the control socket takes.
const LONGEST_PASSWORD: u64 = 16 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Makes an account.
    Create {
        /// What stands before the colon of the user ID.
        name: String,
        /// Let it administer the server.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: Password,
    },
    /// Gives an account another password and ends its sessions.
    ResetPassword {
        /// A user ID, or what stands before its colon.
        user: String,
        #[command(flatten)]
        password: Password,
    },
    /// Lets an account administer the server.
    MakeAdmin {
        /// A user ID, or what stands before its colon.
        user: String,
    },
    /// Closes an account for ever: it leaves its rooms, and nobody can log in to it again.
    Deactivate {
        /// A user ID, or what stands before its colon.
        user: String,
    },
    /// Locks an account: its sessions stay, and nothing can be done with them but logging out.
    Lock {
        /// A user ID, or what stands before its colon.
        user: String,
    },
    /// Opens a locked account again.
    Unlock {
        /// A user ID, or what stands before its colon.
        user: String,
    },
    /// Suspends an account: it may read and leave rooms, and not send or join.
    Suspend {
        /// A user ID, or what stands before its colon.
        user: String,
    },
    /// Ends the suspension of an account.
    Unsuspend {
        /// A user ID, or what stands before its colon.
        user: String,
    },
    /// Says how often an account may do things, instead of what the settings say.
    RateLimit {
        /// A user ID, or what stands before its colon.
        user: String,
        /// How often it may send messages, such as "20, then 60/min"; "none" if nothing is limited, "default"
        /// for what the settings say.
        limits: String,
    },
    /// Lists all accounts.
    List {
        /// As JSON, one account a line.
        #[arg(long)]
        json: bool,
    },
}

/// Where a password comes from. Never from the command line, which others on the machine can see.
#[derive(Debug, Args)]
struct Password {
    /// Take the first line of this file, or of standard input for `-`, instead of making a password
    /// and printing it.
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
}

pub(crate) fn run(settings: &Settings, arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        UserCommand::Create {
            name,
            admin,
            password,
        } => {
            let (password, made) = password.read_or_make()?;
            let command = Command::CreateUser {
                localpart: name,
                password: password.clone(),
                admin,
            };
            done(settings, command, "created")?;
            tell(made, &password)
        }
        UserCommand::ResetPassword { user, password } => {
            let (password, made) = password.read_or_make()?;
            let command = Command::ResetPassword {
                user,
                password: password.clone(),
            };
            done(
                settings,
                command,
                "has another password now, and no sessions",
            )?;
            tell(made, &password)
        }
        UserCommand::MakeAdmin { user } => done(
            settings,
            Command::MakeAdmin { user },
            "may administer the server",
        ),
        UserCommand::Deactivate { user } => {
            done(settings, Command::Deactivate { user }, "is deactivated")
        }
        UserCommand::Lock { user } => lock(settings, user, true, "is locked"),
        UserCommand::Unlock { user } => lock(settings, user, false, "is open again"),
        UserCommand::Suspend { user } => suspend(settings, user, true, "is suspended"),
        UserCommand::Unsuspend { user } => suspend(settings, user, false, "is suspended no longer"),
        UserCommand::RateLimit { user, limits } => done(
            settings,
            Command::LimitUser { user, limits },
            "has these limits now",
        ),
        UserCommand::List { json } => list(settings, json),
    }
}

fn done(settings: &Settings, command: Command, what: &str) -> Result<(), Failure> {
    match operator::ask(settings, command)? {
        Answer::User(user) => output::line(format_args!("{user} {what}")),
        other => Err(unexpected(&other)),
    }
}

fn lock(settings: &Settings, user: String, locked: bool, what: &str) -> Result<(), Failure> {
    done(settings, Command::SetLocked { user, locked }, what)
}

fn suspend(settings: &Settings, user: String, suspended: bool, what: &str) -> Result<(), Failure> {
    done(settings, Command::SetSuspended { user, suspended }, what)
}

fn tell(made: bool, password: &str) -> Result<(), Failure> {
    if made {
        output::line(format_args!("password: {password}"))
    } else {
        Ok(())
    }
}

fn list(settings: &Settings, json: bool) -> Result<(), Failure> {
    let mut operator = Operator::new(settings)?;
    let listed = list_pages(&mut operator, json);
    operator.finish()?;
    listed
}

fn list_pages(operator: &mut Operator, json: bool) -> Result<(), Failure> {
    let mut from = None;
    loop {
        let (users, next) = match operator.ask(Command::ListUsers { from })? {
            Answer::Users { users, next } => (users, next),
            other => return Err(unexpected(&other)),
        };
        for account in &users {
            print(account, json)?;
        }
        match next {
            Some(next) => from = Some(next),
            None => return Ok(()),
        }
    }
}

fn print(account: &Account, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(format_args!("{}", serde_json::to_string(account)?));
    }
    let marks = [
        (account.admin, " admin"),
        (account.deactivated, " deactivated"),
        (account.locked, " locked"),
        (account.suspended, " suspended"),
    ];
    let marks = marks.map(|(is, mark)| if is { mark } else { "" }).concat();
    output::line(format_args!("{}{marks}", account.user_id))
}

fn unexpected(answer: &Answer) -> Failure {
    format!("the server answered something else: {answer:?}; is it of another version?").into()
}

impl Password {
    /// The password, and whether it was made here.
    fn read_or_make(&self) -> Result<(String, bool), Failure> {
        let Some(name) = &self.password_file else {
            return Ok((Random::from_system().letters(MADE_LENGTH), true));
        };
        let mut text = String::new();
        let read = if name == "-" {
            io::stdin().take(LONGEST_PASSWORD).read_to_string(&mut text)
        } else {
            File::open(name).and_then(|file| file.take(LONGEST_PASSWORD).read_to_string(&mut text))
        };
        read.map_err(|error| format!("no password from {name}: {error}"))?;
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok((password.to_owned(), false)),
            _ => Err(format!("the first line of {name} holds no password").into()),
        }
    }
}
