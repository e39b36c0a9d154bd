//! Tests of the bridge: its bytes, and its behaviour over a network in memory and over TCP.

mod codec;
mod connections;
mod golden;
mod strangers;
mod support;
