//! Replies, byte by byte.

use super::{Front, Wire, request, settings};
use crate::resp::{ClientSettings, dispatch::TABLE};
use simpledynamo_actors::messages::{Phase, Verdict};
use simpledynamo_protocol::message::Reason;
use std::{fmt::Write, net::SocketAddr};

const GOLDEN: &str = include_str!("redis-7.0.golden");
const GOLDEN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/resp/tests/redis-7.0.golden");

/// Plays the golden file's commands and writes the file anew from what comes back.
async fn play(address: SocketAddr) -> String {
    let mut wire = Wire::connect(address).await;
    let mut played = String::new();
    for line in GOLDEN.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let reply = wire.ask(command).await;
            let _ = writeln!(played, "> {command}");
            for line in reply.trim_end_matches("\r\n").split("\r\n") {
                let _ = writeln!(played, "{}", format!("< {}", line.escape_default()).trim_end());
            }
        } else if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(played, "{line}");
        }
    }
    played
}

/// The file was recorded from a real Redis, see its head.
#[actix::test]
async fn replies_are_those_of_redis() {
    let front = Front::start(settings()).await;
    let played = play(front.address).await;
    let differ: Vec<_> = played
        .split("\n> ")
        .zip(GOLDEN.split("\n> "))
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| format!("ours:\n> {ours}\nRedis':\n> {theirs}"))
        .collect();
    assert!(differ.is_empty(), "{} replies differ\n{}", differ.len(), differ.join("\n"));
    assert_eq!(played, GOLDEN);
}

/// Records the golden file from the empty Redis at `REDIS_ADDRESS`; see the file's head.
#[actix::test]
#[ignore = "needs a redis-server"]
async fn record_the_golden_file() {
    let address = std::env::var("REDIS_ADDRESS").expect("REDIS_ADDRESS is host:port");
    let played = play(address.parse().unwrap()).await;
    std::fs::write(GOLDEN_PATH, played).unwrap();
}

#[actix::test]
async fn hello_3_changes_the_replies_that_follow_it() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    wire.send("SET a 1\r\nGET nokey\r\nHELLO 3 SETNAME me\r\nGET nokey\r\nCONFIG GET save\r\n")
        .await;
    assert_eq!(wire.reply().await, "+OK\r\n");
    assert_eq!(wire.reply().await, "$-1\r\n");
    let hello = wire.reply().await;
    assert!(hello.starts_with("%7\r\n$6\r\nserver\r\n"), "{hello}");
    assert!(hello.contains("$5\r\nproto\r\n:3\r\n"), "{hello}");
    assert_eq!(wire.reply().await, "_\r\n");
    assert_eq!(wire.reply().await, "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    wire.expect("CLIENT GETNAME", "$2\r\nme\r\n").await;
    wire.expect("DYNAMO LOCAL", "%1\r\n$1\r\na\r\n$1\r\n1\r\n").await;
    let info = wire.ask("INFO server").await;
    assert!(info.starts_with('=') && info.contains("txt:# Server\r\nredis_version:"), "{info}");
    wire.expect("RESET", "+RESET\r\n").await;
    wire.expect("GET nokey", "$-1\r\n").await;
    wire.expect("CLIENT GETNAME", "$-1\r\n").await;
}

#[actix::test]
async fn ifeq_and_delifeq_compare_first() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    for (line, reply) in [
        ("SET k a IFEQ a", "$-1\r\n"),
        ("SET k a", "+OK\r\n"),
        ("SET k b IFEQ x", "$-1\r\n"),
        ("SET k b IFEQ a", "+OK\r\n"),
        ("SET k c IFEQ b GET", "$1\r\nb\r\n"),
        ("SET k d IFEQ b GET", "$1\r\nc\r\n"),
        ("SET k d IFEQ c NX", "-ERR syntax error\r\n"),
        ("SET k d IFEQ", "-ERR syntax error\r\n"),
        ("DELIFEQ k x", ":0\r\n"),
        ("DELIFEQ k c", ":1\r\n"),
        ("DELIFEQ k c", ":0\r\n"),
    ] {
        wire.expect(line, reply).await;
    }
}

