//! Real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{net::SocketAddr, path::Path, time::Duration};

use config::{Config, Listener};
use rcgen::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tests::{parts, server};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
const VERSIONS: &str = "GET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\n";

fn on(address: Address) -> Listener {
    Listener {
        address,
        ..Listener::default()
    }
}

fn any_port() -> Address {
    Address::Tcp(([127, 0, 0, 1], 0).into())
}

fn tcp(reachable: &Reachable) -> SocketAddr {
    match &reachable.address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

async fn start(listeners: &[Listener]) -> (Server, Vec<Reachable>, JoinHandle<()>) {
    let server = server().await;
    let listening = Listening::open(listeners).await.unwrap();
    let reachable = listening.reachable();
    let serving = tokio::spawn(listening.serve(server.clone()));
    (server, reachable, serving)
}

/// Sends a request and reads what comes of it, up to the end of its body.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return text;
            }
        }
        if stream.read_buf(&mut read).await.unwrap() == 0 {
            return text;
        }
    }
}

#[tokio::test]
async fn serves_several_addresses_with_the_apis_of_each() {
    let only_health = Listener {
        apis: vec![Api::Health],
        ..on(any_port())
    };
    let (server, reachable, serving) = start(&[on(any_port()), only_health]).await;
    for (at, status) in reachable.iter().zip(["200", "404"]) {
        let mut stream = TcpStream::connect(tcp(at)).await.unwrap();
        let health = exchange(&mut stream, HEALTH).await;
        assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
        // The same connection takes another request.
        let versions = exchange(&mut stream, &format!("{VERSIONS}\r\n")).await;
        assert!(
            versions.starts_with(&format!("HTTP/1.1 {status} ")),
            "{versions}"
        );
        assert!(at.to_string().starts_with("http://127.0.0.1:"));
    }
    server.shutdown.begin();
    serving.await.unwrap();
    assert!(TcpStream::connect(tcp(&reachable[0])).await.is_err());
}

#[tokio::test]
async fn a_connection_outlives_a_request_that_was_refused_before_its_body_came() {
    let (server, reachable, serving) = start(&[on(any_port())]).await;
    let mut stream = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
    let refused = [
        ("/nowhere", "404"),
        ("/_matrix/client/v3/join/!room:localhost", "401"),
    ];
    for (path, status) in refused {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // Long enough for an answer that does not wait for the body.
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), stream.peek(&mut byte)).await;
        assert!(early.is_err(), "answered while the client still writes");
        let answer = exchange(&mut stream, "{}").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let health = exchange(&mut stream, HEALTH).await;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    server.shutdown.begin();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let first = Listening::open(&[on(any_port())]).await.unwrap();
    let taken = tcp(&first.reachable()[0]);
    let error = Listening::open(&[on(Address::Tcp(taken))])
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[tokio::test]
async fn serves_a_unix_socket_and_replaces_one_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chapar.sock");
    // What a killed process leaves: a socket that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let (server, reachable, serving) = start(&[on(Address::Unix(path.clone()))]).await;
    assert_eq!(reachable[0].to_string(), format!("unix:{}", path.display()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    assert!(
        exchange(&mut stream, HEALTH)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let second = Listening::open(&[on(Address::Unix(path.clone()))])
        .await
        .unwrap_err();
    assert!(second.to_string().contains("another process"), "{second}");
    server.shutdown.begin();
    serving.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_in_the_place_of_a_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "text").unwrap();
    Listening::open(&[on(Address::Unix(path.clone()))])
        .await
        .unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
}

/// A new certificate in these files.
fn certify(certificate: &Path, key: &Path, roots: &mut RootCertStore) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, cert.pem()).unwrap();
    std::fs::write(key, signing_key.serialize_pem()).unwrap();
    roots.add(cert.der().clone()).unwrap();
}

/// Connects by TLS; the certificate that was shown, and the answer to one request.
async fn over_tls(address: SocketAddr, roots: &RootCertStore) -> (Vec<u8>, String) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    (shown, exchange(&mut stream, HEALTH).await)
}

#[tokio::test]
async fn shows_a_renewed_certificate_and_keeps_the_old_one_when_the_new_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let mut roots = RootCertStore::empty();
    certify(&file, &key, &mut roots);
    let listener = Listener {
        tls_certificate: Some(file.clone()),
        tls_key: Some(key.clone()),
        ..on(any_port())
    };
    let listening = Listening::open(&[listener]).await.unwrap();
    let certificate = listening.doors[0].certificate.clone().unwrap();
    let reachable = listening.reachable();
    assert!(reachable[0].to_string().starts_with("https://"));
    let server = server().await;
    let serving = tokio::spawn(listening.serve(server.clone()));

    let (first, answer) = over_tls(tcp(&reachable[0]), &roots).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    certificate.read_again().await;
    assert_eq!(over_tls(tcp(&reachable[0]), &roots).await.0, first);

    certify(&file, &key, &mut roots);
    touch(&file, 10);
    certificate.read_again().await;
    let (second, _) = over_tls(tcp(&reachable[0]), &roots).await;
    assert_ne!(second, first);

    std::fs::write(&key, "half a k").unwrap();
    certificate.read_again().await;
    assert_eq!(over_tls(tcp(&reachable[0]), &roots).await.0, second);
    certify(&file, &key, &mut roots);
    touch(&file, 20);
    certificate.read_again().await;
    assert_ne!(over_tls(tcp(&reachable[0]), &roots).await.0, second);
    server.shutdown.begin();
    serving.await.unwrap();
}

