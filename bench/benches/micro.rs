//! What the small steps of an operation cost, each by itself.
//!
//! `cargo bench --manifest-path bench/Cargo.toml`
//!
//! A write of 100 B as a replica sees it: its command is parsed, its message encoded and decoded, the
//! acceptor decides, and an actor hands it to the next. Nothing here is judged by time; the figures are for
//! people who change these steps.

use actix::prelude::{Actor, Context, Handler, Message as ActorMessage};
use bytes::BytesMut;
use divan::{Bencher, black_box, counter::ItemsCount};
use simpledynamo::fuzz::requests;
use simpledynamo_actors::bridge::codec::{Decoder, encode};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    message::{Accept, Ask, Message, Prepare, Query},
    recent::Recent,
    record::{Datum, Key, Record},
    register::acceptor::{Acceptor, Durable, Standing},
    ring::NodeId,
};

const ME: NodeId = NodeId(5554);
const PEER: NodeId = NodeId(5556);
/// Largest frame of the shipped configuration.
const FRAME_BYTES: usize = 2 << 20;
/// Messages an actor is sent before it is waited for.
const HOPS: usize = 1_000;

fn main() {
    divan::main();
}

fn key() -> Key {
    Key::from("key:000000000042")
}

fn stamp(round: u64) -> Stamp {
    Stamp { ballot: Ballot { round, node: PEER }, version: round }
}

/// A key's state with a value of 100 B.
fn record(round: u64) -> Record {
    let datum = Datum::Live { value: vec![b'v'; 100].into(), expires_at: None };
    Record { stamp: stamp(round), datum, recent: Recent::default() }
}

fn accept() -> Message {
    Accept { key: key(), record: record(1) }.into()
}

#[divan::bench]
fn codec_encode_accept(bencher: Bencher) {
    let (message, mut out) = (accept(), BytesMut::with_capacity(4_096));
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        out.clear();
        encode(black_box(&message), None, &mut out, FRAME_BYTES)
    });
}

#[divan::bench]
fn codec_decode_accept(bencher: Bencher) {
    let (decoder, mut frame) = (Decoder::new(FRAME_BYTES), BytesMut::new());
    encode(&accept(), None, &mut frame, FRAME_BYTES).expect("it fits");
    let input = || frame.clone();
    bencher.with_inputs(input).bench_local_values(|mut frame| decoder.decode(&mut frame));
}

/// Phase two at a replica, of a new version of a key it holds.
#[divan::bench]
fn acceptor_accept(bencher: Bencher) {
    let mut acceptor = Acceptor::new(ME, Durable::default(), Standing::Voter);
    let (stored, mut effects) = (record(1), Vec::new());
    let ask = Accept { key: key(), record: record(2) };
    bencher.with_inputs(|| ask.clone()).bench_local_values(|ask| {
        effects.clear();
        acceptor.accept(PEER, ask, Some(&stored), &mut effects);
        black_box(effects.len())
    });
}

/// Phase one at a replica, each time of a larger ballot.
#[divan::bench]
fn acceptor_prepare(bencher: Bencher) {
    let mut acceptor = Acceptor::new(ME, Durable::default(), Standing::Voter);
    let (stored, mut effects, mut round) = (record(1), Vec::new(), 1);
    let key = key();
    bencher.bench_local(|| {
        effects.clear();
        round += 1;
        let ballot = Ballot { round, node: PEER };
        acceptor.prepare(PEER, &Prepare { key: key.clone(), ballot }, Some(&stored), &mut effects);
        black_box(effects.len())
    });
}

/// A read at a replica whose state is what the asker believes.
#[divan::bench]
fn acceptor_query(bencher: Bencher) {
    let acceptor = Acceptor::new(ME, Durable::default(), Standing::Voter);
    let (stored, mut effects) = (record(1), Vec::new());
    let ask = Ask { incarnation: 1, asker: 1, n: 1 };
    let query = Query { key: key(), ask, have: Some(stored.stamp) };
    bencher.bench_local(|| {
        effects.clear();
        acceptor.query(PEER, black_box(&query), Some(&stored), &mut effects);
        black_box(effects.len())
    });
}

/// What a client sends, in batches of 16.
fn commands(one: &[u8]) -> BytesMut {
    let bytes = one.repeat(16);
    bytes.as_slice().into()
}

#[divan::bench]
fn parse_16_gets(bencher: Bencher) {
    let input = commands(b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n");
    bencher
        .counter(ItemsCount::new(16usize))
        .with_inputs(|| input.clone())
        .bench_local_values(|mut input| assert_eq!(requests(&mut input), 16));
}

#[divan::bench]
fn parse_16_sets_of_100_bytes(bencher: Bencher) {
    let mut one = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$100\r\n".to_vec();
    one.extend([b'v'; 100]);
    one.extend(b"\r\n");
    let input = commands(&one);
    bencher
        .counter(ItemsCount::new(16usize))
        .with_inputs(|| input.clone())
        .bench_local_values(|mut input| assert_eq!(requests(&mut input), 16));
}

/// An actor that counts what it is sent, and tells once all is there.
struct Counter {
    left: usize,
    done: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

/// A message as large as one that carries a key and a record.
#[derive(ActorMessage)]
#[rtype(result = "()")]
struct Hop(#[expect(dead_code, reason = "only its size matters")] Accept);

impl Handler<Hop> for Counter {
    type Result = ();

    fn handle(&mut self, _: Hop, _: &mut Context<Self>) {
        self.left -= 1;
        if self.left == 0
            && let Some(done) = self.done.take()
        {
            // Whoever waits is there until it is told.
            let _ = done.send(());
        }
    }
}

/// From `do_send` to the handler, a thousand messages one behind the other.
#[divan::bench]
fn mailbox_1000_hops(bencher: Bencher) {
    let system = actix_rt::System::new();
    let hop = Accept { key: key(), record: record(1) };
    bencher.counter(ItemsCount::new(HOPS)).bench_local(|| {
        system.block_on(async {
            let (done, ended) = tokio::sync::oneshot::channel();
            let counter = Counter { left: HOPS, done: Some(done) }.start();
            for _ in 0..HOPS {
                counter.do_send(Hop(hop.clone()));
            }
            ended.await
        })
    });
}
