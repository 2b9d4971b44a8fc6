//! Finding the server behind a name, and what is spoken with it.

use std::sync::{Arc, Mutex};

use harness::{Authority, Server};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use super::ways::{Leads, Proxy};
use crate::CHAPAR;

const WELL_KNOWN: &str = "/.well-known/matrix/server";
const PROFILE: &str = "/_matrix/federation/v1/query/profile";

/// What was asked: the host, the path, and over which HTTP.
type Asked = (String, String, Version);

/// Web servers and a Matrix server behind one port of this machine, which speak HTTP/2 where that is wanted.
struct Hosts {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Hosts {
    async fn start(authority: &Authority) -> Self {
        let names = ["moved.example", "www.moved.example", "matrix.moved.example"];
        let own = authority.vouch_for(&[&names[..], &["wordy.example"]].concat());
        let certificate = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let mut tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
                    let service = service_fn(|request| {
                        let answer = answer(&request, &noted);
                        async { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    let server = Builder::new(TokioExecutor::new());
                    // Whoever asked may break it off.
                    server.serve_connection(stream, service).await.ok();
                });
            }
        });
        Self { port, asked }
    }

    /// What a host was asked.
    fn asked_of(&self, host: &str) -> Vec<(String, Version)> {
        let asked = self.asked.lock().unwrap();
        let asked = asked.iter().filter(|(at, _, _)| at == host);
        asked
            .map(|(_, path, version)| (path.clone(), *version))
            .collect()
    }
}

fn answer(request: &Request<Incoming>, asked: &Mutex<Vec<Asked>>) -> Response<Full<Bytes>> {
    let named = request.headers().get(header::HOST);
    let named = named.map(|host| host.to_str().unwrap().to_owned());
    let host = named.unwrap_or_else(|| request.uri().authority().unwrap().to_string());
    let path = request.uri().path().to_owned();
    let noted = (host.clone(), path.clone(), request.version());
    asked.lock().unwrap().push(noted);
    let delegate = r#""m.server":"matrix.moved.example:1234""#;
    let found = |body: String| Response::new(Full::from(body));
    match (host.as_str(), path.as_str()) {
        ("moved.example", WELL_KNOWN) => Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, "https://www.moved.example/there")
            .body(Full::default())
            .unwrap(),
        ("www.moved.example", "/there") => found(format!("{{{delegate}}}")),
        ("wordy.example", WELL_KNOWN) => {
            found(format!("{{{delegate},\"x\":\"{}\"}}", "x".repeat(50 << 10)))
        }
        ("matrix.moved.example:1234", PROFILE) => found(r#"{"displayname":"Bob"}"#.to_owned()),
        _ => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Full::default())
            .unwrap(),
    }
}

/// The third step of [discovery](https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names): a web
/// server says, in few words, who answers for its name. HTTP/2 is spoken where it is offered.
#[tokio::test]
async fn a_web_server_says_who_answers_for_its_name() {
    let authority = Authority::new();
    let hosts = Hosts::start(&authority).await;
    let proxy = Proxy::start(Leads::Here(hosts.port)).await;
    let ours = Server::start_federating(CHAPAR, &authority, &proxy.setting()).await;
    let alice = ours.user("alice").await;
    let profile = alice.get("/profile/@bob:moved.example").await.ok();
    assert_eq!(profile["displayname"], "Bob", "{profile}");
    let way = [
        "moved.example:443",
        "www.moved.example:443",
        "matrix.moved.example:1234",
    ];
    assert_eq!(*proxy.asked.lock().unwrap(), way);
    let asked = [(PROFILE.to_owned(), Version::HTTP_2)];
    assert_eq!(hosts.asked_of("matrix.moved.example:1234"), asked);
    // It is remembered.
    alice.get("/profile/@carol:moved.example").await.ok();
    assert_eq!(hosts.asked_of("moved.example").len(), 1);
    // Who says too much is not heard: it answers for its name itself.
    alice.get("/profile/@bob:wordy.example").await;
    let asked = [WELL_KNOWN, PROFILE].map(|path| (path.to_owned(), Version::HTTP_2));
    assert_eq!(hosts.asked_of("wordy.example"), asked);
}