/// Sets a file's time of change off, where two writes would fall into one tick of the file system.
fn touch(path: &Path, seconds: u64) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let time = std::time::SystemTime::now() + Duration::from_secs(seconds);
    file.set_modified(time).unwrap();
}

#[tokio::test]
async fn a_wrong_certificate_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let listener = Listener {
        tls_certificate: Some(file.clone()),
        tls_key: Some(key.clone()),
        ..on(any_port())
    };
    let mut messages = Vec::new();
    messages.push(
        Listening::open(std::slice::from_ref(&listener))
            .await
            .unwrap_err()
            .to_string(),
    );
    certify(&file, &key, &mut RootCertStore::empty());
    let foreign_key = std::fs::read(&key).unwrap();
    certify(&file, &key, &mut RootCertStore::empty());
    std::fs::write(&key, foreign_key).unwrap();
    messages.push(
        Listening::open(std::slice::from_ref(&listener))
            .await
            .unwrap_err()
            .to_string(),
    );
    std::fs::write(&file, "text").unwrap();
    messages.push(
        Listening::open(std::slice::from_ref(&listener))
            .await
            .unwrap_err()
            .to_string(),
    );
    for (message, part) in messages
        .iter()
        .zip(["cannot read", "its key", "certificates"])
    {
        assert!(
            message.contains(part) && message.contains("cert.pem"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn lets_open_requests_finish_before_it_stops() {
    let (server, reachable, serving) = start(&[on(any_port())]).await;
    let mut idle = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
    exchange(&mut idle, HEALTH).await;
    let mut open = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
    let half = format!("{VERSIONS}Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    // The server asks for the body: it is within the request.
    assert!(
        exchange(&mut open, &half)
            .await
            .starts_with("HTTP/1.1 100 ")
    );
    server.shutdown.begin();
    assert_eq!(answer(&mut idle).await, "", "an idle connection is closed");
    assert!(!serving.is_finished());
    let answer = exchange(&mut open, "{  }").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serving.await.unwrap();
}

#[tokio::test]
async fn long_polls_are_answered_when_it_stops() {
    let (server, reachable, serving) = start(&[on(any_port())]).await;
    let mut poll = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
    let request = "POST /test/end HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    poll.write_all(request.as_bytes()).await.unwrap();
    while server.tasks.is_empty() {
        tokio::task::yield_now().await;
    }
    server.shutdown.begin();
    let answer = answer(&mut poll).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serving.await.unwrap();
}

#[tokio::test]
async fn cuts_off_what_does_not_finish_in_time() {
    let mut config = Config::default();
    config.server.shutdown_grace = Duration::from_millis(20);
    let server = Server::open(parts(config)).await.unwrap();
    let listening = Listening::open(&[on(any_port())]).await.unwrap();
    let address = tcp(&listening.reachable()[0]);
    let serving = tokio::spawn(listening.serve(server.clone()));
    let mut open = TcpStream::connect(address).await.unwrap();
    let half = format!("{VERSIONS}Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert!(
        exchange(&mut open, &half)
            .await
            .starts_with("HTTP/1.1 100 ")
    );
    server.shutdown.begin();
    serving.await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(open.read_to_end(&mut rest).await.unwrap_or(0), 0);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_too_little_is_shown_the_door() {
    let (server, reachable, serving) = start(&[on(any_port())]).await;
    for beginning in ["", "P", "PRI * HTTP", "GET /health HTTP/1.1\r\nHost: loc"] {
        let mut stream = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // The clock is paused and jumps to the next time-out as soon as nothing else is to be done.
        let read = stream.read_to_end(&mut rest).await;
        assert!(
            read.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"),
            "{rest:?}"
        );
    }
    server.shutdown.begin();
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_not_written_to_for_ever() {
    let (server, reachable, mut serving) = start(&[on(any_port())]).await;
    let mut stream = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
    let request = "POST /test/much HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    // The clock is paused and jumps over this, and over the time-out, when nothing else is to be done.
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut serving).await.is_err());
    let mut rest = Vec::new();
    // What lies in the buffers can still be read; then the connection is at its end.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 64 << 20, "{}", rest.len());
    server.shutdown.begin();
    serving.await.unwrap();
}

#[tokio::test]
async fn speaks_http_2() {
    let (server, reachable, serving) = start(&[on(any_port())]).await;
    let stream = TcpStream::connect(tcp(&reachable[0])).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("{}/_matrix/client/versions", reachable[0]);
    let request = http::Request::get(uri)
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, http::Version::HTTP_2)
    );
    server.shutdown.begin();
    serving.await.unwrap();
    connection.await.unwrap().unwrap();
}
