//! proposer
