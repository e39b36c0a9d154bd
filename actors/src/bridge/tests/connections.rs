//! Two bridges and what may happen between them.

use super::{
    super::{
        BridgeHandle, Sent,
        handshake::{self, HandshakeError},
        hello::{Credentials, Refusal},
        net::Net,
    },
    support::*,
};
use crate::flow::Cause;
use crate::settings::Settings;
use bytes::BytesMut;
use simpledynamo_protocol::{
    message::{Message, Prepare},
    ring::NodeId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn credentials(settings: &Settings, incarnation: u64) -> Credentials {
    let secret = settings.secret.clone().unwrap_or_default().into_bytes();
    let me = life(u16::try_from(settings.me.0).unwrap(), incarnation);
    Credentials { me, cluster_id: settings.cluster_id, secret }
}

fn frame(message: &Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    super::super::codec::encode(message, None, &mut bytes, 4096).unwrap();
    bytes
}

async fn connected(bridge: &BridgeHandle, to: NodeId) {
    until(|| bridge.identity(to).is_some()).await;
}

async fn messages_go_both_ways_in_order<N: Net>(net: N) {
    const COUNT: u64 = 10_000;
    let (two, at_two) = start(&net, &settings(2)).await;
    let (one, at_one) = start(&net, &settings(1)).await;
    connected(&one, TWO).await;
    connected(&two, ONE).await;
    for n in 0..COUNT {
        assert_eq!(one.send(TWO, &probe(n), Cause::NONE), Sent::Queued);
        assert_eq!(two.send(ONE, &probe(n), Cause::NONE), Sent::Queued);
    }
    until(|| at_two.from(1).len() as u64 == COUNT && at_one.from(2).len() as u64 == COUNT).await;
    assert!(at_two.from(1).into_iter().eq(0..COUNT));
    assert!(at_one.from(2).into_iter().eq(0..COUNT));
    let counters = one.counters();
    assert_eq!((counters.frames_out, counters.frames_in), (COUNT, COUNT));
    assert_eq!((counters.dropped_full, counters.lost, counters.damaged), (0, 0, 0));
    assert!(counters.writes < COUNT / 10, "frames share writes: {} writes", counters.writes);
    assert_eq!(one.identity(TWO), Some(life(2, 1)));
    assert_eq!(at_one.met(), [life(2, 1); 2], "once for each direction");
}

#[test]
fn messages_go_both_ways_in_order_in_memory() {
    run(messages_go_both_ways_in_order(Wires::default()));
}

#[test]
fn messages_go_both_ways_in_order_over_tcp() {
    run(messages_go_both_ways_in_order(Loopback::default()));
}

#[test]
fn receiver_may_send_while_a_message_is_handed_in() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        at_two.answer_through(&two);
        let (one, at_one) = start(&net, &settings(1)).await;
        assert_eq!(
            one.send(TWO, &probe(5), Cause::NONE),
            Sent::Queued,
            "it waits for the first attempt"
        );
        until(|| at_one.from(2) == [5]).await;
    });
}

#[test]
fn flipped_bit_costs_the_connection_and_it_comes_back() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        let (one, _) = start(&net, &settings(1)).await;
        one.send(TWO, &probe(1), Cause::NONE);
        until(|| at_two.from(1) == [1]).await;
        net.flip();
        one.send(TWO, &probe(2), Cause::NONE);
        until(|| two.counters().damaged == 1).await;
        until(|| one.counters().connects == 2).await;
        one.send(TWO, &probe(3), Cause::NONE);
        until(|| at_two.from(1).contains(&3)).await;
        assert_eq!(at_two.from(1), [1, 3]);
        assert_eq!(one.counters().disconnects, 1);
    });
}

#[test]
fn cut_connections_come_back_both_ways() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        let (one, at_one) = start(&net, &settings(1)).await;
        for round in 1..=3 {
            until(|| one.counters().connects == round && two.counters().connects == round).await;
            one.send(TWO, &probe(round), Cause::NONE);
            two.send(ONE, &probe(round), Cause::NONE);
            until(|| at_two.from(1).contains(&round) && at_one.from(2).contains(&round)).await;
            net.cut();
        }
        assert_eq!(at_one.from(2), [1, 2, 3]);
    });
}

