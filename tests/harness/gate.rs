//! A way to a server that can be cut.

use std::sync::Arc;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A port through which a server is reached, as long as it is open.
#[derive(Debug)]
pub struct Gate {
    port: u16,
    open: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// An open gate to a port of this machine.
    pub async fn to(target: u16) -> Self {
        let port = crate::server::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let open = Arc::new(watch::Sender::new(true));
        let task = tokio::spawn(pass(listener, target, Arc::clone(&open)));
        Self { port, open, task }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts what goes through it, and lets nobody through.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Lets everybody through again.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(listener: TcpListener, target: u16, open: Arc<watch::Sender<bool>>) {
    loop {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut open = open.subscribe();
        if !*open.borrow_and_update() {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut to) = TcpStream::connect(("127.0.0.1", target)).await else {
                return;
            };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                _ = open.wait_for(|open| !open) => {}
            }
        });
    }
}
