//! The command line: what can be said, and who does it.

mod backup;
mod config;
mod federation;
mod logging;
mod open;
mod operator;
mod output;
mod room;
mod serve;
mod user;

use std::{path::PathBuf, process::ExitCode};

use ::config::{Config, Sources};
use clap::{Args, Parser, Subcommand};

/// What a command says when it cannot do its work; shown after `chapar: `.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "chapar", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

/// Settings that the command line can give; they win over the file and the environment.
#[derive(Debug, Args)]
struct Settings {
    /// The file with the settings.
    #[arg(long, global = true, value_name = "FILE", env = "CHAPAR_CONFIG")]
    config: Option<PathBuf>,
    /// The folder that holds everything.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<String>,
    /// The name of the server: what stands behind the colon of a user ID.
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the server.
    Serve(serve::Arguments),
    /// Prints every setting with its documentation and default, or checks a file.
    Config(config::Arguments),
    /// Looks after accounts, whether the server runs or not.
    User(user::Arguments),
    /// Looks after what this server has to do with others.
    Federation(federation::Arguments),
    /// Tells what this server knows of a room, whether it runs or not.
    Room(room::Arguments),
    /// Makes a backup, whether the server runs or not.
    Backup(backup::BackupArguments),
    /// Brings a backup back into an empty data folder.
    Restore(backup::RestoreArguments),
    /// Prints the version.
    Version,
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let Arguments { settings, command } = Arguments::parse();
    let done = match command {
        Command::Serve(arguments) => serve::run(&settings, &arguments),
        Command::User(arguments) => user::run(&settings, arguments),
        Command::Federation(arguments) => federation::run(&settings, &arguments),
        Command::Room(arguments) => room::run(&settings, arguments),
        Command::Backup(arguments) => backup::backup(&settings, &arguments),
        Command::Restore(arguments) => backup::restore(&settings, &arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Version => output::line(format_args!("chapar {}", env!("CARGO_PKG_VERSION"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&*failure);
            ExitCode::FAILURE
        }
    }
}

impl Settings {
    /// The settings in force: file, environment, and what stands on the command line.
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.sources())?)
    }

    fn sources(&self) -> Sources {
        let mut sources = Sources::default().environment(std::env::vars_os());
        if let Some(file) = &self.config {
            sources = sources.file(file);
        }
        if let Some(data) = &self.data {
            sources = sources.argument("--data", &["storage", "data"], data);
        }
        if let Some(name) = &self.server_name {
            sources = sources.argument("--server-name", &["server", "name"], name);
        }
        sources
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::{CommandFactory as _, Parser as _};

    use super::Arguments;

    #[test]
    fn the_declaration_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn settings_may_stand_before_and_after_the_command() {
        let arguments =
            Arguments::try_parse_from(["chapar", "--data", "a", "version", "--config", "b"]);
        let settings = arguments.unwrap().settings;
        assert_eq!(settings.data.as_deref(), Some("a"));
        assert_eq!(settings.config.unwrap().to_str(), Some("b"));
    }
}
