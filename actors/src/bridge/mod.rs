//! Peers: framed TCP.
