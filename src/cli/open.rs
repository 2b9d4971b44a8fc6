//! The order in which everything is opened and closed, for the server and for commands beside it.

use std::{fs::DirBuilder, io::ErrorKind, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use api::{Parts, Server};
use config::Config;
use federation::Http;
use storage::{Clock, Options, Random, Storage};
use tokio::task::spawn_blocking;

use super::Failure;

/// Opens the data folder, and everything on it.
pub(crate) async fn open(config: Config) -> Result<Server, Failure> {
    make_folder(&config.storage.data)?;
    let clock = Clock::system();
    let random = Random::from_system();
    let transport = Http::open(&config.federation, &clock)?;
    let options = options(&config, &clock, &random);
    let folder = config.storage.data.clone();
    let storage = spawn_blocking(move || Storage::open(folder, &options)).await??;
    Ok(Server::open(Parts {
        config,
        storage,
        clock,
        random,
        transport: Arc::new(transport),
    })
    .await?)
}

/// Closes what [`open`] opened. The storage closes with the last that has a share in it, which may
/// take a moment on the disk.
pub(crate) async fn close(server: Server) -> Result<(), Failure> {
    spawn_blocking(move || drop(server)).await?;
    Ok(())
}

/// How storage is opened with these settings.
pub(crate) fn options(config: &Config, clock: &Clock, random: &Random) -> Options {
    Options {
        server_name: config.server.name.as_ref().map(ToString::to_string),
        block_cache: config.storage.block_cache.as_usize(),
        memory_budget: config.storage.memory_budget.as_usize(),
        sync: config.storage.sync,
        clock: clock.clone(),
        random: random.clone(),
        ..Options::default()
    }
}

/// It holds keys and messages: others on the machine may not look in.
fn make_folder(folder: &Path) -> Result<(), Failure> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(format!("the folder {} cannot be made: {error}", folder.display()).into())
        }
        _ => Ok(()),
    }
}
