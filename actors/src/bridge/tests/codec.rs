//! The codec against splits, flipped bits, limits and garbage.

use super::{
    super::codec::{CodecError, Decoded, Decoder, HEADER_BYTES, encode},
    golden::examples,
};
use bytes::{BufMut, BytesMut};
use proptest::{collection::vec, prelude::*, sample::Index};
use simpledynamo_protocol::message::{Message, Missed, Prepare};

const LIMIT: usize = 2 * 1024 * 1024;

/// Everything that comes out of `bytes`, and how it ended.
fn drain(bytes: &mut BytesMut, limit: usize) -> (Vec<Decoded>, Option<CodecError>) {
    let (decoder, mut all) = (Decoder::new(limit), Vec::new());
    loop {
        match decoder.decode(bytes) {
            Ok(Some(decoded)) => all.push(decoded),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn stream(messages: &[Message]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for message in messages {
        encode(message, None, &mut bytes, LIMIT).unwrap();
    }
    bytes
}

fn expected(messages: &[Message]) -> Vec<Decoded> {
    messages.iter().cloned().map(Decoded::Message).collect()
}

/// A frame by hand, with a right checksum.
fn frame(tag: u16, body: &[u8]) -> BytesMut {
    let length = u32::try_from(body.len() + HEADER_BYTES - 4).unwrap();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(&tag.to_le_bytes());
    crc.update(body);
    let mut bytes = BytesMut::new();
    bytes.put_u32_le(length);
    bytes.put_u16_le(tag);
    bytes.put_u32_le(crc.finalize());
    bytes.put_slice(body);
    bytes
}

#[test]
fn every_flipped_bit_of_every_message_is_an_error_or_incomplete() {
    for message in examples() {
        let whole = stream(std::slice::from_ref(&message));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (decoded, error) = drain(&mut flipped, LIMIT);
            assert_eq!(decoded, [], "{message} with bit {bit} flipped");
            assert!(error.is_some() || bit < 32, "only a longer length may wait for more");
        }
    }
}

#[test]
fn frame_above_the_limit_is_refused_on_both_sides() {
    let message = Message::from(Prepare { key: vec![7; 1000].into(), ballot: Default::default() });
    let mut out = BytesMut::from(&b"before"[..]);
    let size = encode(&message, None, &mut out, LIMIT).unwrap();
    assert_eq!(out.len(), 6 + size);

    let mut out = BytesMut::from(&b"before"[..]);
    for limit in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, size - 1] {
        let refused = encode(&message, None, &mut out, limit);
        assert_eq!(refused, Err(CodecError::TooLarge { bytes: 0, limit }));
        assert_eq!(out, b"before"[..], "what was there stays, nothing is added");
    }
    assert_eq!(encode(&message, None, &mut out, size), Ok(size));

    let mut bytes = stream(&[message]);
    let too_large = CodecError::TooLarge { bytes: size, limit: size - 1 };
    assert_eq!(drain(&mut bytes.clone(), size - 1), (vec![], Some(too_large)));
    assert_eq!(drain(&mut bytes, size).0.len(), 1);
}

#[test]
fn declared_length_takes_no_memory() {
    for length in [u32::MAX, 3_000_000_000, 2 * 1024 * 1024 - 3] {
        let mut bytes = BytesMut::from(&length.to_le_bytes()[..]);
        let capacity = bytes.capacity();
        let bytes_declared = length as usize + 4;
        let too_large = CodecError::TooLarge { bytes: bytes_declared, limit: LIMIT };
        assert_eq!(Decoder::new(LIMIT).decode(&mut bytes), Err(too_large), "with four bytes only");
        assert_eq!(bytes.capacity(), capacity);
    }
    let mut bytes = BytesMut::from(&(2 * 1024 * 1024u32 - 4).to_le_bytes()[..]);
    let capacity = bytes.capacity();
    assert_eq!(Decoder::new(LIMIT).decode(&mut bytes), Ok(None), "just within the limit");
    assert_eq!(bytes.capacity(), capacity);
}

#[test]
fn lengths_below_the_header_are_errors() {
    for length in 0..6u32 {
        let mut bytes = BytesMut::from(&length.to_le_bytes()[..]);
        let error = Decoder::new(LIMIT).decode(&mut bytes);
        assert_eq!(error, Err(CodecError::TooShort(length as usize)));
    }
}

#[test]
fn unknown_tags_are_skipped_and_said() {
    let known = Message::from(Missed {});
    let mut bytes = stream(std::slice::from_ref(&known));
    bytes.extend(frame(9_999, b"whatever a later version says"));
    bytes.extend(frame(0, b""));
    bytes.extend(stream(std::slice::from_ref(&known)));
    let (decoded, error) = drain(&mut bytes, LIMIT);
    let known = Decoded::Message(known);
    assert_eq!(decoded, [known.clone(), Decoded::Unknown(9_999), Decoded::Unknown(0), known]);
    assert_eq!(error, None);
}

#[test]
fn body_that_is_too_short_or_too_long_is_an_error() {
    for message in examples() {
        let bytes = stream(std::slice::from_ref(&message));
        let body = &bytes[HEADER_BYTES..];
        let mut longer = body.to_vec();
        longer.push(0);
        let (decoded, error) = drain(&mut frame(message.tag(), &longer), LIMIT);
        assert_eq!((decoded, error), (vec![], Some(CodecError::TrailingBytes(message.tag()))));
        if let Some(shorter) = body.len().checked_sub(1) {
            let (decoded, error) = drain(&mut frame(message.tag(), &body[..shorter]), LIMIT);
            assert_eq!((decoded, error), (vec![], Some(CodecError::Body(message.tag()))));
        }
    }
}

fn some_messages() -> impl Strategy<Value = Vec<Message>> {
    let prepare = vec(any::<u8>(), 0..300)
        .prop_map(|key| Prepare { key: key.into(), ballot: Default::default() }.into());
    let example = any::<Index>().prop_map(|index| index.get(&examples()).clone());
    vec(prop_oneof![prepare, example], 1..12)
}

proptest! {
    #[test]
    fn any_split_decodes_the_same(messages in some_messages(), cuts in vec(any::<Index>(), 0..20)) {
        let whole = stream(&messages);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(whole.len())).collect();
        cuts.sort_unstable();
        cuts.push(whole.len());
        let (mut received, mut decoded, mut from) = (BytesMut::new(), Vec::new(), 0);
        for to in cuts {
            received.extend_from_slice(&whole[from..to]);
            from = to;
            let (more, error) = drain(&mut received, LIMIT);
            prop_assert_eq!(error, None);
            decoded.extend(more);
        }
        prop_assert_eq!(decoded, expected(&messages));
        prop_assert!(received.is_empty());
    }

    #[test]
    fn after_a_flipped_bit_come_only_messages_that_were_before_it(
        messages in some_messages(),
        flip in any::<Index>(),
    ) {
        let mut bytes = stream(&messages);
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (decoded, _) = drain(&mut bytes, LIMIT);
        prop_assert!(decoded.len() < messages.len());
        prop_assert_eq!(&decoded[..], &expected(&messages)[..decoded.len()]);
    }

    #[test]
    fn garbage_never_panics(garbage in vec(any::<u8>(), 0..200)) {
        drain(&mut BytesMut::from(&garbage[..]), LIMIT);
    }

    #[test]
    fn garbage_with_a_right_checksum_never_panics(tag in 0u16..30, body in vec(any::<u8>(), 0..200)) {
        let (decoded, _) = drain(&mut frame(tag, &body), LIMIT);
        prop_assert!(decoded.len() <= 1);
    }
}
