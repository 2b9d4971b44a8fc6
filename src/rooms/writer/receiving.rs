//! Events that are no drafts of ours on their way into the room: those that wait together are written in one
//! commit, each judged as if those before it were stored already.

use std::{collections::VecDeque, sync::Arc};

use storage::{Batch, CommitError, Snapshot, Storage, schema};
use tokio::sync::oneshot;

use super::{
    CONTENT_MAX, Queue, RoomWriter, TRIES_MAX, VIEWS_MAX, Way,
    generation::{self, OldGeneration},
    incoming::{self, Judgement, ToWrite},
    working::Working,
};
use crate::{Incoming, Received, Rooms, accept, extremities};

/// Events of other servers in one commit, at most.
const ARRIVING_MAX: usize = 100;

/// An event of another server that waits to be judged.
#[derive(Debug)]
pub(super) struct Arriving {
    incoming: Incoming,
    way: Way,
    answer: oneshot::Sender<error::Result<Received>>,
}

/// What became of a try to write some events.
enum Attempt {
    /// What became of each of the first ones.
    Done(Vec<Received>),
    /// Something was in the way.
    Again,
    /// It is not known whether they were written.
    Unknown,
    /// They are more than one commit takes.
    TooMany,
}

impl RoomWriter {
    /// Receives events that are no drafts of ours, each on its way, in their order. Goes on when the caller does
    /// not.
    pub(crate) async fn receive_each(
        self: &Arc<Self>,
        rooms: &Rooms,
        incoming: Vec<(Incoming, Way)>,
    ) -> error::Result<Vec<Received>> {
        let mut answers = Vec::with_capacity(incoming.len());
        let start = {
            let mut queue = self.queue.lock();
            for (incoming, way) in incoming {
                let (answer, answered) = oneshot::channel();
                queue.arriving.push_back(Arriving {
                    incoming,
                    way,
                    answer,
                });
                answers.push(answered);
            }
            !answers.is_empty() && !std::mem::replace(&mut queue.draining, true)
        };
        if start {
            let (writer, rooms) = (Arc::clone(self), rooms.clone());
            tokio::spawn(async move { writer.drain(&rooms).await });
        }
        let mut received = Vec::with_capacity(answers.len());
        for answered in answers {
            let stopped = |_| error::internal("the room's writer was stopped");
            received.push(answered.await.map_err(stopped)??);
        }
        Ok(received)
    }

    /// Judges, commits and answers what was taken from the queue.
    pub(super) async fn write_arriving(&self, rooms: &Rooms, mut arriving: VecDeque<Arriving>) {
        while !arriving.is_empty() {
            match self.write_first(rooms, &arriving).await {
                Ok(received) => {
                    let written = arriving.drain(..received.len().min(arriving.len()));
                    for (one, received) in written.zip(received) {
                        let _ = one.answer.send(Ok(received));
                    }
                }
                Err(error) => {
                    if let Some(first) = arriving.pop_front() {
                        let _ = first.answer.send(Err(error));
                    }
                }
            }
        }
    }

    /// Writes as many of the first of some events as one commit takes, one at least: what became of them.
    async fn write_first(
        &self,
        rooms: &Rooms,
        arriving: &VecDeque<Arriving>,
    ) -> error::Result<Vec<Received>> {
        let (mut views, mut most) = (1, ARRIVING_MAX);
        let mut unknown = false;
        for _ in 0..TRIES_MAX {
            let some: Vec<_> = arriving.iter().take(most).collect();
            match self.attempt_arriving(rooms, &some).await {
                Ok(Attempt::Done(mut received)) => {
                    if unknown {
                        let ours = some.iter().map(|one| one.is_ours_without_once());
                        received.iter_mut().zip(ours).for_each(written);
                    }
                    return Ok(received);
                }
                // What somebody wants to be written with one of them may be in the way of the others.
                Ok(Attempt::Again) if some.iter().any(|one| one.is_ours()) => most = 1,
                Ok(Attempt::Again) => {}
                Ok(Attempt::Unknown) => unknown = true,
                Ok(Attempt::TooMany) if some.len() > 1 => most = some.len() / 2,
                Ok(Attempt::TooMany) => {
                    return Err(error::too_large("This is too much to store at once"));
                }
                // The view got too old: what was read from it is quicker to be had the next time.
                Err(error) if error.is_too_busy() && views < VIEWS_MAX => {
                    views += 1;
                    most = (some.len() / 2).max(1);
                }
                Err(error) => return Err(error),
            }
        }
        Err(error::internal("the room changes too fast to be written"))
    }

