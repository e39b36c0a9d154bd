//! The cluster runtime of SimpleDynamo: one node is one actor system.
//!
//! ```text
//!                     clients                          peers
//!                        │ Execute                       │ framed TCP (bridge)
//!                        ▼                               ▼
//!   detector ◄──────── router ◄───────────────────── Inbound
//!      │  TimedOut,      │  ▲                              │
//!      │  Heard          │  │ FromNode                     │ take
//!      ▼           Take  ▼  │                              ▼
//!   membership      coordinator (a key) ── take ───────► replica ── Work ──► writer thread
//!      │                     └─ bridge ─► peers            │ ▲                  │
//!      │ StartPass                                         │ └──── Committed ───┘
//!      ▼                                                   │
//!   sync, scan ◄───────────────── FromReplica ─────────────┘
//! ```
//!
//! | actor | duty |
//! |---|---|
//! | [`router`] | the only door: names operations, picks coordinators, tries the next on silence |
//! | [`coordinator`] | one a key in use: drives the key's rounds, in order |
//! | [`replica`] | what this node stores, with a writer thread that commits in groups |
//! | [`detector`] | who is believed dead, from answers and time-outs only |
//! | [`membership`] | the ring as configured, standings, and whether this node may vote |
//! | [`sync`] | anti-entropy: copies what this node missed |
//! | [`scan`] | keys of the whole ring |
//! | [`bridge`] | the same messages to and from other nodes |
//!
//! [`flow`] takes down what they do, for people who ask.
//!
//! With the feature `harness` there is also `harness`: whole nodes on simulated time and network,
//! with faults injected between them.
//!
//! The actors decide nothing: `simpledynamo_protocol` does. Everything between nodes is
//! [`simpledynamo_protocol::message::Message`]; inside a node each message is a struct with its
//! reader and its meaning, beside the actor that reads it or in [`messages`].

pub mod bridge;
pub mod clock;
pub mod coordinator;
pub mod detector;
pub mod flow;
pub mod gate;
#[cfg(feature = "harness")]
pub mod harness;
mod known;
pub mod membership;
pub mod messages;
pub mod metrics;
pub mod node;
pub mod replica;
pub mod router;
pub mod scan;
pub mod settings;
pub mod shards;
pub mod storage;
pub mod sync;
