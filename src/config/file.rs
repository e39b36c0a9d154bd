//! `cluster.toml` as typed: what serde can tell, with the place of every value.
//!
//! Nothing is decided here. Values keep their spans, so that a finding of [`super::check`] can point
//! at what was typed; unknown fields are errors, for a misspelt limit must not pass as its default.

use super::units::{Size, Time};
use serde::Deserialize;
use toml::Spanned;

/// An optional value and its place.
pub(super) type Typed<T> = Option<Spanned<T>>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterFile {
    pub(super) replication: Typed<String>,
    pub(super) replicas: Typed<u32>,
    pub(super) read_quorum: Typed<u32>,
    pub(super) write_quorum: Typed<u32>,
    pub(super) request_timeout: Typed<Time>,
    pub(super) hedge_after: Typed<Time>,
    pub(super) deadline: Typed<Time>,
    pub(super) tombstone_grace: Typed<Time>,
    pub(super) durability: Typed<String>,
    pub(super) workers: Typed<u32>,
    pub(super) secret: Typed<String>,
    pub(super) password: Typed<String>,
    #[serde(default)]
    pub(super) limits: LimitsFile,
    #[serde(default)]
    pub(super) logging: LoggingFile,
    #[serde(default)]
    pub(super) node: Vec<Spanned<NodeFile>>,
}

/// `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    pub(super) value_bytes: Typed<Size>,
    pub(super) key_bytes: Typed<Size>,
    pub(super) frame_bytes: Typed<Size>,
    pub(super) peer_bytes: Typed<Size>,
    pub(super) requests: Typed<u32>,
    pub(super) clients: Typed<u32>,
    pub(super) client_output_bytes: Typed<Size>,
    pub(super) cache_bytes: Typed<Size>,
    pub(super) coordinators: Typed<u32>,
}

/// `[logging]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoggingFile {
    pub(super) level: Typed<String>,
    pub(super) flow: Typed<String>,
    pub(super) flow_slow: Typed<Time>,
    pub(super) flow_one_in: Typed<u32>,
    pub(super) flow_memory: Typed<Size>,
    pub(super) flow_files: Typed<Size>,
}

/// One `[[node]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeFile {
    pub(super) id: Typed<i64>,
    pub(super) client: Typed<String>,
    pub(super) peer: Typed<String>,
    pub(super) http: Typed<String>,
}
