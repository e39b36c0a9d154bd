//! No round is promised above the durable ceiling. Source: register.md, "State".

use crate::{harness::disk::SimDisk, storage::Store};
use simpledynamo_protocol::message::Message;

pub(super) fn check(message: &Message, disk: &SimDisk) -> Result<(), &'static str> {
    let Message::Promise(promise) = message else { return Ok(()) };
    let ceiling = disk.meta().map(|meta| meta.ceiling).unwrap_or(0);
    let held = promise.ballot.round <= ceiling;
    if held { Ok(()) } else { Err("no round is promised above the durable ceiling") }
}
