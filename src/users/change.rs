//! Telling a user's devices that something changed.

use storage::{
    Batch, Position, ShortUserId, Topic,
    schema::{CHANGE_BY_USER_POSITION, TAIL_BY_USER, UserChange},
};

/// Writes what changed for `user` into their log, moves their tail, and wakes who waits for them.
/// To be called once a batch and user: changes of one batch are told apart by their index.
pub(crate) fn tell(
    batch: &mut Batch,
    user: ShortUserId,
    changes: impl IntoIterator<Item = UserChange>,
) {
    let mut index = 0;
    for change in changes {
        batch.put(
            &CHANGE_BY_USER_POSITION,
            &(user, Position::pending(index)),
            &change,
        );
        index += 1;
    }
    if index > 0 {
        batch.put_stamped(&TAIL_BY_USER, &user, index - 1, ());
        batch.wake(Topic::User(user));
    }
}
