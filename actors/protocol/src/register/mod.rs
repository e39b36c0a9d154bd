//! The quorum register: one linearizable register a key, on the key's N preference-list nodes.
//!
//! CASPaxos (Rystsov, 2018) with one owner per ballot, RIFL's exactly-once records (Lee et al.,
//! SOSP '15) inside the register ([`crate::recent`]), and a durable ballot ceiling in place of
//! durable promises. Any replica may coordinate any operation at any time: there is no leader to
//! elect, so nothing pauses when a node dies.
//!
//! | module | part |
//! |---|---|
//! | [`acceptor`] | a node's replica: promises, accepts, answers what it holds |
//! | [`proposer`] | a key's coordinator: queue, ballot, rounds |
//! | [`catchup`] | anti-entropy: what a replica copies, and what it must not |
//! | [`digest`] | how two replicas find out cheaply where they differ |
//! | [`sweep`] | expired values deleted, old tombstones collected |
//!
//! Invariants, each with a test that fails when the rule behind it is taken out:
//! 1. One (ballot, version) never names two contents.
//! 2. What a write quorum holds at one stamp is contained in every later chosen state.
//! 3. A read returns a chosen state no older than any that was chosen before it began.
//! 4. An operation is applied once, however often it is tried.
//! 5. A replica holds a record only because it voted for it, or because the record was chosen.

pub mod acceptor;
pub mod catchup;
pub mod digest;
pub mod proposer;
pub mod sweep;
