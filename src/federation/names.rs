//! Names: to addresses, and to the machines that offer a service.

use std::{fmt, net::IpAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::ResolverConfig,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
    system_conf::read_system_conf,
};

/// How many answers are kept in memory, each as long as it says.
const CACHED: u64 = 8_192;

/// How long a name server may take, each of the times that it is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most machines that are looked at of those which offer a service, and the most addresses of a name.
const MAX_ANSWERS: usize = 16;

/// Asks the name servers that the system names, and its file of hosts.
pub(crate) enum Names {
    /// As the system does.
    System(Box<TokioResolver>),
    /// The system names no servers.
    None,
    /// What a test says.
    #[cfg(test)]
    Said(std::collections::HashMap<String, Vec<Answer>>),
}

/// What a test says to a name.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// An address.
    Address(IpAddr),
    /// A machine that offers a service.
    Service(Service),
}

/// A machine that offers a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its name, without a dot at the end.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

impl Names {
    /// Reads what the system says about its name servers. Names are taken as they are: none is looked for in
    /// the domain of this machine.
    pub(crate) fn system() -> Self {
        match Self::of_system() {
            Ok(resolver) => Self::System(Box::new(resolver)),
            Err(error) => {
                tracing::warn!(%error, "no name servers: other servers are found by addresses only");
                Self::None
            }
        }
    }

    fn of_system() -> Result<TokioResolver, NetError> {
        let (system, options) = read_system_conf()?;
        let servers = system.name_servers().to_vec();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let options = builder.options_mut();
        options.cache_size = CACHED;
        options.timeout = options.timeout.min(PATIENCE);
        builder.build()
    }

    /// The addresses of a name.
    ///
    /// # Errors
    ///
    /// It has none, or nobody says.
    pub(crate) async fn fetch_addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match self {
            Self::System(resolver) => {
                let found = resolver.lookup_ip(host).await;
                let found = found.map_err(|error| error.to_string())?;
                Ok(found.iter().take(MAX_ANSWERS).collect())
            }
            Self::None => Err("this machine knows no name servers".to_owned()),
            #[cfg(test)]
            Self::Said(said) => {
                let answers = said.get(host).into_iter().flatten();
                let addresses = answers.filter_map(|answer| match answer {
                    Answer::Address(address) => Some(*address),
                    Answer::Service(_) => None,
                });
                Ok(addresses.collect())
            }
        }
    }

    /// The machines that offer a service, those first that are to be asked first. None if there are none, or
    /// nobody says.
    pub(crate) async fn fetch_services(&self, name: &str) -> Vec<Service> {
        match self {
            Self::System(resolver) => {
                // With the dot at the end: the name is whole.
                let found = resolver.lookup(format!("{name}."), RecordType::SRV).await;
                let Ok(found) = found else {
                    return Vec::new();
                };
                let records = found
                    .answers()
                    .iter()
                    .filter_map(|record| match &record.data {
                        RData::SRV(service) => Some((
                            (service.priority, std::cmp::Reverse(service.weight)),
                            Service {
                                host: service.target.to_utf8().trim_end_matches('.').to_owned(),
                                port: service.port,
                            },
                        )),
                        _ => None,
                    });
                let mut services: Vec<_> = records.take(MAX_ANSWERS).collect();
                services.sort_by_key(|(order, _)| *order);
                services.into_iter().map(|(_, service)| service).collect()
            }
            Self::None => Vec::new(),
            #[cfg(test)]
            Self::Said(said) => {
                let answers = said.get(name).into_iter().flatten();
                let services = answers.filter_map(|answer| match answer {
                    Answer::Service(service) => Some(service.clone()),
                    Answer::Address(_) => None,
                });
                services.collect()
            }
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
