//! Transactions: what is sent to a server at once ([spec]), and what of it is done with when the server has it.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#transactions

use std::sync::atomic::Ordering;

use pdu::EventNumber;
use ruma::{
    MilliSecondsSinceUnixEpoch, ServerName, UInt, UserId,
    api::federation::transactions::send_transaction_message::v1::Request, serde::Raw,
};
use serde_json::value::RawValue;
use storage::{
    Batch, Found, NameHash, Position, Range, Reads, ShortRoomId, ShortUserId, Snapshot, Stamped,
    schema::{
        DEVICE_NEWS_BY_DESTINATION, EVENT_BY_NUMBER, EventRow, LateRoomRow, MESSAGE_BY_DESTINATION,
        Place, TOLD_DEVICES_BY_DESTINATION, ToldDevicesRow,
    },
};

use crate::Outbox;

/// So many EDUs of the hundred that a transaction may have are messages to devices, and news of devices.
const MESSAGES_MAX: usize = 50;
const DEVICE_NEWS_MAX: usize = 30;
/// So many people's devices are told of at once.
const PEOPLE_MAX: usize = 10;
/// EDUs in one transaction at most.
pub(crate) const EDUS_MAX: usize = 100;
/// So many bytes of messages to devices are in one transaction.
const MESSAGES_BYTES: usize = 1 << 20;

/// What is sent at once.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) pdus: Vec<Box<RawValue>>,
    pub(crate) edus: Vec<Box<RawValue>>,
    /// Messages to devices that are in it.
    pub(crate) messages: Vec<(NameHash, Position)>,
    /// Whose devices it tells of: the row that asked for it, and what the server was told of then. None of them
    /// if there is nothing to tell.
    pub(crate) devices: Vec<ToldDevices>,
    /// Rooms that are told of, or of which there is nothing to be told.
    pub(crate) rooms: Vec<ToldRoom>,
}

/// Somebody whose devices a server is told of.
pub(crate) struct ToldDevices {
    pub(crate) user: ShortUserId,
    news: Found<Stamped<()>>,
    told: ToldDevicesRow,
    /// There is more.
    more: bool,
}

/// A room that a server is told of.
pub(crate) struct ToldRoom {
    pub(crate) room: ShortRoomId,
    pub(crate) row: Found<LateRoomRow>,
    /// The place behind all that it is told of.
    pub(crate) next: Place,
    /// There is more behind it.
    pub(crate) more: bool,
}

impl Transaction {
    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.pdus.is_empty() && self.edus.is_empty()
    }

    /// Whether there is anything to be done with once it was sent.
    pub(crate) fn does_nothing(&self) -> bool {
        self.messages.is_empty() && self.devices.is_empty() && self.rooms.is_empty()
    }

    /// Puts into a batch that the server has it, as far as nobody else can object.
    pub(crate) fn told(&self, batch: &mut Batch, server: NameHash) {
        for key in &self.messages {
            batch.delete(&MESSAGE_BY_DESTINATION, key);
        }
        for one in &self.devices {
            let key = (server, one.user);
            batch.put(&TOLD_DEVICES_BY_DESTINATION, &key, &one.told);
        }
    }
}

impl ToldDevices {
    /// Puts into a batch that there is no more to tell, if there was not since.
    pub(crate) fn done(&self, batch: &mut Batch, server: NameHash) {
        if !self.more {
            let key = (server, self.user);
            batch.expect_equals(&DEVICE_NEWS_BY_DESTINATION, &key, &self.news.raw);
            batch.delete(&DEVICE_NEWS_BY_DESTINATION, &key);
        }
    }
}

impl Outbox {
    /// Adds messages to devices and news of devices, `most` EDUs at most.
    pub(crate) async fn add_durable(
        &self,
        snapshot: &Snapshot,
        server: NameHash,
        transaction: &mut Transaction,
        most: usize,
    ) -> error::Result<()> {
        let mut reads = Reads::new();
        let messages = Range::prefix(&(server,)).limit(MESSAGES_MAX.min(most));
        let messages = reads.range(&MESSAGE_BY_DESTINATION, &messages);
        let news = Range::prefix(&(server,)).limit(PEOPLE_MAX);
        let news = reads.range(&DEVICE_NEWS_BY_DESTINATION, &news);
        let answers = snapshot.read(&reads).await?;
        let mut bytes = 0;
        for (key, row) in answers.rows(&messages)? {
            bytes += row.value.len();
            if bytes > MESSAGES_BYTES && !transaction.edus.is_empty() {
                break;
            }
            let edu = RawValue::from_string(row.value).map_err(error::internal)?;
            transaction.edus.push(edu);
            transaction.messages.push(key);
        }
        let news = answers.rows(&news)?;
        let keys: Vec<_> = news.iter().map(|(key, _)| *key).collect();
        let told = snapshot
            .multi_get(&TOLD_DEVICES_BY_DESTINATION, &keys)
            .await?;
        let told: Vec<_> = keys
            .iter()
            .zip(told)
            .map(|((_, user), row)| (*user, row.map(|row| row.value).unwrap_or_default()))
            .collect();
        let users = &self.0.parts.users;
        let all = users
            .device_news(snapshot, &told, DEVICE_NEWS_MAX.min(most))
            .await?;
        for (((_, user), news), of_user) in news.into_iter().zip(all) {
            let room = most.saturating_sub(transaction.edus.len());
            if of_user.edus.len() > room && !transaction.edus.is_empty() {
                break;
            }
            transaction.edus.extend(of_user.edus);
            transaction.devices.push(ToldDevices {
                user,
                news,
                told: of_user.told,
                more: of_user.more,
            });
        }
        Ok(())
    }

    /// Adds events, in the order in which they are given. Those that are gone are left out, and those that we
    /// pass on for the server itself.
    pub(crate) async fn add_events(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        transaction: &mut Transaction,
        events: &[(ShortRoomId, EventNumber)],
    ) -> error::Result<()> {
        let rows = snapshot.multi_get(&EVENT_BY_NUMBER, events).await?;
        for row in rows.into_iter().flatten() {
            let sender = UserId::parse(&row.value.header.sender);
            if sender.is_ok_and(|sender| sender.server_name() != server) {
                transaction.pdus.push(pdu_of(row.value)?);
            }
        }
        Ok(())
    }

    /// The request that carries a transaction.
    pub(crate) fn request(&self, transaction: &Transaction) -> Request {
        let number = self.0.transactions.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}.{number}", self.0.run);
        let now = MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.now()));
        let origin = self.rooms().server_name().to_owned();
        let mut request = Request::new(id.into(), origin, now);
        request.pdus.clone_from(&transaction.pdus);
        let edus = transaction.edus.iter().cloned();
        request.edus = edus.map(Raw::from_json).collect();
        request
    }
}

/// An event as other servers get it.
pub(crate) fn pdu_of(row: EventRow) -> error::Result<Box<RawValue>> {
    let text = String::from_utf8(row.json.into()).map_err(error::internal)?;
    RawValue::from_string(text).map_err(error::internal)
}
