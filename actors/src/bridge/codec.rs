//! Frames: what a message is on the wire. No input or output here, only bytes.
//!
//! ```text
//! length u32 LE │ tag u16 LE │ checksum u32 LE │ trace, if any │ body
//!               └──────────────────── length ───────────────────────┘
//! ```
//!
//! The body is the message's struct in postcard. In front of it may stand a [`Trace`], also in
//! postcard: then the tag's highest bit is set ([`TRACED`]), which no message's own tag has. A peer
//! of [version](super::hello) 1 knows no traces and is sent none. The
//! checksum is the CRC-32 of length, tag, trace and body, so that a flipped bit costs the connection and never becomes another value. The tag says which
//! struct follows ([`Message::TAGS`]); one that this version does not know is skipped by its length
//! and reported, so that a newer peer may say more.
//!
//! A declared length is compared with the limit and takes no memory: bytes are kept only once they
//! have arrived.
//!
//! Caveats. postcard does not describe itself: a struct cannot gain a field in place, a changed
//! message is a new tag. A CRC finds every error of one bit or one burst of 32 bits inside a frame of
//! right length; where the length itself is hit, a wrong frame passes once in 2³². It is no defence
//! against someone who wants to deceive: that is the network's duty, see [`super::hello`].

use crate::flow::RecordId;
use bytes::{Buf, BufMut, BytesMut};
use postcard::{Deserializer, ser_flavors::Flavor, serialize_with_flavor};
use serde::{Deserialize, Serialize, Serializer};
use simpledynamo_protocol::{message::Message, ring::NodeId};
use std::fmt;

/// Bytes before the body: length, tag, checksum.
pub const HEADER_BYTES: usize = LENGTH_BYTES + FOLLOWING_MIN;
const LENGTH_BYTES: usize = 4;
/// The smallest length a frame may declare: tag and checksum of an empty body.
const FOLLOWING_MIN: usize = 6;

/// The bit of a tag that says that a trace stands before the body.
pub const TRACED: u16 = 0x8000;

/// What travels with a message for flow records and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The number of its sending among the records of the sender's life. Node and life are known
    /// from the hello.
    pub seq: u64,
    /// What follows from it is to be written down.
    pub keep: bool,
    /// What led to it.
    pub cause: Told,
}

/// The longest trace: a number, a bit, which cause, and the three numbers of one.
const TRACE_BYTES_MAX: usize = 10 + 1 + 1 + 5 + 10 + 10;

impl Trace {
    /// In postcard, and how many bytes of it. By hand, as [`Trace::read`] is, because it is done for
    /// every message: postcard asks the buffer for room three to five times.
    fn bytes(&self) -> ([u8; TRACE_BYTES_MAX], usize) {
        let (mut bytes, mut length) = ([0; TRACE_BYTES_MAX], 0);
        let mut number = |mut rest: u64| {
            loop {
                let more = rest >= 0x80;
                if let Some(place) = bytes.get_mut(length) {
                    *place = rest.to_le_bytes()[0] | if more { 0x80 } else { 0 };
                }
                length += 1;
                rest >>= 7;
                if !more {
                    break;
                }
            }
        };
        number(self.seq);
        number(self.keep.into());
        match self.cause {
            Told::Nothing => number(0),
            Told::Own(seq) => {
                number(1);
                number(seq);
            }
            Told::Other(RecordId { node, incarnation, seq }) => {
                number(2);
                number(node.0.into());
                number(incarnation);
                number(seq);
            }
        }
        (bytes, length)
    }

    /// The trace at the front of these bytes, and what follows it; none where there is none.
    fn read(bytes: &[u8]) -> Option<(Trace, &[u8])> {
        let mut rest = bytes;
        let mut number = || {
            let mut value = 0_u64;
            for shift in (0..u64::BITS).step_by(7) {
                let (byte, left) = rest.split_first()?;
                rest = left;
                let bits = u64::from(byte & 0x7f);
                // Of the tenth byte one bit is left.
                if bits << shift >> shift != bits {
                    return None;
                }
                value |= bits << shift;
                if byte & 0x80 == 0 {
                    return Some(value);
                }
            }
            None
        };
        let seq = number()?;
        let keep = match number()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let cause = match number()? {
            0 => Told::Nothing,
            1 => Told::Own(number()?),
            2 => Told::Other(RecordId {
                node: NodeId(u32::try_from(number()?).ok()?),
                incarnation: number()?,
                seq: number()?,
            }),
            _ => return None,
        };
        Some((Trace { seq, keep, cause }, rest))
    }
}

/// A cause as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Nothing known.
    Nothing,
    /// This record of the sender's present life.
    Own(u64),
    /// Any other record.
    Other(RecordId),
}

