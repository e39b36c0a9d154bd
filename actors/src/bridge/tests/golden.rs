//! One example of every message, and its bytes. A line that changes here is a break of the wire: a
//! changed message needs a new tag.

use super::super::codec::{Decoded, Decoder, HEADER_BYTES, Told, Trace, encode};
use crate::flow::RecordId;
use bytes::BytesMut;
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    chain::{config::Config, wire::*},
    command::{Command, Condition, Expiry, Reply},
    message::*,
    recent::{OpId, Recent},
    record::{Datum, Key, Record},
    ring::{NodeId, RangeId},
};

/// An example of every message, in order of the tags.
pub(super) fn examples() -> Vec<Message> {
    let key = Key::from("k");
    let op = OpId { router: NodeId(5554), incarnation: 2, seq: 300 };
    let ask = Ask { incarnation: 2, asker: 7, n: 300 };
    let ballot = Ballot { round: 3, node: NodeId(5554) };
    let stamp = Stamp { ballot, version: 9 };
    let range = RangeId(4);
    let mut recent = Recent::default();
    recent.note(op, 299, &Reply::Int(-1));
    let datum = Datum::Live { value: "v".into(), expires_at: Some(1_000) };
    let record = Record { stamp, datum, recent };
    let command = Command::Set {
        value: "v".into(),
        condition: Condition::IfEquals("w".into()),
        expiry: Expiry::At(1_000),
        get: true,
    };
    let outcome = Outcome::Done { reply: Reply::Bulk("v".into()), recorded: true };
    let answer = Answer { op, attempt: 1, outcome };
    let row = Row { key: key.clone(), stamp, expires_at: Some(1_000), deleted_at: None };
    let mut all = vec![
        Request {
            op,
            attempt: 1,
            done_below: 299,
            record: true,
            key: key.clone(),
            command,
            patience: 2_000,
            expires: 1_700_000_000_000,
        }
        .into(),
        answer.clone().into(),
        Prepare { key: key.clone(), ballot }.into(),
        Promise { key: key.clone(), ballot, record: Some(record.clone()) }.into(),
        Accept { key: key.clone(), record: record.clone() }.into(),
        Accepted { key: key.clone(), stamp }.into(),
        Refused { key: key.clone(), asked: Ballot::ZERO, promised: ballot }.into(),
        Query { key: key.clone(), ask, have: Some(stamp) }.into(),
        State { key: key.clone(), ask, held: Held::Same(stamp) }.into(),
        NoVote { key: key.clone(), round: Round::Query(ask), reason: Reason::Learning }.into(),
        Probe { ask }.into(),
        Alive { ask }.into(),
        Missed {}.into(),
        AskDigests { ask, range }.into(),
        Digests { ask, range, buckets: vec![0, u64::MAX], votes: true, live: 5 }.into(),
        AskList { ask, range, from: 1, to: u64::MAX, rows: 1_000 }.into(),
        Listed { ask, rows: vec![row], next: Some(2), votes: false, absent_floor: 6 }.into(),
        Fetch { ask, keys: vec![key.clone(), "l".into()] }.into(),
        Records { ask, records: vec![(key.clone(), record.clone())] }.into(),
        Collect { key: key.clone(), stamp }.into(),
        Greet { store: u64::MAX }.into(),
        Welcome { store: 1, known_store: 2, incarnation: 3, ceiling: 4 }.into(),
        Keep { key: key.clone(), op, ago: 1_000 }.into(),
    ];
    all.extend(of_chains(range, ask, (key, record), answer));
    all
}

