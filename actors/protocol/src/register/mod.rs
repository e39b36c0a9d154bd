//! The quorum register.

pub mod acceptor;
pub mod catchup;
pub mod digest;
pub mod proposer;
