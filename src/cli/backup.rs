//! `chapar backup` and `chapar restore`.

use std::path::{self, PathBuf};

use api::control::{Answer, Command};
use clap::Args;

use super::{Failure, Settings, operator, output};

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// The folder for backups: made if it is not there, added to if it is.
    folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The folder with backups; the newest is taken.
    folder: PathBuf,
}

pub(crate) fn backup(settings: &Settings, arguments: &BackupArguments) -> Result<(), Failure> {
    // The server may have been started in another folder than this command.
    let folder = path::absolute(&arguments.folder)?;
    match operator::ask(settings, Command::Backup { folder: folder.clone() })? {
        Answer::Done {} => output::line(format_args!("backed up into {}", folder.display())),
        other => Err(format!("the server answered something else: {other:?}").into()),
    }
}
