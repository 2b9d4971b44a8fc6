//! Judging in a room of which we do not know all members (MSC3902).

use pdu::EventNumber;

use super::Judging;
use crate::writer::Way;

impl Judging<'_> {
    /// A state with what the event says to be allowed by (MSC3902): whoever sends something was in the room, and
    /// their own member event says so. Where something else is known, the two are resolved as two states are.
    ///
    /// What is added may turn out not to be the state there when the whole of it is known; the event is then judged
    /// again.
    pub(super) async fn with_own_auth(
        &mut self,
        root: [u8; 16],
        create: EventNumber,
    ) -> error::Result<[u8; 16]> {
        // The answer by which we come in leaves out who is invited, too.
        let enters = matches!(
            self.way,
            Way::Entering {
                partial: Some(_),
                ..
            }
        );
        if !self.head().partial && !enters {
            return Ok(root);
        }
        let named: Vec<_> = self
            .auth_events
            .iter()
            .filter(|event| !event.pdu.rejected())
            .filter_map(|event| {
                let (kind, key) = event.pdu.state_slot()?;
                Some(((kind, key.to_owned()), event.number))
            })
            .collect();
        let keys: Vec<_> = named.iter().map(|(key, _)| key.clone()).collect();
        let known = self.find(&[root], &keys).await?;
        let mut disputed = false;
        let mut new = Vec::new();
        for ((kind, key), number) in named {
            let tree_key = self.room.tree_key(&kind, &key);
            match known.get(&(root, (kind, key))) {
                Some(known) if known.number == number => continue,
                Some(_) => disputed = true,
                None => {}
            }
            new.push((tree_key, Some(number)));
        }
        if new.is_empty() {
            return Ok(root);
        }
        let said = self.changed(root, &new).await?;
        match disputed {
            true => self.resolved(&[root, said], create, None).await,
            false => Ok(said),
        }
    }
}
