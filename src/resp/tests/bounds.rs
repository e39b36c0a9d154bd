//! Order, bounds, and the end of connections.

use super::{Front, Wire, request, settings};
use crate::resp::{ClientSettings, OUTPUT_PAUSE, WINDOW};
use simpledynamo_actors::settings::Limits;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Lets everything that can run do so, until `done` holds.
async fn until(mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("it never came");
}

#[actix::test]
async fn replies_keep_their_order_whatever_ends_first() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    wire.expect("MSET a 1 b 2 c 3", "+OK\r\n").await;
    front.shelf.borrow_mut().hold = true;
    wire.send("GET a\r\nPING\r\nGET b\r\nECHO x\r\nGET c\r\n").await;
    until(|| front.shelf.borrow().waiting.len() == 3).await;
    front.shelf.borrow_mut().waiting.reverse();
    for _ in 0..3 {
        front.shelf.borrow_mut().release(1);
    }
    let replies = ["$1\r\n1\r\n", "+PONG\r\n", "$1\r\n2\r\n", "$1\r\nx\r\n", "$1\r\n3\r\n"];
    for reply in replies {
        assert_eq!(wire.reply().await, reply);
    }
}

#[actix::test]
async fn one_keys_commands_take_effect_in_order() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    front.shelf.borrow_mut().hold = true;
    wire.send("GET b\r\nGET a\r\nGET a\r\nSET a 1\r\nGET a\r\nGET c\r\n").await;
    let waiting = |count: usize| {
        let shelf = &front.shelf;
        until(move || shelf.borrow().waiting.len() == count)
    };
    // Both reads of a are under way, the write waits for them, and everything behind it, too.
    waiting(3).await;
    // The write starts although the front of the queue, GET b, has not ended.
    front.shelf.borrow_mut().waiting.rotate_left(1);
    front.shelf.borrow_mut().release(2);
    waiting(2).await;
    let kinds = |at: usize| front.shelf.borrow().waiting[at].command.name();
    assert_eq!((kinds(0), kinds(1)), ("GET", "SET"));
    front.shelf.borrow_mut().waiting.reverse();
    front.shelf.borrow_mut().release(1);
    waiting(3).await;
    front.shelf.borrow_mut().release(3);
    for reply in ["$-1\r\n", "$-1\r\n", "$-1\r\n", "+OK\r\n", "$1\r\n1\r\n", "$-1\r\n"] {
        assert_eq!(wire.reply().await, reply);
    }
}

#[actix::test]
async fn work_on_many_keys_waits_for_what_is_before_it() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    front.shelf.borrow_mut().hold = true;
    wire.send("SET a 1\r\nMGET a b\r\nSET a 2\r\nDBSIZE\r\n").await;
    until(|| front.shelf.borrow().waiting.len() == 1).await;
    front.shelf.borrow_mut().release(1);
    until(|| front.shelf.borrow().waiting.len() == 2).await;
    front.shelf.borrow_mut().release(2);
    until(|| front.shelf.borrow().waiting.len() == 1).await;
    front.shelf.borrow_mut().release(1);
    for reply in ["+OK\r\n", "*2\r\n$1\r\n1\r\n$-1\r\n", "+OK\r\n", ":1\r\n"] {
        assert_eq!(wire.reply().await, reply);
    }
}

#[actix::test]
async fn a_deep_pipeline_has_a_bounded_number_in_flight() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    front.shelf.borrow_mut().hold = true;
    let lines: String = (0..1_000).map(|i| format!("SET k{i} {i}\r\n")).collect();
    wire.send(lines).await;
    let mut done = 0;
    while done < 1_000 {
        let expected = WINDOW.min(1_000 - done);
        until(|| front.shelf.borrow().waiting.len() == expected).await;
        front.shelf.borrow_mut().release(expected);
        for _ in 0..expected {
            assert_eq!(wire.reply().await, "+OK\r\n");
        }
        done += expected;
    }
    assert_eq!(front.shelf.borrow().most_waiting, WINDOW);
}