#[actix::test]
async fn keys_and_scan_find_every_key_once() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    wire.expect("RANDOMKEY", "$-1\r\n").await;
    for i in 0..25 {
        wire.expect(&format!("SET key:{i:02} {i}"), "+OK\r\n").await;
    }
    wire.expect("SET other 1", "+OK\r\n").await;
    wire.expect("DEL key:00", ":1\r\n").await;
    wire.expect("DBSIZE", ":25\r\n").await;
    assert_eq!(wire.ask("KEYS key:*").await.matches("key:").count(), 24);
    let (mut cursor, mut found, mut rounds) = ("0".to_owned(), Vec::new(), 0);
    while cursor != "0" || rounds == 0 {
        let page = wire.ask(&format!("SCAN {cursor} MATCH key:* COUNT 4")).await;
        let words: Vec<_> = page.split("\r\n").skip(2).step_by(2).collect();
        cursor = words[0].to_owned();
        found.extend(page.split("\r\n").filter(|word| word.starts_with("key:")).map(str::to_owned));
        rounds += 1;
    }
    assert_eq!(rounds, 7);
    found.sort();
    assert_eq!(found, (1..25).map(|i| format!("key:{i:02}")).collect::<Vec<_>>());
    assert!(wire.ask("RANDOMKEY").await.starts_with('$'));
}

#[actix::test]
async fn dynamo_shows_the_ring_and_the_own_store() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    wire.expect("SET a 1", "+OK\r\n").await;
    wire.expect("SET a 2", "+OK\r\n").await;
    wire.expect("SET gone 1", "+OK\r\n").await;
    wire.expect("DEL gone", ":1\r\n").await;
    wire.expect("DYNAMO LOCAL", "*2\r\n$1\r\na\r\n$1\r\n2\r\n").await;
    wire.expect("dynamo all", "*2\r\n$1\r\na\r\n$1\r\n2\r\n").await;
    wire.expect("DYNAMO LOCAL a", "*3\r\n$1\r\n2\r\n:2\r\n$6\r\n3.5554\r\n").await;
    wire.expect("DYNAMO LOCAL gone", "*3\r\n$-1\r\n:2\r\n$6\r\n3.5554\r\n").await;
    wire.expect("DYNAMO LOCAL never", "*-1\r\n").await;
    let ring = super::settings().ring;
    let ids: String = ring.replicas_of(b"a").iter().map(|id| format!(":{id}\r\n")).collect();
    wire.expect("DYNAMO WHERE a", &format!("*3\r\n{ids}")).await;
    let ring = wire.ask("DYNAMO RING").await;
    assert!(ring.starts_with("*5\r\n*10\r\n$2\r\nid\r\n:5562\r\n"), "{ring}");
    assert!(wire.ask("DYNAMO STATUS").await.contains("serving"));
    assert!(wire.ask("DYNAMO HELP").await.contains("LOCAL"));
    let text = "-ERR unknown subcommand 'foo'. Try DYNAMO HELP.\r\n";
    wire.expect("DYNAMO foo", text).await;
    let text = "-ERR wrong number of arguments for 'dynamo|where' command\r\n";
    wire.expect("DYNAMO WHERE", text).await;
}

#[actix::test]
async fn verdicts_reach_the_client_and_a_half_done_command_is_unknown() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    let verdicts = [
        ("no", Verdict::NotApplied(Reason::NoQuorum)),
        ("no2", Verdict::NotApplied(Reason::NoQuorum)),
        ("busy", Verdict::NotApplied(Reason::Overloaded)),
        ("who", Verdict::Unknown),
    ];
    front.shelf.borrow_mut().verdicts = verdicts.map(|(key, what)| (key.into(), what)).into();
    for (line, start) in [
        ("SET no 1", "-NOQUORUM 5554-1-1 not applied: "),
        ("SET busy 1", "-BUSY 5554-1-2 not applied: "),
        ("INCR who", "-UNKNOWN 5554-1-3 the outcome is not known: "),
        ("MGET a no", "-NOQUORUM 5554-1-5 not applied: "),
        ("DEL no no2", "-NOQUORUM 5554-1-6 not applied: "),
        ("MSET no 1 no2 2", "-NOQUORUM 5554-1-8 not applied: "),
        ("MSET a 1 no 2", "-UNKNOWN 5554-1-11 the outcome is not known for all of the 2 keys"),
        ("DEL no who", "-UNKNOWN 5554-1-"),
        ("EXISTS a no", "-NOQUORUM 5554-1-15 not applied: "),
    ] {
        let reply = wire.ask(line).await;
        assert!(reply.starts_with(start), "{line}: {reply}");
    }
    wire.expect("GET a", "$1\r\n1\r\n").await;
}

