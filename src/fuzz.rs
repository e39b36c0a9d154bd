//! What must hold for any bytes at all: bodies of the fuzz targets in `fuzz/`, and property tests
//! here, so that stable Rust runs them too.
//!
//! Each function takes whatever bytes there are and panics where the promise is broken: no panic,
//! no memory beyond the bounds, the same meaning however the bytes are cut, and what was read writes
//! itself back. Not an interface: hidden, and it changes with the formats.

use crate::{
    config::{Cluster, Environment},
    resp,
};
use bytes::BytesMut;
use simpledynamo_actors::{
    bridge::codec::{Decoded, Decoder, encode},
    storage,
};
use std::path::Path;

/// Largest peer frame here, bytes: small, so that limits are met.
const FRAME_BYTES: usize = 64 * 1024;

/// What a client sends: the first byte says how the rest is cut.
pub fn client_frames(bytes: &[u8]) {
    let Some((step, input)) = bytes.split_first() else { return };
    resp::fuzz(usize::from(*step) + 1, input);
}

/// How many requests of a client stand in the input: the parser alone, for the micro-benchmarks of `bench/`.
pub fn requests(input: &mut BytesMut) -> usize {
    resp::requests(input)
}

/// What a peer sends: every message that comes out can be sent on and arrives the same.
pub fn peer_frames(bytes: &[u8]) {
    let decoder = Decoder::new(FRAME_BYTES);
    let mut input = BytesMut::from(bytes);
    while let Ok(Some(decoded)) = decoder.decode(&mut input) {
        let (message, trace) = match decoded {
            Decoded::Message(message) => (message, None),
            Decoded::Traced(message, trace) => (message, Some(trace)),
            Decoded::Unknown(_) => continue,
        };
        let mut frame = BytesMut::new();
        let size = encode(&message, trace.as_ref(), &mut frame, FRAME_BYTES);
        assert_eq!(size, Ok(frame.len()), "{message} came in a frame and fits in none");
        let again = match trace {
            Some(trace) => Decoded::Traced(message, trace),
            None => Decoded::Message(message),
        };
        assert_eq!(decoder.decode(&mut frame), Ok(Some(again)));
    }
}

/// What the disk gives back: the first byte is the length of the row's key, the rest key and value.
pub fn stored_records(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    storage::fuzz(key, value);
}

/// A configuration: it is refused with a message, or every node of it can be described.
pub fn cluster_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Cluster::parse(Path::new("cluster.toml"), text, &Environment::default()) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(cluster) => {
            assert!(!cluster.nodes.is_empty());
            let ring = cluster.ring();
            for node in &cluster.nodes {
                assert!((0.0..=1.0).contains(&ring.share(node.id)));
                // Err: a peer's address is one nobody can connect to; that is said at the start.
                let _ = cluster.settings(node.id, Path::new("data"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::Index};
    use simpledynamo_protocol::{
        ballot::Ballot,
        message::{Message, Missed, Prepare},
    };

    type Body = fn(&[u8]);

    /// Seeds of what is valid; changed a little they come further than chance does.
    fn seeds() -> Vec<(Body, Vec<u8>)> {
        let prepare = Prepare { key: "greeting".into(), ballot: Ballot::default() };
        let mut frames = BytesMut::new();
        for message in [Message::from(Missed {}), prepare.into()] {
            encode(&message, None, &mut frames, FRAME_BYTES).unwrap();
        }
        let (key, value) = storage::fuzz_seed();
        let mut row = vec![u8::try_from(key.len()).unwrap()];
        row.extend(key);
        row.extend(value);
        vec![
            (client_frames, b"\x03*2\r\n$3\r\nGET\r\n$1\r\nk\r\nset a \"b\\x41\" 'c'\r\n".to_vec()),
            (peer_frames, frames.to_vec()),
            (stored_records, row),
            (cluster_toml, include_bytes!("../cluster.toml").to_vec()),
        ]
    }

    #[test]
    fn what_is_valid_passes() {
        seeds().into_iter().for_each(|(body, seed)| body(&seed));
    }

    proptest! {
        #[test]
        fn any_bytes_pass(bytes in vec(any::<u8>(), 0..400)) {
            seeds().into_iter().for_each(|(body, _)| body(&bytes));
        }

        #[test]
        fn what_was_valid_and_is_changed_passes(
            changes in vec((any::<Index>(), any::<u8>(), 0..3u8), 1..6),
        ) {
            for (body, mut seed) in seeds() {
                for (at, byte, how) in &changes {
                    let at = at.index(seed.len());
                    match how {
                        0 => seed[at] = *byte,
                        1 => seed.insert(at, *byte),
                        _ if seed.len() > 1 => {
                            seed.remove(at);
                        }
                        _ => {}
                    }
                }
                body(&seed);
            }
        }
    }
}
