//! `chapar federation`: what this server has to do with others.

use api::control::{Answer, Command};
use clap::{Args, Subcommand};

use super::{Failure, Settings, operator, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: FederationCommand,
}

#[derive(Debug, Subcommand)]
enum FederationCommand {
    /// Makes a new signing key. What the one before has signed can still be verified.
    RotateKey,
    /// Reads anew from the settings which servers this one talks to (`enabled`, `allow` and `deny` of
    /// `[federation]`), while it runs.
    Reload,
}

pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> Result<(), Failure> {
    let command = match arguments.command {
        FederationCommand::RotateKey => Command::RotateSigningKey,
        FederationCommand::Reload => {
            let federation = settings.load()?.federation;
            let texts =
                |rules: &[::config::ServerRule]| rules.iter().map(ToString::to_string).collect();
            Command::SetFederationPolicy {
                enabled: federation.enabled,
                allow: texts(&federation.allow),
                deny: texts(&federation.deny),
            }
        }
    };
    match operator::ask(settings, command)? {
        Answer::SigningKey(key_id) => output::line(format_args!("signs with {key_id} from now on")),
        Answer::Done {} => output::line(format_args!("read anew")),
        other => Err(format!("the server answered something else: {other:?}").into()),
    }
}