/// A client that asks and never reads is not read from any more; once it reads, all is there.
#[actix::test]
async fn unread_replies_stop_the_reading() {
    const COMMANDS: usize = 20_000;
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    let value = vec![b'v'; 10_000];
    wire.send(request(&[b"SET", b"k", &value])).await;
    assert_eq!(wire.reply().await, "+OK\r\n");
    let (read, mut write) = wire.stream.into_split();
    let sender = tokio::task::spawn_local(async move {
        for _ in 0..COMMANDS {
            write.write_all(b"GET k\r\n").await.unwrap();
        }
        write
    });
    // The kernel's buffers take a part, the rest stands still: the count of operations stops growing.
    let mut before = 0;
    let mut still = 0;
    let shelf = std::rc::Rc::clone(&front.shelf);
    until(move || {
        let now = shelf.borrow().operations();
        still = if now == before && now > 1 { still + 1 } else { 0 };
        before = now;
        still > 100
    })
    .await;
    let executed = front.shelf.borrow().operations();
    assert!(executed < COMMANDS as u64 / 2, "{executed} of {COMMANDS} were executed unread");
    const { assert!(OUTPUT_PAUSE < 1024 * 1024) };
    let mut bytes = 0;
    let whole = COMMANDS * (value.len() + "$10000\r\n\r\n".len());
    while bytes < whole {
        read.readable().await.unwrap();
        let mut chunk = [0; 65_536];
        match read.try_read(&mut chunk) {
            Ok(0) => panic!("closed after {bytes}"),
            Ok(count) => bytes += count,
            Err(_) => {}
        }
    }
    assert_eq!(bytes, whole);
    drop(sender.await.unwrap());
}

#[actix::test]
async fn limits_on_keys_values_and_replies_are_errors_not_ends() {
    let limits = Limits {
        value_bytes: 1_000,
        key_bytes: 100,
        client_output_bytes: 3_000,
        ..Limits::default()
    };
    let front = Front::start(ClientSettings { limits, ..settings() }).await;
    let mut wire = front.connect().await;
    let (key, long_key, value, long) = ([b'k'; 100], [b'k'; 101], [b'v'; 1_000], [b'v'; 1_001]);
    for (words, reply) in [
        (&[&b"SET"[..], &key, &value][..], "+OK\r\n"),
        (&[b"SET", &long_key, b"v"], "-ERR key of 101 bytes: a key has 1 to 100 bytes\r\n"),
        (&[b"SET", b"", b"v"], "-ERR key is empty: a key has 1 to 100 bytes\r\n"),
        (
            &[b"SET", b"k", &long],
            "-ERR argument of 1001 bytes: the largest value is 1000 bytes\r\n",
        ),
        (&[b"MSET", b"a", &value, b"b", &value, b"c", &value], "+OK\r\n"),
        (
            &[b"MGET", b"a", b"b", b"c", &key],
            "-ERR the reply would be larger than 3000 bytes: ask for fewer keys at a time\r\n",
        ),
        (&[b"PING"], "+PONG\r\n"),
    ] {
        wire.send(request(words)).await;
        assert_eq!(wire.reply().await, reply);
    }
    let reply = wire.ask("DYNAMO ALL").await;
    assert_eq!(reply, "-ERR the reply would be larger than 3000 bytes: use SCAN and GET\r\n");
    let mut many: Vec<&[u8]> = vec![b"MSET"];
    for _ in 0..20 {
        many.extend([&b"a"[..], &value]);
    }
    wire.send(request(&many)).await;
    assert!(wire.reply().await.starts_with("-ERR command of more than 17600 bytes: "));
    wire.expect("PING", "+PONG\r\n").await;
}

#[actix::test]
async fn large_pipelined_values_are_bounded_in_bytes() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    front.shelf.borrow_mut().hold = true;
    let value = vec![b'v'; 1024 * 1024];
    let sender = tokio::task::spawn_local(async move {
        for i in 0..12 {
            wire.send(request(&[b"SET", format!("k{i}").as_bytes(), &value])).await;
        }
        wire
    });
    until(|| front.shelf.borrow().waiting.len() == 8).await;
    front.shelf.borrow_mut().release(8);
    let mut wire = sender.await.unwrap();
    until(|| front.shelf.borrow().waiting.len() == 4).await;
    front.shelf.borrow_mut().release(4);
    for _ in 0..12 {
        assert_eq!(wire.reply().await, "+OK\r\n");
    }
    assert_eq!(front.shelf.borrow().most_waiting, 8);
}

