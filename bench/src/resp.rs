//! The Redis protocol as far as a generator needs it: commands out, replies in, no allocation an
//! operation.

use crate::plan::{Ask, Supply, key};
use bytes::{BufMut, BytesMut};
use std::io::Write;

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+…`
    Simple,
    /// `:…`
    Integer(i64),
    /// `$…` with bytes.
    Bulk(&'a [u8]),
    /// Nothing there.
    Nil,
    /// `-…`
    Error(&'a [u8]),
    /// Of a type that none of the commands here brings.
    Strange,
}

/// The first reply in `bytes` and its length; none where it has not wholly arrived.
pub fn reply(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let size = end + 1;
    let line = bytes.get(1..end.saturating_sub(1)).unwrap_or_default();
    let found = match bytes.first()? {
        b'+' => Reply::Simple,
        b'-' => Reply::Error(line),
        b':' => number(line).map_or(Reply::Strange, Reply::Integer),
        b'_' => Reply::Nil,
        b'$' => match number(line) {
            Some(-1) => Reply::Nil,
            Some(length) => {
                let length = usize::try_from(length).unwrap_or(0);
                let bulk = bytes.get(size..size + length)?;
                bytes.get(size + length + 1)?;
                return Some((Reply::Bulk(bulk), size + length + 2));
            }
            None => Reply::Strange,
        },
        _ => Reply::Strange,
    };
    Some((found, size))
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Appends the command of one operation.
pub fn command(out: &mut BytesMut, supply: &Supply, ask: &Ask) {
    if ask.write {
        set(out, supply, ask.key, ask.place);
    } else {
        out.put_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
        out.put_slice(&key(ask.key));
        out.put_slice(b"\r\n");
    }
}

/// Appends a SET of key number `number` to the value of that place.
pub fn set(out: &mut BytesMut, supply: &Supply, number: u64, place: usize) {
    out.put_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
    out.put_slice(&key(number));
    // Writing to memory does not fail.
    let _ = write!(out.writer(), "\r\n${}\r\n", supply.value_bytes);
    supply.put_value(out, number, place);
    out.put_slice(b"\r\n");
}

/// Appends a WAIT for so many replicas, however long it takes.
pub fn wait(out: &mut BytesMut, replicas: u32) {
    let _ = write!(out.writer(), "*3\r\n$4\r\nWAIT\r\n$1\r\n{}\r\n$1\r\n0\r\n", replicas.min(9));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Workload;

    #[test]
    fn replies_are_read_whole_or_not_at_all() {
        let all: [(&[u8], Reply<'_>); 6] = [
            (b"+OK\r\n", Reply::Simple),
            (b"-READONLY no\r\n", Reply::Error(b"READONLY no")),
            (b":-3\r\n", Reply::Integer(-3)),
            (b"$-1\r\n", Reply::Nil),
            (b"$3\r\na\nb\r\n", Reply::Bulk(b"a\nb")),
            (b"$0\r\n\r\n", Reply::Bulk(b"")),
        ];
        for (bytes, expected) in all {
            assert_eq!(reply(bytes), Some((expected, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(reply(&bytes[..cut]), None, "{:?} cut at {cut}", bytes);
            }
        }
    }

    #[test]
    fn commands_are_what_redis_expects() {
        let mut out = BytesMut::new();
        set(&mut out, &Supply::new(9, 10, Workload::Write).unwrap(), 7, 2);
        wait(&mut out, 1);
        let expected = "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000007\r\n$10\r\n\
                        \x07\0\0\0\0\0\0\0\x02\0\r\n\
                        *3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";
        assert_eq!(out, expected.as_bytes());
    }
}