/// Why bytes are no frame, or a message does not become one. On a connection every one of them ends
/// it: after a broken frame nobody knows where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// Larger than the limit, header included; `bytes` is 0 where an encoder stopped before it knew.
    TooLarge {
        /// The declared size.
        bytes: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The declared length does not even hold the header.
    TooShort(usize),
    /// The checksum does not fit: bytes were changed on the way.
    Checksum,
    /// The checksum fits and the body of this tag cannot be read: the peer speaks another dialect.
    Body(u16),
    /// Bytes are left after the body of this tag.
    TrailingBytes(u16),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::TooLarge { bytes: 0, limit } => {
                write!(f, "the message does not fit into {limit} bytes")
            }
            CodecError::TooLarge { bytes, limit } => {
                write!(f, "a frame of {bytes} bytes is above the limit of {limit} (frame_bytes)")
            }
            CodecError::TooShort(length) => write!(f, "a frame cannot have the length {length}"),
            CodecError::Checksum => f.write_str("the checksum does not fit: damaged on the way"),
            CodecError::Body(tag) => write!(f, "the body of tag {tag} cannot be read"),
            CodecError::TrailingBytes(tag) => write!(f, "bytes left after the body of tag {tag}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Appends `message` as one frame to `out` and returns the frame's size in bytes, with its trace
/// where there is one.
///
/// # Errors
/// [`CodecError::TooLarge`] where the frame would be larger than `limit` bytes; `out` is then as it
/// was, and has never held more than `limit` bytes beyond it.
pub fn encode(
    message: &Message,
    trace: Option<&Trace>,
    out: &mut BytesMut,
    limit: usize,
) -> Result<usize, CodecError> {
    let start = out.len();
    let too_large = CodecError::TooLarge { bytes: 0, limit };
    if limit < HEADER_BYTES {
        return Err(too_large);
    }
    out.put_bytes(0, HEADER_BYTES);
    let room = limit - HEADER_BYTES;
    let traced = trace.map_or(Ok(()), |trace| {
        let (bytes, length) = trace.bytes();
        Tail { out, room }.try_extend(bytes.get(..length).unwrap_or_default())
    });
    let room = limit.saturating_sub(out.len() - start);
    let written = traced.and_then(|()| serialize_with_flavor(&Body(message), Tail { out, room }));
    let tag = message.tag() | if trace.is_some() { TRACED } else { 0 };
    let size = out.len() - start;
    let length = u32::try_from(size - LENGTH_BYTES);
    let (Ok(()), Ok(length)) = (written, length) else {
        out.truncate(start);
        return Err(too_large);
    };
    let frame = out.get_mut(start..).unwrap_or_default();
    let (header, body) = frame.split_at_mut(HEADER_BYTES.min(size));
    let mut header = header;
    header.put_u32_le(length);
    header.put_u16_le(tag);
    header.put_u32_le(checksum(length, tag, body));
    Ok(size)
}

/// What one frame held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A message.
    Message(Message),
    /// A message with its trace.
    Traced(Message, Trace),
    /// A whole frame of a tag that this version does not know; skipped.
    Unknown(u16),
}

/// Takes frames off the front of a buffer of received bytes.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    limit: usize,
}

impl Decoder {
    /// A decoder of frames up to `limit` bytes, header included.
    #[must_use]
    pub fn new(limit: usize) -> Decoder {
        Decoder { limit }
    }

    /// The next frame; none where it has not wholly arrived.
    ///
    /// # Errors
    /// Every [`CodecError`]. The buffer is then of no further use.
    pub fn decode(&self, received: &mut BytesMut) -> Result<Option<Decoded>, CodecError> {
        let Some((length, mut rest)) = split_u32(received) else { return Ok(None) };
        let following = usize::try_from(length).unwrap_or(usize::MAX);
        let size = following.saturating_add(LENGTH_BYTES);
        if size > self.limit {
            return Err(CodecError::TooLarge { bytes: size, limit: self.limit });
        }
        if following < FOLLOWING_MIN {
            return Err(CodecError::TooShort(following));
        }
        let Some(frame) = rest.get(..following) else { return Ok(None) };
        rest = frame;
        let (tag, declared) = (rest.get_u16_le(), rest.get_u32_le());
        if checksum(length, tag, rest) != declared {
            return Err(CodecError::Checksum);
        }
        let (tag, traced) = (tag & !TRACED, tag & TRACED != 0);
        let trace = match traced.then(|| Trace::read(rest)) {
            None => None,
            Some(None) => return Err(CodecError::Body(tag)),
            Some(Some((trace, body))) => {
                rest = body;
                Some(trace)
            }
        };
        let mut body = Deserializer::from_bytes(rest);
        let message = Message::deserialize_body(tag, &mut body);
        let left = body.finalize().map_or(0, <[u8]>::len);
        let decoded = match message {
            Err(_) => return Err(CodecError::Body(tag)),
            Ok(Some(_)) if left > 0 => return Err(CodecError::TrailingBytes(tag)),
            Ok(Some(message)) => match trace {
                Some(trace) => Decoded::Traced(message, trace),
                None => Decoded::Message(message),
            },
            Ok(None) => Decoded::Unknown(tag),
        };
        received.advance(size);
        Ok(Some(decoded))
    }
}

/// The numbers of the traced frames among these whole frames, in order.
pub(super) fn traced(frames: &[u8]) -> Vec<u64> {
    let (mut numbers, mut rest) = (Vec::new(), frames);
    while let Some((length, after)) = split_u32(rest) {
        let Some((frame, next)) =
            usize::try_from(length).ok().and_then(|length| after.split_at_checked(length))
        else {
            break;
        };
        rest = next;
        let tag = frame.first_chunk().map_or(0, |tag| u16::from_le_bytes(*tag));
        let trace = frame.get(FOLLOWING_MIN..).unwrap_or_default();
        if tag & TRACED != 0
            && let Some((Trace { seq, .. }, _)) = Trace::read(trace)
        {
            numbers.push(seq);
        }
    }
    numbers
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length), rest))
}

fn checksum(length: u32, tag: u16, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(&tag.to_le_bytes());
    crc.update(body);
    crc.finalize()
}

/// A message's body alone, for a serializer.
struct Body<'a>(&'a Message);

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_body(serializer)
    }
}

/// Where postcard writes: the end of a shared buffer, up to a bound.
struct Tail<'a> {
    out: &'a mut BytesMut,
    room: usize,
}

impl Flavor for Tail<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        let left = self.room.checked_sub(data.len());
        self.room = left.ok_or(postcard::Error::SerializeBufferFull)?;
        self.out.put_slice(data);
        Ok(())
    }

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