#[actix::test]
async fn all_unfinished_commands_together_are_bounded() {
    let limits = Limits { value_bytes: 1_000, key_bytes: 100, ..Limits::default() };
    let front = Front::start(ClientSettings { limits, ..settings() }).await;
    // Most of an MSET: 14 values, just below what one command may hold.
    let mut half = b"*41\r\n$4\r\nMSET\r\n".to_vec();
    for _ in 0..14 {
        half.extend_from_slice(b"$1\r\nk\r\n$1000\r\n");
        half.extend_from_slice(&[b'v'; 1_000]);
        half.extend_from_slice(b"\r\n");
    }
    let mut open = Vec::new();
    let turned_away = loop {
        let mut wire = front.connect().await;
        wire.send(&half).await;
        let mut other = front.connect().await;
        other.expect("SET small 1", "+OK\r\n").await;
        let mut byte = [0];
        match wire.stream.try_read(&mut byte) {
            Ok(1) => break wire.rest().await,
            _ => open.push(wire),
        }
        assert!(open.len() < 100, "nobody is turned away");
    };
    assert_eq!(
        turned_away,
        "BUSY not applied: too many large commands are under way, try again\r\n"
    );
    drop(open);
    // There is room again once the front end has seen their ends.
    let whole = [half, b"$1\r\nk\r\n$1\r\nv\r\n".repeat(6)].concat();
    loop {
        let mut wire = front.connect().await;
        wire.send(&whole).await;
        if wire.rest_or_reply().await == "+OK\r\n" {
            break;
        }
    }
}

#[actix::test]
async fn lost_protocol_gets_an_error_and_an_end() {
    let front = Front::start(settings()).await;
    let mut healthy = front.connect().await;
    for (bytes, reply) in [
        (
            &b"PING\r\n*1\r\n$3000000000\r\n"[..],
            "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n",
        ),
        (b"*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'\r\n"),
        (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        (b"QUIT\r\nPING\r\n", "+OK\r\n"),
    ] {
        let mut wire = front.connect().await;
        wire.send(bytes).await;
        assert_eq!(wire.rest().await, reply, "{}", bytes.escape_ascii());
    }
    // However much follows, the error can be read.
    let mut wire = front.connect().await;
    wire.send([&b"*1\r\n$3000000000\r\n"[..], &[b'x'; 300_000]].concat()).await;
    assert_eq!(wire.rest().await, "-ERR Protocol error: invalid bulk length\r\n");
    healthy.expect("PING", "+PONG\r\n").await;
}

#[actix::test]
async fn a_client_that_has_said_all_gets_all_answers() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    wire.send("SET a 1\r\nGET a\r\nGET").await;
    wire.stream.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, "+OK\r\n$1\r\n1\r\n");
}

#[actix::test]
async fn connections_are_counted() {
    let limits = Limits { clients: 2, ..Limits::default() };
    let front = Front::start(ClientSettings { limits, ..settings() }).await;
    let mut one = front.connect().await;
    let mut two = front.connect().await;
    one.expect("PING", "+PONG\r\n").await;
    two.expect("PING", "+PONG\r\n").await;
    let mut three = front.connect().await;
    assert_eq!(three.rest().await, "-ERR max number of clients reached\r\n");
    one.expect("QUIT", "+OK\r\n").await;
    assert_eq!(one.rest().await, "");
    // The place is free once the front end has seen its end.
    loop {
        let mut next = front.connect().await;
        next.send("PING\r\n").await;
        if next.rest_or_reply().await == "+PONG\r\n" {
            break;
        }
    }
}

#[actix::test]
async fn a_stop_finishes_what_is_in_flight() {
    let front = Front::start(settings()).await;
    let mut idle = front.connect().await;
    let mut wire = front.connect().await;
    idle.expect("PING", "+PONG\r\n").await;
    front.shelf.borrow_mut().hold = true;
    wire.send("SET a 1\r\nSET b 2\r\n").await;
    until(|| front.shelf.borrow().waiting.len() == 2).await;
    front.stop.send(true).unwrap();
    assert_eq!(idle.rest().await, "");
    front.shelf.borrow_mut().release(2);
    assert_eq!(wire.rest().await, "+OK\r\n+OK\r\n");
    front.served.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(front.address).await.is_err());
}

/// A node that dies under its front end drops what it was asked.
#[actix::test]
async fn a_dropped_request_is_an_honest_error() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    front.shelf.borrow_mut().hold = true;
    wire.send("GET a\r\nSET b 1\r\n").await;
    until(|| front.shelf.borrow().waiting.len() == 2).await;
    front.shelf.borrow_mut().waiting.clear();
    assert!(wire.reply().await.starts_with("-NOQUORUM - not applied: "));
    assert!(wire.reply().await.starts_with("-UNKNOWN - the outcome is not known: "));
}

impl Wire {
    /// One reply, or nothing where the other side closes before.
    async fn rest_or_reply(&mut self) -> String {
        use tokio::io::AsyncReadExt;
        while !self.unread.ends_with(b"\r\n") {
            if !matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {
                break;
            }
        }
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}