/// Starts two nodes that do not fit, and waits until each has seen that.
async fn refuse_each_other(one: Settings, two: Settings) {
    let net = Wires::default();
    let (two, at_two) = start(&net, &two).await;
    let (one, at_one) = start(&net, &one).await;
    for bridge in [&one, &two] {
        until(|| bridge.counters().dial_failures > 1 && bridge.counters().refused > 1).await;
        assert_eq!((bridge.counters().connects, bridge.counters().accepts), (0, 0));
    }
    assert_eq!((at_one.met().len(), at_two.met().len()), (0, 0));
}

#[test]
fn wrong_secret_is_refused_on_both_sides() {
    run(async {
        refuse_each_other(settings(1), Settings { secret: None, ..settings(2) }).await;
        let other = Some("another secret".into());
        refuse_each_other(settings(1), Settings { secret: other, ..settings(2) }).await;
    });
}

#[test]
fn wrong_cluster_is_refused_on_both_sides() {
    run(refuse_each_other(settings(1), Settings { cluster_id: 8, ..settings(2) }));
}

#[test]
fn wrong_node_is_refused() {
    run(async {
        let net = Wires::default();
        let misplaced = Settings { listen: address(2), ..settings(3) };
        let (three, at_three) = start(&net, &misplaced).await;
        let (one, _) = start(&net, &settings(1)).await;
        until(|| one.counters().dial_failures > 1 && three.counters().refused > 1).await;
        assert_eq!(one.identity(TWO), None);
        assert_eq!(three.counters().accepts, 0);
        assert_eq!(at_three.from(1), []);
    });
}

#[test]
fn no_secret_on_either_side_is_accepted() {
    run(async {
        let net = Wires::default();
        let open = |me| Settings { secret: None, ..settings(me) };
        let (_two, _) = start(&net, &open(2)).await;
        let (one, _) = start(&net, &open(1)).await;
        connected(&one, TWO).await;
    });
}

#[test]
fn life_before_a_known_one_is_refused_and_not_dialed() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        at_two.knows_later(8);
        let me = credentials(&settings(1), 7);
        let mut stream = net.connect(address(2)).await.unwrap();
        let refused = handshake::dial(&mut stream, &me, TWO, 1).await;
        let stale = Refusal::Stale { incarnation: 8, connection: 0 };
        assert!(matches!(refused, Err(HandshakeError::Refused(r)) if r == stale));

        let (one, _) = start_life(&net, &settings(1), life(1, 7)).await;
        until(|| two.counters().dial_failures > 2).await;
        assert_eq!((one.identity(TWO), two.identity(ONE)), (None, None));
        drop(one);
        let (_one, _) = start_life(&net, &settings(1), life(1, 8)).await;
        connected(&two, ONE).await;
    });
}

#[test]
fn newer_connection_supersedes_and_the_older_ones_frames_are_dropped() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        let me = credentials(&settings(1), 5);
        let mut old = net.connect(address(2)).await.unwrap();
        handshake::dial(&mut old, &me, TWO, 1).await.unwrap();
        old.write_all(&frame(&probe(1))).await.unwrap();
        until(|| at_two.from(1) == [1]).await;

        let mut new = net.connect(address(2)).await.unwrap();
        handshake::dial(&mut new, &me, TWO, 2).await.unwrap();
        old.write_all(&frame(&probe(2))).await.ok();
        new.write_all(&frame(&probe(3))).await.unwrap();
        assert_eq!(old.read(&mut [0]).await.unwrap_or(0), 0, "the older one is closed");
        until(|| at_two.from(1).contains(&3)).await;
        assert_eq!(at_two.from(1), [1, 3]);
        assert_eq!(two.counters().superseded, 1);

        for (incarnation, number) in [(5, 1), (5, 2), (4, 9)] {
            let former = credentials(&settings(1), incarnation);
            let mut stream = net.connect(address(2)).await.unwrap();
            let refused = handshake::dial(&mut stream, &former, TWO, number).await;
            let stale = Refusal::Stale { incarnation: 5, connection: 2 };
            assert!(matches!(refused, Err(HandshakeError::Refused(r)) if r == stale));
        }
        new.write_all(&frame(&probe(4))).await.unwrap();
        until(|| at_two.from(1) == [1, 3, 4]).await;
    });
}

