//! A certificate and its key, read again when their files change.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is not a PEM file with {wanted}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// Certificate and key do not go together, or are of an unknown kind.
    #[error("the certificate in {path} cannot be used with its key: {source}")]
    Tls {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// A certificate with its key, as they are in their files now.
pub(super) struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
    read: Mutex<Stamp>,
}

/// Tells whether files have changed: for each its time of change and its length.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.certificate.display())
    }
}

impl Certificate {
    /// Reads PEM files.
    pub(super) async fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        // The stamp comes first: a change in between is then seen as one later.
        let stamp = stamp(certificate, key).await;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            config: ArcSwap::from_pointee(read(certificate, key).await?),
            read: Mutex::new(stamp),
        })
    }

    /// Reads the files again if they have changed. Where they cannot be used, as when one of the two
    /// is not written yet, what was read before stays in use.
    pub(super) async fn read_again(&self) {
        let mut read_before = self.read.lock().await;
        let stamp = stamp(&self.certificate, &self.key).await;
        if *read_before == stamp {
            return;
        }
        match read(&self.certificate, &self.key).await {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(file = %self.certificate.display(), "the certificate was renewed");
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate has changed, the old one stays in use");
            }
        }
        *read_before = stamp;
    }

    /// What takes in the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

async fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let mut stamp = Stamp::default();
    for (path, stamp) in [certificate, key].into_iter().zip(&mut stamp) {
        if let Ok(metadata) = tokio::fs::metadata(path).await {
            *stamp = metadata.modified().ok().map(|time| (time, metadata.len()));
        }
    }
    stamp
}

async fn read(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let file = async |path: &Path| {
        let read = tokio::fs::read(path).await;
        read.map_err(|source| CertificateError::File {
            path: path.to_owned(),
            source,
        })
    };
    let chain = CertificateDer::pem_slice_iter(&file(certificate).await?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| {
            let none = chain.is_empty();
            if none {
                Err(pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(|source| CertificateError::Pem {
            path: certificate.to_owned(),
            wanted: "certificates",
            source,
        })?;
    let key = PrivateKeyDer::from_pem_slice(&file(key).await?).map_err(|source| {
        CertificateError::Pem {
            path: key.to_owned(),
            wanted: "a private key",
            source,
        }
    })?;
    let tls = |source| CertificateError::Tls {
        path: certificate.to_owned(),
        source,
    };
    // The provider is named, not installed: nothing here is global.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
