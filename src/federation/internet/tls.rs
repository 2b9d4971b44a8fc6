//! TLS to other servers: whose word about a certificate counts.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject as _},
    },
};
use tokio_rustls::TlsConnector;

/// Certificate authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthorities {
    /// The file cannot be read, or is none with certificates.
    #[error("federation.extra_ca_file: {path} cannot be read as PEM certificates: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A certificate in it is of no use.
    #[error("TLS to other servers is not possible: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS that believes the authorities which browsers know, and those of the settings.
pub(super) fn client(settings: &config::Federation) -> Result<TlsConnector, BadAuthorities> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = &settings.extra_ca_file {
        let bad = |source| BadAuthorities::File {
            path: path.clone(),
            source,
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(bad)? {
            roots.add(certificate.map_err(bad)?)?;
        }
    }
    let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
}
