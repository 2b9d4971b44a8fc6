//! Listeners: from a connection to [`Server::answer`], with limits on what a connection may hold up,
//! until the server stops.

mod connection;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use config::{Address, Api};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    socket::Socket,
    tls::{Certificate, CertificateError},
};
use crate::Server;

/// The most connections held at once, all listeners together. More wait in the kernel's queue.
const CONNECTIONS: usize = 20_000;

/// How often certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, or not ours to take.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// Where it was to listen.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Certificate {
        /// Where it was to listen.
        address: Address,
        /// What is wrong.
        source: CertificateError,
    },
}

/// Sockets that are open, and not yet served: clients can connect, and wait.
#[derive(Debug)]
pub struct Listening {
    doors: Vec<Door>,
}

#[derive(Debug)]
struct Door {
    socket: Socket,
    certificate: Option<Arc<Certificate>>,
    apis: Vec<Api>,
}

/// Where a listener can be reached: a URL, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// The address, with the port that an asked-for port 0 became.
    pub address: Address,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// What is offered there.
    pub apis: Vec<Api>,
}

impl fmt::Display for Reachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.tls) {
            (Address::Tcp(address), false) => write!(f, "http://{address}"),
            (Address::Tcp(address), true) => write!(f, "https://{address}"),
            (Address::Unix(path), _) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listening {
    /// Opens all listeners, or none.
    ///
    /// # Errors
    ///
    /// An address that is taken, a certificate that cannot be used.
    pub async fn open(listeners: &[config::Listener]) -> Result<Self, ListenError> {
        let mut doors = Vec::new();
        for listener in listeners {
            let address = &listener.address;
            let certificate = match (&listener.tls_certificate, &listener.tls_key) {
                (Some(certificate), Some(key)) => {
                    let read = Certificate::read(certificate, key).await;
                    Some(Arc::new(read.map_err(|source| {
                        ListenError::Certificate {
                            address: address.clone(),
                            source,
                        }
                    })?))
                }
                _ => None,
            };
            let socket = Socket::open(address).await;
            doors.push(Door {
                socket: socket.map_err(|source| ListenError::Address {
                    address: address.clone(),
                    source,
                })?,
                certificate,
                apis: listener.apis.clone(),
            });
        }
        Ok(Self { doors })
    }

    /// Where it can be reached, in the order of the settings.
    pub fn reachable(&self) -> Vec<Reachable> {
        let reachable = self.doors.iter().map(|door| Reachable {
            address: door.socket.address(),
            tls: door.certificate.is_some(),
            apis: door.apis.clone(),
        });
        reachable.collect()
    }

    /// Serves until `server.shutdown` begins, then accepts no more, lets requests finish for as long
    /// as the operator grants (`server.shutdown_grace`), and cuts off the rest.
    pub async fn serve(self, server: Server) {
        let connections = Connections {
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks: TaskTracker::new(),
            cut: CancellationToken::new(),
        };
        let mut doors = JoinSet::new();
        for door in self.doors {
            if let Some(certificate) = &door.certificate {
                doors.spawn(watch(Arc::clone(certificate), server.clone()));
            }
            doors.spawn(accept(door, connections.clone(), server.clone()));
        }
        // Each of them ends when the shutdown begins; the sockets close with them.
        while doors.join_next().await.is_some() {}
        connections.finish(&server).await;
    }
}

/// What all connections share.
#[derive(Clone)]
struct Connections {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cuts off what has not finished in time.
    cut: CancellationToken,
}

impl Connections {
    /// Waits for the requests that are still being answered, up to the deadline.
    async fn finish(&self, server: &Server) {
        let begun = Instant::now();
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            server.tasks.close();
            server.tasks.wait().await;
            server.workers.close();
            server.workers.wait().await;
        };
        let grace = server.config.server.shutdown_grace;
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(
                connections = self.tasks.len(),
                requests = server.tasks.len(),
                "requests did not finish in time and are cut off"
            );
        }
        self.cut.cancel();
        self.tasks.wait().await;
        let milliseconds = begun.elapsed().as_millis();
        tracing::debug!(milliseconds, "listeners are closed, requests have finished");
    }
}

/// Takes in connections until the shutdown begins.
async fn accept(door: Door, connections: Connections, server: Server) {
    let apis: Arc<[Api]> = door.apis.into();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&connections.places).acquire_owned().await.ok();
            (place, door.socket.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = server.shutdown.begun() => return,
            accepted = accepted => accepted,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if socket::is_of_the_system(&error) {
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let (server, apis) = (server.clone(), Arc::clone(&apis));
        let certificate = door.certificate.clone();
        let cut = connections.cut.clone();
        connections.tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection::serve(stream, certificate.as_deref(), &apis, &server) => {}
            }
        });
    }
}

/// Reads a certificate again when its files have changed, until the shutdown begins.
async fn watch(certificate: Arc<Certificate>, server: Server) {
    loop {
        tokio::select! {
            () = server.shutdown.begun() => return,
            () = tokio::time::sleep(CERTIFICATE_CHECK) => certificate.read_again().await,
        }
    }
}
