//! Who is online, as news for a device.

use std::collections::BTreeSet;

use rooms::PresenceNews;
use ruma::UserId;
use serde_json::value::RawValue;

use crate::{Reading, changes::Changes, update::Joined, wants::type_passes};

impl Reading<'_> {
    /// How people are with whom the user shares a room: where that changed, and where they share it newly.
    pub(crate) async fn presence(
        &self,
        changes: &Changes,
        joined: &[Joined],
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.presence;
        if !type_passes(filter.types.as_deref(), &filter.not_types, "m.presence") {
            return Ok(Vec::new());
        }
        let new_rooms: BTreeSet<_> = joined
            .iter()
            .filter(|joined| joined.met.room_is_new)
            .map(|joined| joined.room.short)
            .collect();
        let met: Vec<_> = joined
            .iter()
            .filter(|joined| !joined.met.room_is_new)
            .flat_map(|joined| {
                let (room, met) = (joined.room.short, &joined.met);
                met.members.iter().filter_map(move |user| {
                    Some((
                        room,
                        met.generation,
                        <&UserId>::try_from(user.as_str()).ok()?,
                    ))
                })
            })
            .collect();
        let newcomers = if met.is_empty() {
            BTreeSet::new()
        } else {
            self.rooms().present_members(self.snapshot, &met).await?
        };
        self.rooms().presence_news(&PresenceNews {
            rooms: &changes.joined,
            serial: self.request.serial(self.rooms().run()),
            new_rooms,
            newcomers,
        })
    }
}
