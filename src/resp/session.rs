//! What a connection has said about itself: who it is, which protocol, which replies it wants.

use super::{execute::Mark, frame::Protocol};
use bytes::Bytes;
use std::{net::SocketAddr, rc::Rc};
use tokio::time::Instant;

/// Which replies a client wants (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    /// All.
    On,
    /// None.
    Off,
    /// Not the next command's.
    SkipNext,
}

/// The state of one connection.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Counts connections of the node since its start, from 1.
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) opened: Instant,
    /// Always true where no password is set.
    pub(super) authenticated: bool,
    pub(super) protocol: Protocol,
    /// `CLIENT SETNAME`; empty where none.
    pub(super) name: Bytes,
    /// `CLIENT SETINFO`.
    pub(super) lib_name: Bytes,
    /// `CLIENT SETINFO`.
    pub(super) lib_version: Bytes,
    pub(super) replies: Replies,
    /// Shared with what is in flight.
    pub(super) mark: Rc<Mark>,
}

impl Session {
    /// A connection as it begins.
    pub(super) fn new(id: u64, peer: SocketAddr, local: SocketAddr, open: bool) -> Session {
        Session {
            id,
            peer,
            local,
            opened: Instant::now(),
            authenticated: open,
            protocol: Protocol::Resp2,
            name: Bytes::new(),
            lib_name: Bytes::new(),
            lib_version: Bytes::new(),
            replies: Replies::On,
            mark: Rc::default(),
        }
    }

    /// `RESET`: as it began.
    pub(super) fn reset(&mut self, open: bool) {
        let mark = Rc::clone(&self.mark);
        mark.keep.set(false);
        let opened = self.opened;
        *self = Session { opened, mark, ..Session::new(self.id, self.peer, self.local, open) };
    }

    /// The line of `CLIENT LIST`.
    pub(super) fn describe(&self) -> String {
        format!(
            "id={} addr={} laddr={} name={} age={} db=0 user=default resp={} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            String::from_utf8_lossy(&self.name),
            self.opened.elapsed().as_secs(),
            self.protocol.number(),
            String::from_utf8_lossy(&self.lib_name),
            String::from_utf8_lossy(&self.lib_version),
        )
    }
}

/// Whether a client's password is the right one, in a time that does not depend on where they
/// differ: every byte typed is compared, against the right one repeated.
pub(super) fn password_matches(right: &[u8], typed: &[u8]) -> bool {
    let folded = typed
        .iter()
        .zip(right.iter().cycle())
        .fold(0, |differ, (typed, right)| differ | (typed ^ right));
    std::hint::black_box(folded) == 0 && right.len() == typed.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_password_matches() {
        assert!(password_matches(b"secret", b"secret"));
        for wrong in ["", "s", "secre", "secreT", "secretsecret", "secrets"] {
            assert!(!password_matches(b"secret", wrong.as_bytes()), "{wrong}");
        }
    }
}
