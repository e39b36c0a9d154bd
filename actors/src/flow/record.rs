//! One flow record: something that happened at a node, in a fixed size.
//!
//! A record is `Copy` and holds no pointer to what a request owns, so that taking one down allocates
//! nothing and the memory of recent ones pins no buffers. As JSON it is a line, [`super::line`].
//!
//! Caveat: of a key longer than [`KEY_BYTES`] only the beginning is kept, with its length and a
//! CRC-32 of the whole: two keys that are equal in all three count as one.

use super::tables::Name;
use serde::{Deserialize, Serialize};
use simpledynamo_protocol::{ballot::Ballot, recent::OpId, ring::NodeId};
use std::{fmt, str::FromStr};

/// Bytes of a key that a record keeps: keys of most programs are shorter.
pub const KEY_BYTES: usize = 40;

/// The name of a record, and of the message whose sending it tells. `Display`: `5554.17.203`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RecordId {
    /// Where.
    pub node: NodeId,
    /// In which life of it.
    pub incarnation: u64,
    /// Counts the records of that life from 1; 0 is no record.
    pub seq: u64,
}

impl RecordId {
    /// No record.
    pub const NONE: RecordId = RecordId { node: NodeId(0), incarnation: 0, seq: 0 };

    /// Whether it names one.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.seq != 0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.node, self.incarnation, self.seq)
    }
}

impl FromStr for RecordId {
    type Err = String;

    fn from_str(text: &str) -> Result<RecordId, String> {
        let (node, incarnation, seq) = three(text, '.')
            .ok_or_else(|| format!("\"{text}\" is no record id: one looks like 5554.17.203"))?;
        Ok(RecordId { node: NodeId(node), incarnation, seq })
    }
}

/// A request's name as people type it, [`OpId`]'s `Display`.
///
/// # Errors
/// It does not look like one.
pub fn request_id(text: &str) -> Result<OpId, String> {
    let (router, incarnation, seq) = three(text, '-').ok_or_else(|| {
        format!("\"{text}\" is no request id: one looks like 5554-17-203, DYNAMO LAST gives it")
    })?;
    Ok(OpId { router: NodeId(router), incarnation, seq })
}

fn three(text: &str, between: char) -> Option<(u32, u64, u64)> {
    let mut parts = text.split(between);
    let node = parts.next()?.parse().ok()?;
    let (incarnation, seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((node, incarnation, seq))
}

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$of])* $variant),+ }

        impl $name {
            /// All, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Its name in a line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                match text {
                    $($text => Ok($name::$variant),)+
                    _ => Err(format!(concat!("\"{}\" is no ", stringify!($name)), text)),
                }
            }
        }
    };
}

names! {
    /// What happened.
    Event {
        /// A client's command came in: a request begins.
        Command = "command",
        /// The client was answered: the request has ended. `handling` is its whole time.
        Reply = "reply",
        /// A message was handed to the network, or to an actor of the own node. `queue` and
        /// `handling` say how long its cause waited and was worked on.
        Send = "send",
        /// A message of another node came in.
        Receive = "receive",
        /// A message was not sent, or forgotten before it was.
        Drop = "drop",
        /// The router picked a coordinator that is not the next in order.
        Choose = "choose",
        /// A coordinator did not answer in time; `handling` is how long was waited.
        TimeOut = "timeout",
        /// The request is tried again.
        Retry = "retry",
        /// A node is believed dead from now on.
        Suspect = "suspect",
        /// And no more.
        Trust = "trust",
        /// A coordinator begins a round; `type` says which kind.
        Round = "round",
        /// The round also serves this request.
        Join = "join",
        /// The round has its quorum.
        Quorum = "quorum",
        /// A read found no agreement and writes the state back.
        WriteBack = "write-back",
        /// The round and its ballot are given up.
        GiveUp = "give-up",
        /// A pause after a lost ballot; `queue` is its length.
        BackOff = "back-off",
        /// Catch-up has compared everything; `bytes` counts the records copied.
        Level = "level",
        /// The node started.
        Start = "start",
        /// The node stopped in order.
        Stop = "stop",
        /// The node ended itself or crashed.
        Crash = "crash",
        /// Records were lost because the writer was too slow; `bytes` counts them.
        Lost = "lost",
    }
}

names! {
    /// Which part of a node.
    Actor {
        /// Whoever asked through the client port, or the node itself.
        Client = "client",
        /// The request router.
        Router = "router",
        /// A key's coordinator.
        Coordinator = "coordinator",
        /// The replica store.
        Replica = "replica",
        /// The failure detector.
        Detector = "detector",
        /// Anti-entropy.
        Sync = "sync",
        /// Scans.
        Scan = "scan",
        /// The membership table.
        Membership = "membership",
        /// The flow recorder.
        Flow = "flow",
    }
}

/// A part of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node; 0 for none.
    pub node: NodeId,
    /// The part.
    pub actor: Actor,
}

impl Place {
    /// Nowhere.
    pub const NONE: Place = Place { node: NodeId(0), actor: Actor::Client };
}

/// A key in a fixed size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortKey {
    length: u32,
    crc: u32,
    start: [u8; KEY_BYTES],
}

impl ShortKey {
    /// No key.
    pub const NONE: ShortKey = ShortKey { length: 0, crc: 0, start: [0; KEY_BYTES] };

