//! Flow records: what happens to each request, message by message, for people who ask.
//!
//! Every message sent, received or dropped and every decision is a [`Record`] with a name. A record
//! says what led to it ([`Record::cause`]), and a message carries the name of its sending and of its
//! cause to the other node. So the causes form one graph over all nodes, and the story of a request
//! is the part of it that its `command` record leads to (`simpledynamo::flow` draws it).
//!
//! | module | what it does |
//! |---|---|
//! | `record` | a record as readers see it |
//! | `packed`, `tables` | a record as it lies in memory, and what records have in common |
//! | `describe` | what a record says of a message |
//! | `recorder` | takes records down; decides which are written |
//! | `memory`, `hold` | the ring of recent records, and its lock |
//! | `outgoing` | records that wait for the writer |
//! | `line` | a record as JSON |
//! | `files` | the writer thread, and its files |
//!
//! **What the causes are.** A received message is caused by its sending. What a coordinator sends in
//! a round is caused by the round's own record, because a round serves many requests: it names the
//! first, and a `join` record each of the others. A replica's answer is caused by the question, a
//! round by the message that let it begin, an answer to the router by the quorum that it rests on. So
//! a replica, which is told no request id, has it by following the causes.
//!
//! By default the receipt of a message is taken down only where nothing that it at once led to says it
//! ([`Recorder::receipt`]); whoever reads puts the others back.
//!
//! No decision of the node rests on anything here.
//!
//! Caveats. A node that is killed loses what its writer had gathered ([`files`]). Records of a node
//! under more load than the memory is large for are gone when they are asked for. Messages that are
//! dropped because of no connection are recorded when they are forgotten; those lost with a
//! connection show as sent and never received.

mod describe;
pub mod files;
mod hold;
mod line;
mod memory;
mod outgoing;
mod packed;
mod record;
mod recorder;
mod tables;

pub use describe::actors;
pub use line::VERSION;
pub use memory::{Counts, Filter};
pub use packed::Draft;
pub use record::{Actor, Cause, Event, KEY_BYTES, Place, Record, RecordId, ShortKey, request_id};
pub use recorder::{Origin, Reader, Recorder, Twin};
pub use tables::Name;
