//! `chapar backup` and `chapar restore`.

use std::path::{self, PathBuf};

use api::control::{Answer, Command};
use clap::Args;

use storage::{Clock, Random, Storage};

use super::{Failure, Settings, open, operator, output};

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// The folder for this backup; it must not be there yet.
    folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The folder of the backup.
    folder: PathBuf,
}

pub(crate) fn backup(settings: &Settings, arguments: &BackupArguments) -> Result<(), Failure> {
    // The server may have been started in another folder than this command.
    let folder = path::absolute(&arguments.folder)?;
    match operator::ask(
        settings,
        Command::Backup {
            folder: folder.clone(),
        },
    )? {
        Answer::Done {} => output::line(format_args!("backed up into {}", folder.display())),
        other => Err(format!("the server answered something else: {other:?}").into()),
    }
}

/// Works on folders alone: there is no server of the restored data yet.
pub(crate) fn restore(settings: &Settings, arguments: &RestoreArguments) -> Result<(), Failure> {
    let config = settings.load()?;
    let options = open::options(&config, &Clock::system(), &Random::from_system());
    let folder = &config.storage.data;
    Storage::restore(&arguments.folder, folder, &options)?;
    output::line(format_args!("restored into {}", folder.display()))
}
