//! A seeded simulation of a whole cluster around the protocol's own state machines.
//!
//! Each simulated node runs the production [`routing`], [`suspicion`], [`proposer`] and
//! [`acceptor`]; what is simulated is what surrounds them: time, network, disk, crashes, clients.
//! A run is a function of its seed.
//!
//! | module | part |
//! |---|---|
//! | [`world`], [`faults`], [`chaos`] | events in order of time; what breaks; how much |
//! | [`node`], [`disk`], [`catchup`] | one node, its store, its anti-entropy |
//! | [`clients`], [`ttl`] | what is asked and seen; linearizability where values expire |
//! | [`invariants`] | what must hold after each step, one rule a file |
//! | [`chained`] | a node with chains |
//! | [`mutant`], [`chain_mutant`] | rules broken on purpose |
//!
//! [`routing`]: simpledynamo_protocol::routing
//! [`suspicion`]: simpledynamo_protocol::suspicion
//! [`proposer`]: simpledynamo_protocol::register::proposer
//! [`acceptor`]: simpledynamo_protocol::register::acceptor

pub mod catchup;
pub mod chain_mutant;
pub mod chained;
pub mod chaos;
pub mod clients;
pub mod disk;
pub mod faults;
pub mod invariants;
pub mod mutant;
pub mod node;
pub mod rng;
pub mod world;