fn of_chains(
    range: RangeId,
    ask: Ask,
    (key, record): (Key, Record),
    answer: Answer,
) -> Vec<Message> {
    let config = Config::first(&[5554, 5556].map(NodeId)).joined_by(NodeId(5558));
    let (epoch, fitness) = (config.epoch, Fitness::Copying);
    let ballot = record.stamp.ballot;
    let body = RegisterMessage::Prepare(Prepare { key: key.clone(), ballot });
    let entries = vec![(key.clone(), Some(record.stamp)), ("l".into(), None)];
    vec![
        ConfigRound { range, body }.into(),
        Forward { range, config: config.clone(), key, record: Some(record), answers: vec![answer] }
            .into(),
        Acked { range, epoch, entries }.into(),
        Confirm { range, config: config.clone(), ask }.into(),
        Confirmed { range, epoch, ask }.into(),
        Survey { range, config: config.clone(), ask }.into(),
        Present { range, epoch, ask, fitness }.into(),
        Announce { range, config: config.clone() }.into(),
        Attach { range, config, ask }.into(),
        Attached { range, epoch, ask }.into(),
    ]
}

/// Tag, name, frame.
const GOLDEN: &[(u16, &str, &str)] = &[
    (
        1,
        "Request",
        "23000000010063b5da34b22b02ac0201ab0201016b01017603017702e80701d00f80d095ffbc31",
    ),
    (2, "Answer", "1100000002005b1adc1bb22b02ac02010003017601"),
    (3, "Prepare", "0b0000000300a4fe00d0016b03b22b"),
    (4, "Promise", "220000000400459ae7d7016b03b22b0103b22b0900017601e80701b22b02ab0201ac02010201"),
    (5, "Accept", "1e0000000500496e033f016b03b22b0900017601e80701b22b02ab0201ac02010201"),
    (6, "Accepted", "0c0000000600cdd7cd46016b03b22b09"),
    (7, "Refused", "0d00000007003b347490016b000003b22b"),
    (8, "Query", "110000000800ca80c1e4016b0207ac020103b22b09"),
    (9, "State", "1100000009004f595739016b0207ac020103b22b09"),
    (10, "NoVote", "0e0000000a0077c99cee016b020207ac0202"),
    (11, "Probe", "0a0000000b00bb4495dd0207ac02"),
    (12, "Alive", "0a0000000c00037490c00207ac02"),
    (13, "Missed", "060000000d00f33c35d2"),
    (14, "AskDigests", "0b0000000e00b324b71a0207ac0204"),
    (15, "Digests", "190000000f00030c13a40207ac02040200ffffffffffffffffff010105"),
    (16, "AskList", "180000001000870e88820207ac020401ffffffffffffffffff01e807"),
    (17, "Listed", "1900000011005ac979ea0207ac0201016b03b22b0901e8070001020006"),
    (18, "Fetch", "0f00000012000888d0470207ac0202016b016c"),
    (
        19,
        "Records",
        "230000001300297c04200207ac0201016b03b22b0900017601e80701b22b02ab0201ac02010201",
    ),
    (20, "Collect", "0c00000014009be15378016b03b22b09"),
    (21, "Greet", "10000000150016eb4c28ffffffffffffffffff01"),
    (22, "Welcome", "0a0000001600e83d5fb601020304"),
    (23, "Keep", "0f000000170014dfd732016bb22b02ac02e807"),
    (40, "ConfigRound", "0d0000002800c5f0702c0400016b03b22b"),
    (
        41,
        "Forward",
        "3700000029005cdda48b040203b22b01b42b01b62b02016b0103b22b0900017601e80701b22b02ab0201ac0201020101b22b02ac02010003017601",
    ),
    (42, "Acked", "130000002a00b5b91f69040202016b0103b22b09016c00"),
    (43, "Confirm", "160000002b009cc8ede0040203b22b01b42b01b62b020207ac02"),
    (44, "Confirmed", "0c0000002c0046a1ad7204020207ac02"),
    (45, "Survey", "160000002d00197491ee040203b22b01b42b01b62b020207ac02"),
    (46, "Present", "0d0000002e001c67a8c904020207ac0201"),
    (47, "Announce", "120000002f001ea663d5040203b22b01b42b01b62b02"),
    (48, "Attach", "160000003000eae79933040203b22b01b42b01b62b020207ac02"),
    (49, "Attached", "0c0000003100bc85139504020207ac02"),
];

