//! Whoever is no peer: bounded memory, a closed connection, and the peers are served as before.

use super::{
    super::{
        Sent,
        handshake::{self, HandshakeError},
        hello::{Credentials, MAGIC, Refusal},
        listen::UNPROVEN_MAX,
        net::Net,
    },
    support::*,
};
use crate::flow::Cause;
use simpledynamo_protocol::ring::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Waits until the other side has closed; what it says before is returned.
async fn closed(stream: &mut DuplexStream) -> Vec<u8> {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.ok();
    said
}

#[test]
fn other_protocols_are_closed_and_told_nothing() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        let ways: [&[u8]; 4] = [
            b"*1\r\n$4\r\nPING\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"PING\r\n",
            b"\x16\x03\x01\x02\0",
        ];
        for (count, way) in (1..).zip(ways) {
            let mut stream = net.connect(address(2)).await.unwrap();
            stream.write_all(way).await.unwrap();
            assert_eq!(closed(&mut stream).await, b"");
            until(|| two.counters().strangers == count).await;
        }
        assert_eq!(at_two.met(), []);
    });
}

#[test]
fn oversized_and_unreadable_hellos_are_closed() {
    run(async {
        let net = Wires::default();
        let (two, _) = start(&net, &settings(2)).await;
        for (count, rest) in (1..).zip([&b"\xff\xff"[..], b"\x01\x00\x77"]) {
            let mut stream = net.connect(address(2)).await.unwrap();
            stream.write_all(&[&MAGIC, rest].concat()).await.unwrap();
            assert_eq!(closed(&mut stream).await, b"");
            until(|| two.counters().strangers == count).await;
        }
        let mut stream = net.connect(address(2)).await.unwrap();
        stream.write_all(b"SDYN\x01\x00\x03").await.unwrap();
        assert_eq!(closed(&mut stream).await, b"SDYN\x02\x00\x04\x06", "Ready is out of turn");
        until(|| two.counters().refused == 1).await;
    });
}

#[test]
fn silent_stranger_is_closed_after_the_time_limit() {
    run(async {
        let net = Wires::default();
        let (two, _) = start(&net, &settings(2)).await;
        let mut silent = net.connect(address(2)).await.unwrap();
        let mut slow = net.connect(address(2)).await.unwrap();
        slow.write_all(b"SDYN").await.unwrap();
        closed(&mut silent).await;
        closed(&mut slow).await;
        until(|| two.counters().strangers == 2).await;
    });
}

#[test]
fn crowd_of_strangers_does_not_keep_a_peer_out() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        let mut crowd = Vec::new();
        for _ in 0..UNPROVEN_MAX * 2 {
            crowd.push(net.connect(address(2)).await.unwrap());
        }
        let (one, _) = start(&net, &settings(1)).await;
        assert_eq!(one.send(NodeId(2), &probe(1), Cause::NONE), Sent::Queued);
        until(|| at_two.from(1) == [1]).await;
        closed(&mut crowd[0]).await;
        assert!(two.counters().crowded_out > 0, "the eldest made room");
    });
}

#[test]
fn peer_that_lost_its_mind_is_closed_and_others_are_served() {
    run(async {
        let net = Wires::default();
        let (two, at_two) = start(&net, &settings(2)).await;
        let (one, _) = start(&net, &settings(1)).await;
        let secret = settings(3).secret.unwrap().into_bytes();
        let three = Credentials { me: life(3, 1), cluster_id: 7, secret };
        let garbage: [&[u8]; 3] = [&[0xff; 64], &[0; 64], b"*1\r\n$4\r\nPING\r\n"];
        for (number, garbage) in (1..).zip(garbage) {
            let mut stream = net.connect(address(2)).await.unwrap();
            handshake::dial(&mut stream, &three, NodeId(2), number).await.unwrap();
            stream.write_all(garbage).await.unwrap();
            closed(&mut stream).await;
            until(|| two.counters().damaged == number).await;
        }
        one.send(NodeId(2), &probe(1), Cause::NONE);
        until(|| at_two.from(1) == [1]).await;
        assert_eq!(at_two.from(3), []);
    });
}

#[test]
fn node_that_is_not_in_the_configuration_is_refused() {
    run(async {
        let net = Wires::default();
        let (two, _) = start(&net, &settings(2)).await;
        let secret = settings(2).secret.unwrap().into_bytes();
        let nine = Credentials { me: life(9, 1), cluster_id: 7, secret };
        let mut stream = net.connect(address(2)).await.unwrap();
        let refused = handshake::dial(&mut stream, &nine, NodeId(2), 1).await;
        assert!(matches!(refused, Err(HandshakeError::Refused(Refusal::UnknownNode))));
        until(|| two.counters().refused == 1).await;
    });
}