#[actix::test]
async fn a_starting_node_serves_no_data_until_it_knows_who_it_is() {
    let front = Front::start(settings()).await;
    front.shelf.borrow_mut().phase = Phase::Starting;
    let mut wire = front.connect().await;
    assert!(wire.ask("GET a").await.starts_with("-LOADING "));
    assert!(wire.ask("DYNAMO ALL").await.starts_with("-LOADING "));
    wire.expect("PING", "+PONG\r\n").await;
    assert!(wire.ask("INFO").await.contains("\r\nloading:1\r\n"));
    front.shelf.borrow_mut().phase = Phase::Learning;
    wire.expect("GET a", "$-1\r\n").await;
}

#[actix::test]
async fn a_password_is_asked_for_before_anything_else() {
    let front =
        Front::start(ClientSettings { password: Some("secret".into()), ..settings() }).await;
    let mut wire = front.connect().await;
    const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
    wire.expect("GET a", NOAUTH).await;
    wire.expect("PING", NOAUTH).await;
    assert!(wire.ask("HELLO 3").await.starts_with("-NOAUTH HELLO must be called"));
    assert!(wire.ask("AUTH wrong").await.starts_with("-WRONGPASS "));
    assert!(wire.ask("AUTH other secret").await.starts_with("-WRONGPASS "));
    assert!(wire.ask("HELLO 3 AUTH default wrong").await.starts_with("-WRONGPASS "));
    wire.expect("GET a", NOAUTH).await;
    assert!(wire.ask("HELLO 3 AUTH default secret").await.starts_with("%7\r\n"));
    wire.expect("GET a", "_\r\n").await;
    wire.expect("RESET", "+RESET\r\n").await;
    wire.expect("GET a", NOAUTH).await;
    // What follows AUTH in the same packet already has its rights.
    let value = vec![b'v'; 20_000];
    wire.send([&b"AUTH secret\r\n"[..], &request(&[b"SET", b"a", &value])].concat()).await;
    assert_eq!(wire.reply().await, "+OK\r\n");
    assert_eq!(wire.reply().await, "+OK\r\n");
    wire.expect("QUIT", "+OK\r\n").await;
    assert_eq!(wire.rest().await, "");
    let mut wire = front.connect().await;
    wire.send(request(&[b"SET", b"a", &value])).await;
    assert_eq!(wire.rest().await, "-ERR Protocol error: unauthenticated bulk length\r\n");
}

#[actix::test]
async fn client_reply_silences_as_asked() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    wire.send("CLIENT REPLY OFF\r\nSET a 1\r\nNOSUCH\r\nCLIENT REPLY ON\r\n").await;
    assert_eq!(wire.reply().await, "+OK\r\n");
    wire.send("CLIENT REPLY SKIP\r\nGET a\r\nECHO heard\r\n").await;
    assert_eq!(wire.reply().await, "$5\r\nheard\r\n");
    wire.expect("GET a", "$1\r\n1\r\n").await;
}

#[actix::test]
async fn figures_that_clients_look_at() {
    let front = Front::start(settings()).await;
    let mut wire = front.connect().await;
    let mut other = front.connect().await;
    other.expect("CLIENT SETINFO LIB-NAME redis-py", "+OK\r\n").await;
    other.expect("CLIENT SETNAME two", "+OK\r\n").await;
    let list = wire.ask("CLIENT LIST").await;
    assert!(list.contains(" name=two ") && list.contains(" lib-name=redis-py "), "{list}");
    assert!(list.contains("id=1 ") && list.contains("id=2 "), "{list}");
    let count = TABLE.len();
    wire.expect("COMMAND COUNT", &format!(":{count}\r\n")).await;
    assert!(wire.ask("COMMAND").await.starts_with(&format!("*{count}\r\n*10\r\n")));
    assert!(
        wire.ask("COMMAND DOCS get").await.starts_with("*2\r\n$3\r\nget\r\n*6\r\n$7\r\nsummary")
    );
    assert!(wire.ask("TIME").await.starts_with("*2\r\n$10\r\n"));
    wire.expect("WAIT 2 100", ":1\r\n").await;
    assert!(wire.ask("CONFIG SET save x").await.contains("cluster.toml"));
    let info = wire.ask("INFO").await;
    for line in ["# Server", "connected_clients:2", "role:master", "loading:0", "node_id:5554"] {
        assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
    }
    assert!(!wire.ask("INFO clients").await.contains("# Server"));
}
