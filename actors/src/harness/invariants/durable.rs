//! What a replica says it holds is on its disk. Source: register.md, "Messages and rules":
//! `Accepted` only after it is durable; a query is answered from the durable record. A member of a
//! chain passes on what it holds durably.

use crate::{harness::disk::SimDisk, storage::Store};
use simpledynamo_protocol::{
    ballot::Stamp,
    message::{Held, Message},
    record::Key,
    ring::NodeId,
};

pub(super) fn check(from: NodeId, message: &Message, disk: &SimDisk) -> Result<(), &'static str> {
    let said: Option<(&Key, Stamp)> = match message {
        Message::Accepted(accepted) => Some((&accepted.key, accepted.stamp)),
        Message::Promise(promise) => {
            promise.record.as_ref().map(|record| (&promise.key, record.stamp))
        }
        Message::State(state) => match &state.held {
            Held::Record(record) => Some((&state.key, record.stamp)),
            Held::Same(stamp) => Some((&state.key, *stamp)),
            Held::Nothing => None,
        },
        Message::Forward(forward) => {
            forward.record.as_ref().map(|record| (&forward.key, record.stamp))
        }
        _ => None,
    };
    let collected = |floor: u64, stamp: Stamp| match message {
        // A chain's floor is a version.
        Message::Forward(_) => floor >= stamp.version,
        _ => floor >= stamp.ballot.round,
    };
    let Some((key, stamp)) = said else { return Ok(()) };
    let stored = disk.get(key).ok().flatten();
    let kept = match stored {
        Some(record) => record.stamp >= stamp,
        // A tombstone may have been collected since.
        None => disk.meta().is_ok_and(|meta| collected(meta.absent_floor, stamp)),
    };
    // While it waited to leave, its sender was shut out of that chain. The next one went on without
    // what it says, and to join that one the sender gave it up. Who stayed must have it still.
    let overtaken = || {
        matches!(message, Message::Forward(forward) if disk.seat(forward.range).is_some_and(|seat| {
            seat.config.since(from).is_none_or(|since| since > forward.config.epoch)
        }))
    };
    if kept || overtaken() { Ok(()) } else { Err("what a replica says it holds is durable there") }
}
