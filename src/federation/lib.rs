//! Talking to other servers.
//!
//! Everything hangs off one [`Federation`]: it finds servers, signs what they are asked, leaves those alone
//! that do not answer, knows their keys, and proves who asks us. No other crate opens a connection.
//!
//! To ask another server, give one of Ruma's requests to [`Federation::ask`]. To take events from one, give
//! them to [`Federation::check_pdus`].

mod addresses;
mod ask;
mod ask_events;
mod back_off;
mod internet;
mod keys_answer;
mod lists;
mod names;
mod own_answer;
mod own_keys;
mod pdus;
mod places;
mod policy;
mod policy_key;
mod prove;
mod remote_keys;
mod sign;
mod transport;
mod well_known;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
pub use config::{Class, Direction};
use error::Result;
use pdu::SigningKey;
use ruma::{OwnedServerName, ServerName};
use storage::{Clock, Random, Storage};

pub use self::{
    ask::{Failure, Patience, Proof, Question, Refusal},
    ask_events::EventLists,
    internet::{BadAuthorities, Http},
    own_keys::{OldKey, SigningKeys},
    pdus::{Checked, PduFault},
    policy::class_of_path,
    prove::Claim,
    sign::BODY_NESTING_MAX,
    transport::{Broken, Limits, Nowhere, Pieces, Transport},
};
use self::{back_off::BackOff, policy::Policy, policy_key::PolicyKey, remote_keys::RemoteKeys};

/// What this server has to do with others. Clones are the same.
#[derive(Clone)]
pub struct Federation(Arc<Inner>);

/// What it is built on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where keys are kept.
    pub storage: Storage,
    /// Our name.
    pub server_name: OwnedServerName,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// What the operator has set.
    pub settings: config::Federation,
    /// The way to other servers.
    pub transport: Arc<dyn Transport>,
}

impl Parts {
    /// Those of a server that is alone, with default settings.
    pub fn alone(
        storage: &Storage,
        server_name: &ServerName,
        clock: &Clock,
        random: &Random,
    ) -> Self {
        Self {
            storage: storage.clone(),
            server_name: server_name.to_owned(),
            clock: clock.clone(),
            random: random.clone(),
            settings: config::Federation::default(),
            transport: Arc::new(Nowhere),
        }
    }
}

struct Inner {
    parts: Parts,
    signing_keys: SigningKeys,
    remote_keys: RemoteKeys,
    back_off: BackOff,
    policy: ArcSwap<Policy>,
    policy_key: PolicyKey,
}

impl Federation {
    /// Reads our keys, and what is remembered of other servers; makes the first key if there is none.
    ///
    /// # Errors
    ///
    /// Storage fails, or a stored key cannot be read.
    pub async fn open(parts: Parts) -> Result<Self> {
        let Parts {
            storage, random, ..
        } = &parts;
        let longest = parts.settings.max_back_off;
        Ok(Self(Arc::new(Inner {
            signing_keys: SigningKeys::open(storage, random).await?,
            remote_keys: RemoteKeys::new(),
            back_off: BackOff::open(storage, random, longest).await?,
            policy: ArcSwap::from_pointee(Policy::of(&parts.settings)),
            policy_key: PolicyKey::default(),
            parts,
        })))
    }

    /// Our name.
    pub fn server_name(&self) -> &ServerName {
        &self.0.parts.server_name
    }

    /// The keys with which we sign.
    pub fn signing_keys(&self) -> &SigningKeys {
        &self.0.signing_keys
    }

    /// The key with which we sign as a policy server, which is no key of the server's: made when somebody
    /// wants it first.
    ///
    /// # Errors
    ///
    /// Storage fails, or the stored key cannot be read.
    pub async fn policy_key(&self) -> Result<Arc<SigningKey>> {
        let Parts {
            storage, random, ..
        } = &self.0.parts;
        self.0.policy_key.get_or_make(storage, random).await
    }

    /// Whether a server may ask us, or we it, for something of a class.
    pub fn allows(&self, server: &ServerName, direction: Direction, class: Class) -> bool {
        self.0.policy.load().allows(server, direction, class)
    }

    /// Takes over who may ask for what from settings that were read anew. What else they say counts at the
    /// next start.
    pub fn set_policy(&self, settings: &config::Federation) {
        self.0.policy.store(Arc::new(Policy::of(settings)));
    }

    fn storage(&self) -> &Storage {
        &self.0.parts.storage
    }

    fn settings(&self) -> &config::Federation {
        &self.0.parts.settings
    }

    fn transport(&self) -> &dyn Transport {
        &*self.0.parts.transport
    }

    /// The time, in milliseconds since 1970.
    fn now(&self) -> u64 {
        self.0.parts.clock.now().get().into()
    }
}

impl fmt::Debug for Federation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Federation({})", self.server_name())
    }
}
