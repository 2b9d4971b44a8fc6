//! Auth chains, as they are stored.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use pdu::AuthChain;
use storage::{NameHash, Snapshot, schema};

use crate::Room;

impl Room {
    /// Reads auth chains, such as are there, of which some will be wanted from the same view. One round trip.
    pub(crate) async fn chains_if_known(
        &self,
        snapshot: &Snapshot,
        sets: BTreeSet<NameHash>,
    ) -> error::Result<()> {
        let keys: Vec<_> = sets.into_iter().map(|set| (self.short, set)).collect();
        snapshot.multi_get(&schema::CHAIN_BY_SET, &keys).await?;
        Ok(())
    }

    /// The auth chains that some sets of auth events name. One round trip.
    pub(crate) async fn chains(
        &self,
        snapshot: &Snapshot,
        sets: impl IntoIterator<Item = NameHash>,
    ) -> error::Result<HashMap<NameHash, Arc<AuthChain>>> {
        let sets = sets.into_iter().filter(|set| *set != NameHash::NONE);
        let sets: BTreeSet<_> = sets.collect();
        let keys: Vec<_> = sets.iter().map(|set| (self.short, *set)).collect();
        let rows = snapshot.multi_get(&schema::CHAIN_BY_SET, &keys).await?;
        let mut chains = HashMap::new();
        for (set, row) in sets.into_iter().zip(rows) {
            let row = row.ok_or_else(|| error::internal("a stored auth chain is missing"))?;
            let chain = AuthChain::from_bytes(&row.value.0).map_err(error::internal)?;
            chains.insert(set, Arc::new(chain));
        }
        Ok(chains)
    }
}
