//! `chapar serve`: opens everything in order, serves, and closes it in the opposite order.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use api::{
    Server,
    control::{self, Socket},
    serve::{Listening, Reachable},
};
use clap::Args;
use config::{Address, Api, Config};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Failure, Settings, logging, open};

/// What a process that a second signal ends reports, as a shell would.
const INTERRUPTED: i32 = 130;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Listen here and nowhere else, whatever the file says.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

pub(crate) fn run(settings: &Settings, arguments: &Arguments) -> Result<(), Failure> {
    let mut sources = settings.sources();
    if let Some(address) = &arguments.listen {
        sources = sources.argument("--listen", &["listeners"], address);
    }
    let config = Config::load(&sources)?;
    logging::start(&config.log)?;
    let runtime = Runtime::new()?;
    runtime.block_on(serve(config))?;
    tracing::info!("stopped");
    Ok(())
}

async fn serve(config: Config) -> Result<(), Failure> {
    // Before anything is opened, so that a signal at any later moment finds it in order.
    let signals = Signals::new()?;
    let server = open::open(config).await?;
    let listening = Listening::open(&server.config.listeners).await?;
    let socket = open_control(&server);
    announce(&server, &listening.reachable())?;
    tokio::spawn(signals.begin_shutdown(server.clone()));
    server.begin_work();
    let control = socket.map(|socket| {
        let asked = server.clone();
        let perform = move |command| control::perform(asked.clone(), command);
        tokio::spawn(socket.serve(server.shutdown.clone(), perform))
    });
    listening.serve(server.clone()).await;
    if let Some(control) = control {
        control.await?;
    }
    open::close(server).await
}

/// A server that operators cannot talk to is still a server.
fn open_control(server: &Server) -> Option<Socket> {
    match Socket::open(&server.config.storage.data) {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(%error, "no control socket: commands work only while the server is down");
            None
        }
    }
}

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The first one begins the shutdown, the second one ends the process as it stands: what was
    /// acknowledged is on the disk.
    async fn begin_shutdown(mut self, server: Server) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping");
        server.shutdown.begin();
        self.next().await;
        tracing::warn!("stopped at once, by a second signal");
        std::process::exit(INTERRUPTED);
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Tells the person who started it what to do next; the log tells the rest.
fn announce(server: &Server, reachable: &[Reachable]) -> Result<(), Failure> {
    for listener in reachable {
        tracing::info!(address = %listener, "listening");
    }
    let mut out = io::stdout().lock();
    let written = write_announcement(&mut out, server, reachable).and_then(|()| out.flush());
    match written {
        // Nobody reads it: a supervisor closed the pipe. The server serves all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn write_announcement(
    out: &mut impl io::Write,
    server: &Server,
    reachable: &[Reachable],
) -> io::Result<()> {
    writeln!(
        out,
        "Chapar {}, server name {}",
        env!("CARGO_PKG_VERSION"),
        server.users.server_name()
    )?;
    for listener in reachable
        .iter()
        .filter(|listener| listener.apis.contains(&Api::Client))
    {
        writeln!(
            out,
            "Address to put into a client: {}",
            for_a_client(listener)
        )?;
    }
    if let Some(token) = server.users.first_token() {
        writeln!(
            out,
            "Registration token for the first account, good for one: {token}"
        )?;
    }
    Ok(())
}

/// A listener on all addresses is reached, from this machine, by the one of the machine itself.
fn for_a_client(listener: &Reachable) -> Reachable {
    let mut listener = listener.clone();
    if let Address::Tcp(address) = listener.address
        && address.ip().is_unspecified()
    {
        let ip = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        listener.address = Address::Tcp(SocketAddr::new(ip, address.port()));
    }
    listener
}