#[test]
fn peer_that_does_not_read_costs_a_bounded_buffer_and_is_given_up() {
    run(async {
        const BOUND: usize = 64 * 1024;
        let net = Wires::default();
        let (mut listener, _) = net.bind(address(2)).await.unwrap();
        let mut tight = settings(1);
        tight.limits.peer_bytes = BOUND;
        let (one, _) = start(&net, &tight).await;
        let (mut deaf, _) = net.accept(&mut listener).await.unwrap();
        let two = credentials(&settings(2), 1);
        handshake::hear(&mut deaf, &two, |_| true).await.unwrap();
        handshake::welcome(&mut deaf).await.unwrap();
        connected(&one, TWO).await;

        let kilobyte: Message =
            Prepare { key: vec![0; 1024].into(), ballot: Default::default() }.into();
        while one.send(TWO, &kilobyte, Cause::NONE) == Sent::Queued {
            assert!(one.waiting(TWO) <= BOUND);
            tokio::task::yield_now().await;
        }
        for dropped in 2..1000 {
            assert_eq!(one.send(TWO, &kilobyte, Cause::NONE), Sent::Full);
            assert_eq!(one.counters().dropped_full, dropped);
        }
        assert!(one.waiting(TWO) > BOUND - 2048, "the bound is used");
        until(|| one.counters().disconnects == 1).await;
        assert!(one.counters().lost > 0, "what was being written is lost, and counted");
        assert!(one.waiting(TWO) < BOUND);
    });
}

#[test]
fn message_larger_than_a_frame_or_to_nobody_is_dropped() {
    run(async {
        let net = Wires::default();
        let mut tight = settings(1);
        tight.limits.frame_bytes = 100;
        let (one, _) = start(&net, &tight).await;
        let large = Prepare { key: vec![0; 100].into(), ballot: Default::default() }.into();
        assert_eq!(one.send(TWO, &large, Cause::NONE), Sent::TooLarge);
        assert_eq!(one.send(NodeId(9), &probe(1), Cause::NONE), Sent::NoSuchPeer);
        assert_eq!(one.send(ONE, &probe(1), Cause::NONE), Sent::NoSuchPeer, "nobody dials itself");
        assert_eq!((one.waiting(TWO), one.counters().dropped()), (0, 1));
    });
}

async fn restarted_peer_is_found_again<N: Net>(net: N) {
    let (one, at_one) = start(&net, &settings(1)).await;
    until(|| one.counters().dial_failures > 0).await;
    let (two, at_two) = start_life(&net, &settings(2), life(2, 1)).await;
    connected(&one, TWO).await;
    one.send(TWO, &probe(1), Cause::NONE);
    until(|| at_two.from(1) == [1]).await;

    two.stop();
    until(|| one.send(TWO, &probe(2), Cause::NONE) == Sent::Unconnected).await;
    assert_eq!(one.identity(TWO), None);
    assert!(one.counters().dropped_unconnected > 0);

    let (two, at_two) = start_life(&net, &settings(2), life(2, 2)).await;
    connected(&one, TWO).await;
    assert_eq!(one.identity(TWO), Some(life(2, 2)));
    one.send(TWO, &probe(3), Cause::NONE);
    two.send(ONE, &probe(4), Cause::NONE);
    until(|| at_two.from(1).contains(&3) && at_one.from(2).contains(&4)).await;
    assert_eq!(at_one.met().last(), Some(&life(2, 2)));
}

#[test]
fn restarted_peer_is_found_again_in_memory() {
    run(restarted_peer_is_found_again(Wires::default()));
}

#[test]
fn restarted_peer_is_found_again_over_tcp() {
    run(restarted_peer_is_found_again(Loopback::default()));
}

#[test]
fn bridge_stops_when_its_last_handle_is_dropped() {
    run(async {
        let net = Wires::default();
        let (two, _) = start(&net, &settings(2)).await;
        let mut alone = settings(1);
        alone.peers.retain(|peer| peer.id == TWO);
        let (one, _) = start(&net, &alone).await;
        connected(&one, TWO).await;
        drop(two);
        until(|| one.identity(TWO).is_none()).await;
        until(|| one.counters().dial_failures > 2).await;
        assert_eq!(one.counters().connects, 1);
    });
}

#[test]
fn bridge_runs_inside_an_actix_system() {
    actix_rt::System::new().block_on(async {
        let net = Loopback::default();
        let (_two, at_two) = start(&net, &settings(2)).await;
        let (one, _) = start(&net, &settings(1)).await;
        assert_eq!(one.send(TWO, &probe(1), Cause::NONE), Sent::Queued);
        until(|| at_two.from(1) == [1]).await;
    });
}