/// Traces before the body of a [`Missed`], which is empty.
fn traces() -> [(Trace, &'static str); 3] {
    let other = RecordId { node: NodeId(5556), incarnation: 2, seq: 300 };
    [
        (Trace { seq: 1, keep: false, cause: Told::Nothing }, "090000000d8048baa15e010000"),
        (Trace { seq: 300, keep: true, cause: Told::Own(299) }, "0c0000000d8064ff5163ac020101ab02"),
        (
            Trace { seq: u64::MAX, keep: false, cause: Told::Other(other) },
            "170000000d80b596d1efffffffffffffffffff010002b42b02ac02",
        ),
    ]
}

#[test]
fn traces_have_golden_bytes() {
    let mut written = Vec::new();
    for (trace, _) in traces() {
        let mut frame = BytesMut::new();
        encode(&Missed {}.into(), Some(&trace), &mut frame, 1024).unwrap();
        written.push(hex(&frame));
        let decoded = Decoder::new(1024).decode(&mut frame);
        assert_eq!(decoded, Ok(Some(Decoded::Traced(Missed {}.into(), trace))));
    }
    assert_eq!(written, traces().map(|(_, golden)| golden));
}

proptest::proptest! {
    /// They are written and read by hand.
    #[test]
    fn every_trace_is_what_postcard_makes_of_it(
        (seq, keep, which, node, incarnation, cause) in proptest::prelude::any::<(u64, bool, u8, u32, u64, u64)>(),
        shift in 0..64_u32,
    ) {
        let (seq, incarnation, cause) = (seq >> shift, incarnation >> shift, cause >> shift);
        let cause = match which % 3 {
            0 => Told::Nothing,
            1 => Told::Own(cause),
            _ => Told::Other(RecordId { node: NodeId(node), incarnation, seq: cause }),
        };
        let trace = Trace { seq, keep, cause };
        let mut frame = BytesMut::new();
        encode(&Missed {}.into(), Some(&trace), &mut frame, 1024).unwrap();
        proptest::prop_assert_eq!(&frame[HEADER_BYTES..], postcard::to_allocvec(&trace).unwrap());
        let decoded = Decoder::new(1024).decode(&mut frame);
        proptest::prop_assert_eq!(decoded, Ok(Some(Decoded::Traced(Missed {}.into(), trace))));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_has_golden_bytes() {
    let examples = examples();
    let tags: Vec<_> = examples.iter().map(|message| (message.tag(), message.name())).collect();
    assert_eq!(tags, Message::TAGS, "an example of every message, in order");
    let written: Vec<_> = examples
        .iter()
        .map(|message| {
            let mut frame = BytesMut::new();
            encode(message, None, &mut frame, 1024).unwrap();
            (message.tag(), message.name(), hex(&frame))
        })
        .collect();
    let golden: Vec<_> =
        GOLDEN.iter().map(|(tag, name, frame)| (*tag, *name, (*frame).to_owned())).collect();
    let table = || written.iter().map(|row| format!("    {row:?},\n")).collect::<String>();
    assert!(written == golden, "the wire has changed; it is now\n{}", table());
}

#[test]
fn golden_bytes_are_read_as_the_examples() {
    for (message, (_, name, frame)) in examples().into_iter().zip(GOLDEN) {
        let bytes = (0..frame.len()).step_by(2);
        let mut received: BytesMut =
            bytes.map(|at| u8::from_str_radix(&frame[at..at + 2], 16).unwrap()).collect();
        let decoded = Decoder::new(1024).decode(&mut received);
        assert_eq!(decoded, Ok(Some(Decoded::Message(message))), "{name}");
        assert!(received.is_empty());
    }
}