    /// Of these bytes.
    #[must_use]
    pub fn of(key: &[u8]) -> ShortKey {
        let mut short = ShortKey::NONE;
        short.set(key);
        short
    }

    /// Of these bytes, where there was none.
    pub(super) fn set(&mut self, key: &[u8]) {
        self.length = u32::try_from(key.len()).unwrap_or(u32::MAX);
        // In words: most keys are short, and a call to copy some bytes costs more than the copying.
        let (words, last) = key.as_chunks::<8>();
        let (places, _) = self.start.as_chunks_mut::<8>();
        for (place, word) in places.iter_mut().zip(words) {
            *place = *word;
        }
        if let Some(place) = places.get_mut(words.len()) {
            for (to, from) in place.iter_mut().zip(last) {
                *to = *from;
            }
        }
        if key.len() > KEY_BYTES {
            self.crc = crc32fast::hash(key);
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.length > 0
    }

    /// A number that is the same for the same key, and most often another for another; none for none.
    pub(super) fn hint(&self) -> Option<u64> {
        let (words, _) = self.start.as_chunks::<8>();
        let mix = |sum: u64, word: &[u8; 8]| sum.rotate_left(13) ^ u64::from_le_bytes(*word);
        self.is_some().then(|| words.iter().fold(u64::from(self.crc), mix))
    }

    /// What is kept of its bytes.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        let kept = usize::try_from(self.length).unwrap_or(usize::MAX).min(KEY_BYTES);
        self.start.get(..kept).unwrap_or_default()
    }

    /// Length and CRC-32 of the whole, where bytes are missing.
    #[must_use]
    pub fn cut(&self) -> Option<(u32, u32)> {
        (usize::try_from(self.length).unwrap_or(usize::MAX) > KEY_BYTES)
            .then_some((self.length, self.crc))
    }
}

/// Printable ASCII as it is, everything else escaped; of a long key the beginning, then `…`, its
/// length and its CRC-32.
impl fmt::Display for ShortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start().escape_ascii())?;
        match self.cut() {
            Some((length, crc)) => write!(f, "…({length} B, crc {crc:08x})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ShortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The way back from `Display`.
impl FromStr for ShortKey {
    type Err = String;

    fn from_str(text: &str) -> Result<ShortKey, String> {
        let wrong = || format!("\"{text}\" is no key as flow records show it");
        let (start, cut) = match text.split_once('…') {
            None => (text, None),
            Some((start, rest)) => {
                let rest = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                let (length, crc) =
                    rest.and_then(|rest| rest.split_once(" B, crc ")).ok_or_else(wrong)?;
                let length = length.parse().map_err(|_| wrong())?;
                let crc = u32::from_str_radix(crc, 16).map_err(|_| wrong())?;
                (start, Some((length, crc)))
            }
        };
        let bytes = unescape(start).ok_or_else(wrong)?;
        let mut key = ShortKey::of(&bytes);
        if let Some((length, crc)) = cut {
            (key.length, key.crc) = (length, crc);
        }
        Ok(key)
    }
}

/// What [`u8::escape_ascii`] was made of.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                plain => plain,
            },
            plain => plain,
        });
    }
    Some(bytes)
}

/// Something that happened. Zeros and empty texts mean that there is none.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Counts the records of this life of the node, from 1; given by the recorder.
    pub seq: u64,
    /// Microseconds since the node started.
    pub mono: u64,
    /// Microseconds since the Unix epoch.
    pub wall: u64,
    /// What.
    pub event: Event,
    /// The request is to be written down whatever becomes of it.
    pub keep: bool,
    /// The message sent, received or dropped: the record of its sending.
    pub message: RecordId,
    /// What led to it.
    pub cause: RecordId,
    /// Whose doing it is, where the node knows; elsewhere the causes lead there.
    pub request: OpId,
    /// Which attempt at the request.
    pub attempt: u32,
    /// From there.
    pub from: Place,
    /// To there.
    pub to: Place,
    /// The message's, command's or round's type.
    pub kind: &'static str,
    /// Of which key.
    pub key: ShortKey,
    /// At which ballot.
    pub ballot: Ballot,
    /// Which version of the key.
    pub version: u64,
    /// Size of the frame.
    pub bytes: u32,
    /// Microseconds waited.
    pub queue: u32,
    /// Microseconds worked.
    pub handling: u32,
    /// Why.
    pub reason: &'static str,
}

impl Record {
    /// Nothing yet.
    pub const BLANK: Record = Record {
        seq: 0,
        mono: 0,
        wall: 0,
        event: Event::Send,
        keep: false,
        message: RecordId::NONE,
        cause: RecordId::NONE,
        request: OpId { router: NodeId(0), incarnation: 0, seq: 0 },
        attempt: 0,
        from: Place::NONE,
        to: Place::NONE,
        kind: "",
        key: ShortKey::NONE,
        ballot: Ballot::ZERO,
        version: 0,
        bytes: 0,
        queue: 0,
        handling: 0,
        reason: "",
    };
}

/// Why something is done: what led to it, and when that came in. Handed along inside a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The message, or the record, that led to it.
    pub id: Name,
    /// Whether what follows from it is to be written down whatever becomes of it.
    pub keep: bool,
    /// When it came in, microseconds since the node's start.
    pub at: u64,
}

impl Cause {
    /// Nothing known led to it.
    pub const NONE: Cause = Cause { id: Name::NONE, keep: false, at: 0 };
}
