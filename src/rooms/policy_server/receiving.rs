//! Events of other servers that their room's policy server has not signed ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use pdu::PolicyServer;

use crate::{Incoming, Received, Room, Rooms, writer::Way};

/// How often the policy server is asked while the room names another one every time.
const ROUNDS: usize = 3;
/// Events about which it is asked side by side.
const AT_ONCE: usize = 8;

impl Rooms {
    /// Receives events of another server as [`Rooms::receive_all`] does. The policy server is asked about those
    /// that it has to sign and has not; what it does not sign then is soft-failed.
    ///
    /// # Errors
    ///
    /// As [`Rooms::receive`]; some may have been received.
    pub(crate) async fn receive_signed(
        &self,
        room: &Arc<Room>,
        incoming: Vec<Incoming>,
    ) -> error::Result<Vec<Received>> {
        let mut received = self.receive_all(room, incoming.clone()).await?;
        for _ in 0..ROUNDS {
            let open = incoming.iter().zip(&received);
            let open: Vec<_> = open
                .filter_map(|(incoming, received)| match received {
                    Received::ToSign(policy) => Some(self.recommended(room, policy, incoming)),
                    _ => None,
                })
                .collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<_> = stream::iter(open).buffered(AT_ONCE).try_collect().await?;
            let again = self.writer(room).receive_each(self, asked).await?;
            let open = received
                .iter_mut()
                .filter(|received| matches!(received, Received::ToSign(_)));
            open.zip(again).for_each(|(open, again)| *open = again);
        }
        Ok(received)
    }

    /// The same for one event.
    pub(crate) async fn receive_one_signed(
        &self,
        room: &Arc<Room>,
        incoming: Incoming,
    ) -> error::Result<Received> {
        let received = self.receive_signed(room, vec![incoming]).await?;
        let received = received.into_iter().next();
        received.ok_or_else(|| error::internal("an event was not received"))
    }

    /// What the policy server makes of an event: the event with its signature, or the way of one that it does
    /// not recommend.
    async fn recommended(
        &self,
        room: &Arc<Room>,
        policy: &PolicyServer,
        incoming: &Incoming,
    ) -> error::Result<(Incoming, Way)> {
        let signed = self.fetch_policy_signature(room, policy, &incoming.pdu);
        match signed.await {
            Ok(signed) => {
                let signed = Incoming {
                    pdu: Arc::new(signed),
                    standing: incoming.standing.clone(),
                };
                Ok((signed, Way::Heard))
            }
            Err(error) if error.is_internal() => Err(error),
            Err(error) => Ok((incoming.clone(), Way::NotRecommended(error.to_string()))),
        }
    }
}
