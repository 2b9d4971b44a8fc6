//! Commands to a server: carried out by the one that runs on the data folder, or here if none does.

use api::{
    Server,
    control::{self, Answer, Command},
};
use config::{Config, Log};
use tokio::runtime::{Builder, Runtime};

use super::{Failure, Settings, logging, open};

/// Somebody who carries out commands.
pub(crate) struct Operator {
    runtime: Runtime,
    config: Config,
    /// The folder, opened by ourselves because no server runs on it.
    opened: Option<Server>,
}

/// Has one command carried out.
pub(crate) fn ask(settings: &Settings, command: Command) -> Result<Answer, Failure> {
    let mut operator = Operator::new(settings)?;
    let answer = operator.ask(command);
    operator.finish()?;
    answer
}

impl Operator {
    /// For the server, running or not, of the data folder in force.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Failure> {
        let config = settings.load()?;
        // The answer matters here; the log only where something is wrong.
        logging::start(&Log {
            filter: "warn".to_owned(),
            ..config.log
        })?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            config,
            opened: None,
        })
    }

    /// Has a command carried out; what is refused is a failure.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Answer, Failure> {
        let Self {
            runtime,
            config,
            opened,
        } = self;
        let answer = runtime.block_on(async {
            if opened.is_none() {
                let folder = &config.storage.data;
                if let Some(answer) = control::ask(folder, &command).await? {
                    return Ok(answer);
                }
                if !folder.is_dir() {
                    return Err(Failure::from(format!(
                        "there is no folder {}: say with --data or --config where the server's \
                         data is, or start the server once",
                        folder.display()
                    )));
                }
                *opened = Some(open::open(config.clone()).await?);
            }
            match opened.clone() {
                Some(server) => Ok(control::perform(server, command).await),
                None => Err("nobody is there to ask".into()),
            }
        })?;
        match answer {
            Answer::Refused(why) => Err(why.into()),
            answer => Ok(answer),
        }
    }

    /// Closes what was opened.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.opened {
            Some(server) => self.runtime.block_on(open::close(server)),
            None => Ok(()),
        }
    }
}
