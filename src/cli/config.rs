//! `chapar config`: the commented example, and the check of a file.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use config::{Config, Sources};

use super::{Failure, logging, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a file, by itself: neither the environment nor the command line is looked at.
    Check {
        /// The file.
        file: PathBuf,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        None => output::text(&Config::example()),
        Some(Command::Check { file }) => {
            let config = Config::load(&Sources::default().file(file))?;
            logging::check(&config.log)?;
            output::line(format_args!("{}: good", file.display()))
        }
    }
}
