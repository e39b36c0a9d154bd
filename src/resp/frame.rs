//! What a client is told, and its bytes in RESP2 and RESP3.
//!
//! Source: the Redis serialization protocol specification. A family returns a [`Frame`] and does
//! not care for the protocol: a map is a flat array in RESP2, a set an array, nil has three spellings.

use simpledynamo_protocol::{command::Reply, record::Value};
use std::{borrow::Cow, io::Write};

/// The protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Until `HELLO` says otherwise.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Protocol {
    /// As `HELLO` counts.
    pub(super) fn number(self) -> i64 {
        match self {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        }
    }
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// `+OK`.
    Ok,
    /// No value.
    Nil,
    /// No array, where RESP2 tells the two apart.
    NilArray,
    /// A number.
    Int(i64),
    /// A value's bytes.
    Bulk(Value),
    /// Text as a bulk string.
    Text(Cow<'static, str>),
    /// Text for people: verbatim in RESP3.
    Verbatim(String),
    /// A simple string.
    Status(Cow<'static, str>),
    /// An error, with its code first.
    Error(Cow<'static, str>),
    /// Frames in order.
    Array(Vec<Frame>),
    /// Frames without order.
    Set(Vec<Frame>),
    /// Pairs in order.
    Map(Vec<(Frame, Frame)>),
}

impl Frame {
    /// An error's frame.
    pub(super) fn error(text: impl Into<Cow<'static, str>>) -> Frame {
        Frame::Error(text.into())
    }

    /// A text's frame.
    pub(super) fn text(text: impl Into<Cow<'static, str>>) -> Frame {
        Frame::Text(text.into())
    }

    /// A count's frame.
    pub(super) fn count(count: u64) -> Frame {
        Frame::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// A map with texts for keys.
    pub(super) fn map<const N: usize>(pairs: [(&'static str, Frame); N]) -> Frame {
        Frame::Map(pairs.map(|(name, frame)| (Frame::text(name), frame)).into())
    }

    /// Appends the bytes of this reply.
    pub(super) fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let three = protocol == Protocol::Resp3;
        match self {
            Frame::Ok => out.extend_from_slice(b"+OK\r\n"),
            Frame::Nil | Frame::NilArray if three => out.extend_from_slice(b"_\r\n"),
            Frame::Nil => out.extend_from_slice(b"$-1\r\n"),
            Frame::NilArray => out.extend_from_slice(b"*-1\r\n"),
            Frame::Int(number) => head(out, b':', *number),
            Frame::Bulk(value) => bulk(out, value),
            Frame::Text(text) => bulk(out, text.as_bytes()),
            Frame::Verbatim(text) if three => {
                head(out, b'=', text.len() + 4);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Frame::Verbatim(text) => bulk(out, text.as_bytes()),
            Frame::Status(text) => line(out, b'+', text),
            Frame::Error(text) => line(out, b'-', text),
            Frame::Array(frames) => many(frames, b'*', protocol, out),
            Frame::Set(frames) => many(frames, if three { b'~' } else { b'*' }, protocol, out),
            Frame::Map(pairs) => {
                let (kind, items) =
                    if three { (b'%', pairs.len()) } else { (b'*', pairs.len() * 2) };
                head(out, kind, items);
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }
}

impl From<Reply> for Frame {
    fn from(reply: Reply) -> Frame {
        match reply {
            Reply::Ok => Frame::Ok,
            Reply::Nil => Frame::Nil,
            Reply::Int(number) => Frame::Int(number),
            Reply::Bulk(value) => Frame::Bulk(value),
            Reply::Status(text) => Frame::Status(text.into()),
            Reply::Error(text) => Frame::Error(text.into()),
        }
    }
}

fn head(out: &mut Vec<u8>, kind: u8, number: impl std::fmt::Display) {
    out.push(kind);
    // Writing to memory does not fail.
    let _ = write!(out, "{number}\r\n");
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A line must stay one line: an error may quote what the client typed.
fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

fn many(frames: &[Frame], kind: u8, protocol: Protocol, out: &mut Vec<u8>) {
    head(out, kind, frames.len());
    for frame in frames {
        frame.encode(protocol, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(frame: &Frame) -> (String, String) {
        [Protocol::Resp2, Protocol::Resp3]
            .map(|protocol| {
                let mut out = Vec::new();
                frame.encode(protocol, &mut out);
                String::from_utf8(out).unwrap()
            })
            .into()
    }

    #[test]
    fn kinds_that_differ_between_the_protocols() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both(&Frame::Nil), pair("$-1\r\n", "_\r\n"));
        assert_eq!(both(&Frame::NilArray), pair("*-1\r\n", "_\r\n"));
        let map = Frame::map([("a", Frame::Int(-1))]);
        assert_eq!(both(&map), pair("*2\r\n$1\r\na\r\n:-1\r\n", "%1\r\n$1\r\na\r\n:-1\r\n"));
        let set = Frame::Set(vec![Frame::Ok]);
        assert_eq!(both(&set), pair("*1\r\n+OK\r\n", "~1\r\n+OK\r\n"));
        let text = Frame::Verbatim("hi".into());
        assert_eq!(both(&text), pair("$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"));
    }

    #[test]
    fn an_error_stays_on_one_line() {
        let (bytes, _) = both(&Frame::error("ERR what\r\n+OK"));
        assert_eq!(bytes, "-ERR what  +OK\r\n");
    }
}