    async fn attempt_arriving(
        &self,
        rooms: &Rooms,
        arriving: &[&Arriving],
    ) -> error::Result<Attempt> {
        let storage = rooms.storage();
        let view = rooms.snapshot().await?.foreseeing();
        let incoming: Vec<_> = arriving.iter().map(|one| &one.incoming).collect();
        let mut working = incoming::look_ahead(rooms, &self.room, &view, &incoming).await?;
        let mut batch = Batch::new();
        let (mut received, mut index) = (Vec::new(), 0);
        for one in arriving {
            if batch.len_bytes() > CONTENT_MAX {
                break;
            }
            let alone = batch.is_empty();
            let to_write = match self.judge(rooms, one, &view, &mut working, alone).await {
                Ok(Judgement::Answer(answer)) => {
                    received.push(answer);
                    continue;
                }
                Ok(Judgement::Write(to_write)) => to_write,
                Ok(Judgement::NotWithOthers) => break,
                // It is tried again as the first, when those before it are written.
                Err(_) if !received.is_empty() => break,
                Err(error) => return Err(error),
            };
            let ToWrite { judged, beside, .. } = *to_write;
            let anew = judged.change.written.is_some();
            if anew {
                let old = OldGeneration {
                    room: self.room.short,
                    generation: working.head.generation,
                };
                generation::drop_later(rooms, &mut batch, old);
            }
            let (number, accepted) = (judged.event.number, judged.verdict.is_none());
            accept::receive(storage, &mut batch, &mut working, judged, &beside, index);
            if accepted {
                one.write_rows(storage, &mut batch, &mut working);
            }
            received.push(to_write.received);
            index += 1;
            if anew {
                break;
            }
            view.foresee(&batch);
            if accepted {
                let key = (self.room.short, number);
                view.foresee_none(&schema::VERDICT_BY_EVENT, &key);
            }
        }
        if batch.is_empty() {
            return Ok(Attempt::Done(received));
        }
        extremities::leave_job(storage, &mut batch, self.room.short, &working.head);
        accept::finish(storage, &mut batch, &mut working, index);
        match storage.commit(batch).await {
            Ok(_) => {
                rooms.have_moved(&working);
                Ok(Attempt::Done(received))
            }
            // Judged again, they turn out to be known if they were written.
            Err(CommitError::Unknown) => Ok(Attempt::Unknown),
            Err(CommitError::Conflict(_) | CommitError::Done(_) | CommitError::TooOld) => {
                Ok(Attempt::Again)
            }
            Err(CommitError::TooLarge) => Ok(Attempt::TooMany),
            Err(error) => Err(error::internal(error)),
        }
    }

    async fn judge(
        &self,
        rooms: &Rooms,
        one: &Arriving,
        view: &Snapshot,
        working: &mut Working,
        alone: bool,
    ) -> error::Result<Judgement> {
        let Arriving { incoming, way, .. } = one;
        incoming::judge(rooms, &self.room, incoming, way, view, working, alone).await
    }
}

impl Arriving {
    fn is_ours(&self) -> bool {
        matches!(self.way, Way::Ours(_))
    }

    /// Whether nothing but its id tells that it was sent.
    fn is_ours_without_once(&self) -> bool {
        matches!(&self.way, Way::Ours(group) if group.once.is_none())
    }

    /// Puts what is written with the event, once it is accepted, into the batch.
    fn write_rows(&self, storage: &Storage, batch: &mut Batch, working: &mut Working) {
        match &self.way {
            Way::Heard | Way::NotRecommended(_) | Way::HandedOver => {}
            Way::Ours(group) => {
                let ids = [self.incoming.pdu.event_id().to_owned()];
                accept::finish_group(batch, group, &ids);
                working.remember(group, &ids);
            }
            Way::Entering { partial, .. } => match partial {
                Some(join) => join.leave_job(storage, batch, working),
                None => batch.delete(&schema::PARTIAL_ROOM, &working.room.short),
            },
        }
    }
}

/// An event of ours that turns out to be known was written by the try before.
fn written((received, ours): (&mut Received, bool)) {
    if ours && *received == Received::Known {
        *received = Received::Accepted;
    }
}

impl Queue {
    /// Events of other servers that are written together, in the order in which they came. One by which we
    /// come into the room is alone.
    pub(super) fn take_arriving(&mut self) -> VecDeque<Arriving> {
        let mut taken = VecDeque::new();
        let mut bytes = 0;
        while let Some(next) = self.arriving.front() {
            let alone = matches!(next.way, Way::Entering { .. });
            bytes += next.incoming.pdu.json().len();
            let full = taken.len() == ARRIVING_MAX || bytes > CONTENT_MAX;
            if !taken.is_empty() && (alone || full) {
                break;
            }
            taken.extend(self.arriving.pop_front());
            if alone {
                break;
            }
        }
        taken
    }
}
