//! The log of messages: what two runs of one seed are compared by.
//!
//! Every message is hashed at its sending and its arrival, with the time, the way and all bytes, so
//! that two runs differ where a single bit does. The text is kept only on request.
//!
//! Caveat: hello packets are left out. Their challenges are random in every run and decide nothing.

use simpledynamo_protocol::{message::Message, ring::NodeId};

/// Lines kept where they are kept at all: some hundred megabytes.
const LINES_MAX: usize = 1_000_000;

/// The log of one run.
#[derive(Clone, Debug)]
pub(super) struct Log {
    hash: u64,
    entries: u64,
    lines: Option<Vec<String>>,
}

impl Log {
    /// An empty one; `keep` says whether the text is wanted.
    pub(super) fn new(keep: bool) -> Log {
        // FNV-1a's offset basis.
        Log { hash: 0xcbf2_9ce4_8422_2325, entries: 0, lines: keep.then(Vec::new) }
    }

    /// Notes a message.
    pub(super) fn message(
        &mut self,
        now: u64,
        indent: &str,
        from: NodeId,
        to: NodeId,
        message: &Message,
        bytes: &[u8],
    ) {
        self.mix(now);
        self.mix(u64::from(from.0) << 32 | u64::from(to.0));
        self.mix(u64::from(crc32fast::hash(bytes)) << 32 | bytes.len() as u64);
        self.line(now, || format!("{indent}{from} → {to} {message}"));
    }

    /// Notes anything else that happened.
    pub(super) fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        self.mix(now);
        self.line(now, text);
    }

    fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        self.entries += 1;
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < LINES_MAX) {
            lines.push(format!("{:>7}.{:03} {}", now / 1000, now % 1000, text()));
        }
    }

    fn mix(&mut self, word: u64) {
        // FNV-1a, eight bytes at a time.
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// A number that is the same for the same log only.
    pub(super) fn digest(&self) -> (u64, u64) {
        (self.entries, self.hash)
    }

    /// The text, where it was kept.
    pub(super) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
