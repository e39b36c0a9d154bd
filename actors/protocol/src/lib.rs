//! The pure protocols of SimpleDynamo.
//!
//! Everything that decides lives here, and nothing that acts: a state machine takes a message (and
//! the time, as an argument) and returns [`effect::Effect`]s in the order in which they must
//! happen: persist, then send, then answer. The same code runs in production, in the simulator and
//! in the model checker. There is no clock, socket, file, thread or hash map in this package, so a
//! run is a function of its inputs.
//!
//! | module | what it decides |
//! |---|---|
//! | [`ring`] | where a key lives: SHA-1 positions, the preference list |
//! | [`ballot`], [`record`], [`recent`] | what a replica stores of a key, and how two are ordered |
//! | [`command`] | what an operation does to one key's value |
//! | [`message`] | everything that travels between nodes, with stable tags |
//! | [`register`] | the linearizable quorum register: acceptor, proposer, catch-up |
//! | [`chain`] | chain replication, its configuration in such a register |
//! | [`hedge`] | when a late request is sent to a second coordinator |
//! | [`routing`] | which coordinator is asked, and what the client may be told |
//! | [`suspicion`] | who is believed dead, from answers and time-outs only |
//! | [`history`], [`checker`] | what clients saw, and whether one register could have shown it |

pub mod ballot;
pub mod budget;
pub mod chain;
pub mod checker;
pub mod command;
pub mod effect;
pub mod hedge;
pub mod history;
pub mod message;
pub mod recent;
pub mod record;
pub mod register;
pub mod ring;
pub mod routing;
mod short_bytes;
pub mod suspicion;
pub mod time;
