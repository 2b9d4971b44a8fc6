//! The ways on which other servers are reached, and that it is they who answer.

use std::sync::{Arc, Mutex};

use harness::{Authority, Server};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::CHAPAR;

/// What a proxy does.
#[derive(Clone, Copy)]
pub(super) enum Leads {
    /// It connects where it is asked to.
    There,
    /// It connects to this port of this machine, wherever it is asked to.
    Here(u16),
    /// It refuses.
    Nowhere,
}

pub(super) struct Proxy {
    address: String,
    /// Where it was asked to connect.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(super) async fn start(leads: Leads) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                tokio::spawn(serve(stream, noted, leads));
            }
        });
        Self { address, asked }
    }

    /// The setting of a server that uses it.
    pub(super) fn setting(&self) -> String {
        format!("proxy = \"{}\"", self.address)
    }
}

async fn serve(stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, leads: Leads) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let target = head[0].strip_prefix("CONNECT ").unwrap();
    let target = target.strip_suffix(" HTTP/1.1").unwrap().to_owned();
    asked.lock().unwrap().push(target.clone());
    let target = match leads {
        Leads::There => target,
        Leads::Here(port) => format!("127.0.0.1:{port}"),
        Leads::Nowhere => {
            let refused = b"HTTP/1.1 403 Forbidden\r\n\r\n";
            stream.write_all(refused).await.unwrap();
            return;
        }
    };
    let mut to = TcpStream::connect(&target).await.unwrap();
    let connected = b"HTTP/1.1 200 Connection established\r\n\r\n";
    stream.write_all(connected).await.unwrap();
    // Either side may break it off.
    copy_bidirectional(&mut stream, &mut to).await.ok();
}

/// [`[federation] proxy`](https://spec.matrix.org/v1.19/server-server-api/#server-discovery): all that is asked of
/// others goes through it.
#[tokio::test]
async fn a_proxy_leads_to_other_servers() {
    let authority = Authority::new();
    let (open, closed) = tokio::join!(Proxy::start(Leads::There), Proxy::start(Leads::Nowhere));
    let (by_open, by_closed) = (open.setting(), closed.setting());
    let (a, b, c) = tokio::join!(
        Server::start_federating(CHAPAR, &authority, &by_open),
        Server::start_federating(CHAPAR, &authority, ""),
        Server::start_federating(CHAPAR, &authority, &by_closed),
    );
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let path = format!("/profile/{}", bob.id);
    alice.get(&path).await.ok();
    assert_eq!(open.asked.lock().unwrap().first(), Some(&b.name()));
    let carol = c.user("carol").await;
    let refused = carol.get(&path).await;
    assert_eq!(refused.status, 502, "{refused:?}");
    assert_eq!(closed.asked.lock().unwrap().first(), Some(&b.name()));
}

/// What its certificate does not name is not the server
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#tls)).
#[tokio::test]
async fn who_is_not_vouched_for_is_not_talked_to() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b, c) = tokio::join!(
        Server::start_federating(CHAPAR, &ours, ""),
        Server::start_federating(CHAPAR, &ours, ""),
        Server::start_federating(CHAPAR, &theirs, ""),
    );
    let alice = a.user("alice").await;
    let (bob, carol) = (b.user("bob").await, c.user("carol").await);
    alice.get(&format!("/profile/{}", bob.id)).await.ok();
    // Its certificate is of an authority that nobody here knows.
    let stranger = alice.get(&format!("/profile/{}", carol.id)).await;
    assert_eq!(stranger.status, 502, "{stranger:?}");
    // The certificate is good, but names another host.
    let other_name = bob.id.replace(":localhost:", ":127.0.0.1:");
    assert_ne!(other_name, bob.id);
    let other = alice.get(&format!("/profile/{other_name}")).await;
    assert_eq!(other.status, 502, "{other:?}");
}
