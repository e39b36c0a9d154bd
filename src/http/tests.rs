//! Real sockets in front of a node that is not there.

use super::*;
use crate::config;
use actix::{Actor, Addr, Context, Handler, MessageResult};
use base64::{Engine, engine::general_purpose::STANDARD};
use simpledynamo_actors::messages::{Member, Standing};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    recent::Recent,
    record::{Datum, Record},
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct Node(Phase);

impl Actor for Node {
    type Context = Context<Self>;
}

impl Handler<AskStatus> for Node {
    type Result = MessageResult<AskStatus>;
    fn handle(&mut self, _: AskStatus, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Status { phase: self.0, live: 3, store: u64::MAX, ..Status::default() })
    }
}

impl Handler<AskTable> for Node {
    type Result = MessageResult<AskTable>;
    fn handle(&mut self, _: AskTable, _: &mut Context<Self>) -> Self::Result {
        let member = Member {
            id: NodeId(7),
            peer: ([127, 0, 0, 1], 1207).into(),
            position: "00".repeat(20),
            share: 0.25,
            standing: Standing::Suspected,
        };
        MessageResult(Table { me: NodeId(5), nodes: vec![member] })
    }
}

impl Handler<AskTraffic> for Node {
    type Result = MessageResult<AskTraffic>;
    fn handle(&mut self, _: AskTraffic, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Traffic { queued: 4, ..Traffic::default() })
    }
}

/// Stores every key but `none`.
impl Handler<LocalGet> for Node {
    type Result = Option<Record>;
    fn handle(&mut self, LocalGet { key }: LocalGet, _: &mut Context<Self>) -> Self::Result {
        let stamp = Stamp { ballot: Ballot { round: 3, node: NodeId(5) }, version: 8 };
        let datum = Datum::Live { value: key.to_vec().into(), expires_at: None };
        (*key != *b"none").then(|| Record { stamp, datum, recent: Recent::default() })
    }
}

fn asked(node: &Addr<Node>) -> Asked {
    Asked {
        status: node.clone().recipient(),
        table: node.clone().recipient(),
        traffic: node.clone().recipient(),
        local_get: node.clone().recipient(),
        metrics: Arc::default(),
        flow: Reader::default(),
    }
}

/// A ring of this node and two others: one of them is gone, the other is this very node again, so
/// not the one that it should be.
fn settings(me: SocketAddr, password: Option<&str>) -> HttpSettings {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = |id, http| config::Node { id: NodeId(id), client: me, peer: me, http };
    HttpSettings {
        me: NodeId(5),
        ring: Ring::new([5, 6, 7].map(NodeId), 3),
        nodes: vec![node(5, me), node(6, gone), node(7, me)],
        password: password.map(|password| Hidden(password.to_owned())),
    }
}

/// A site in front of a node in `phase`, and what ends it.
async fn site(phase: Phase, password: Option<&str>) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let node = Node(phase).start();
    let asked = asked(&node);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    actix::spawn(serve(listener, asked, settings(address, password), stopped));
    (address, stop)
}

/// Status code and body of a GET with these further header lines.
async fn fetch(address: std::net::SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[actix::test]
async fn ready_tells_starting_from_serving() {
    let (starting, _stop) = site(Phase::Starting, None).await;
    assert_eq!(fetch(starting, "/health", "").await, (200, "ok\n".into()));
    assert_eq!(fetch(starting, "/ready", "").await, (503, "starting\n".into()));
    let (learning, _stop) = site(Phase::Learning, None).await;
    assert_eq!(fetch(learning, "/ready", "").await, (200, "ready\n".into()));
}

#[actix::test]
async fn status_is_the_nodes_and_reads_back() {
    let (address, _stop) = site(Phase::Serving, None).await;
    let (code, body) = fetch(address, "/status", "").await;
    assert_eq!(code, 200);
    let page: StatusPage = serde_json::from_str(&body).unwrap();
    assert_eq!((page.id, page.phase.as_str(), page.live), (5, "serving", 3));
    assert_eq!(page.store, "ffffffffffffffff");
    let [row] = page.nodes.as_slice() else { panic!("{page:?}") };
    assert_eq!((row.id, row.standing.as_str(), row.share), (7, "suspected", 0.25));
    assert_eq!((page.queued, page.load), (4, Load::default()));
}

#[actix::test]
async fn a_status_of_an_older_version_is_understood() {
    let (address, _stop) = site(Phase::Serving, None).await;
    let (_, body) = fetch(address, "/status", "").await;
    let mut page: serde_json::Value = serde_json::from_str(&body).unwrap();
    for newer in ["queued", "queued_bytes", "disk_bytes", "load", "links"] {
        page.as_object_mut().unwrap().remove(newer).unwrap();
    }
    let page: StatusPage = serde_json::from_value(page).unwrap();
    assert_eq!((page.live, page.queued), (3, 0));
}

/// Head and body of a GET.
async fn whole(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[actix::test]
async fn the_page_and_all_it_names_is_there_under_strict_headers() {
    let (address, _stop) = site(Phase::Serving, None).await;
    let mut open = vec!["/".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = open.pop() {
        let (head, body) = whole(address, &path).await;
        assert!(head.starts_with("http/1.0 200"), "{path}: {head}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(header), "{path}: {header} is not in\n{head}");
        }
        assert!(!head.contains("unsafe"), "{head}");
        // Markup or style made of strings is what the policy and the page's own rule exclude.
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", " style=", " onclick="] {
            assert!(!body.contains(forbidden), "{path} has {forbidden}");
        }
        let named = body.split('"').filter(|word| word.starts_with("/site/")).map(str::to_owned);
        let imported = body.split('"').filter_map(|word| word.strip_prefix("./"));
        let imported = imported.map(|name| format!("/site/{name}"));
        seen.push(path);
        for next in named.chain(imported) {
            if !seen.contains(&next) && !open.contains(&next) {
                open.push(next);
            }
        }
    }
    assert_eq!(seen.len(), site::FILES.len(), "{seen:?}");
}

#[actix::test]
async fn pages_of_other_names_see_no_keys() {
    let (address, _stop) = site(Phase::Serving, None).await;
    for path in ["/", "/flow", "/view/key/61", "/view/stored/61", "/view/ring"] {
        assert_eq!(fetch(address, path, "Host: evil.example\r\n").await.0, 421, "{path}");
    }
    assert_eq!(fetch(address, "/view/stored/61", "Host: localhost:1\r\n").await.0, 200);
    let (named, _stop) = site(Phase::Serving, Some("x")).await;
    let proof = "Host: node.example\r\nAuthorization: Bearer x\r\n";
    assert_eq!(fetch(named, "/view/stored/61", proof).await.0, 200);
}

#[actix::test]
async fn a_key_is_shown_as_its_nodes_store_it() {
    let (address, _stop) = site(Phase::Serving, None).await;
    let (code, body) = fetch(address, "/view/key/3c696d673e", "").await;
    assert_eq!(code, 200);
    let found: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(found["agree"], serde_json::Value::Null, "one of them is gone");
    let replicas = found["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        if replica["node"] == 6 {
            assert!(replica["error"].as_str().unwrap().contains("refused"), "{replica}");
        } else {
            assert_eq!(replica["stored"]["value"], "3c696d673e");
            assert_eq!(replica["stored"]["version"], 8);
        }
    }
    assert_eq!(fetch(address, "/view/stored/6e6f6e65", "").await, (200, "null".to_owned()));
    for wrong in ["/view/key/", "/view/key/abc", "/view/key/zz", "/view/stored/%3c"] {
        assert!((400..405).contains(&fetch(address, wrong, "").await.0), "{wrong}");
    }
}

/// The first event of a stream whose text has `part`.
async fn event(stream: &mut TcpStream, part: &str) -> serde_json::Value {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert_ne!(count, 0, "the stream ended after\n{text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        let whole = &text[..text.rfind("\n\n").unwrap_or(0)];
        let mut events = whole.lines().filter_map(|line| line.strip_prefix("data: "));
        if let Some(event) = events.find(|event| event.contains(part)) {
            return serde_json::from_str(event).unwrap();
        }
    }
}

async fn watch_ring(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /view/ring HTTP/1.0\r\n\r\n").await.unwrap();
    stream
}

#[actix::test]
async fn the_ring_is_shown_as_this_node_sees_it() {
    let (address, _stop) = site(Phase::Serving, None).await;
    let mut stream = watch_ring(address).await;
    let seen = event(&mut stream, "answers at the http address").await;
    assert_eq!(seen["me"], 5);
    let nodes = seen["nodes"].as_array().unwrap();
    let state = |id| nodes.iter().find(|node| node["id"] == id).unwrap()["state"].clone();
    assert_eq!(
        (state(5), state(6), state(7)),
        ("serving".into(), "down".into(), "no answer".into())
    );
}

#[actix::test]
async fn streams_are_bounded_and_end_with_the_node() {
    let (address, stop) = site(Phase::Serving, None).await;
    let mut streams = Vec::new();
    for _ in 0..view::STREAMS_MAX {
        let mut stream = watch_ring(address).await;
        event(&mut stream, "serving").await;
        streams.push(stream);
    }
    let (head, _) = whole(address, "/view/ring").await;
    assert!(head.starts_with("http/1.0 503") && head.contains("retry-after"), "{head}");
    let (_, text) = whole(address, "/metrics").await;
    assert!(text.contains(&format!("dynamo_http_streams {}\n", view::STREAMS_MAX)), "{text}");
    stop.send_replace(true);
    for mut stream in streams {
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
}

#[actix::test]
async fn only_reading_and_only_what_there_is() {
    let (address, _stop) = site(Phase::Serving, None).await;
    assert_eq!(fetch(address, "/keys", "").await.0, 404);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /status HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 405"), "{answer}");
}

#[actix::test]
async fn password_is_asked_for_by_all_but_health() {
    let (address, _stop) = site(Phase::Serving, Some("open:sesame")).await;
    let code = async |path: &str, headers: &str| fetch(address, path, headers).await.0;
    let basic = |pair: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
    assert_eq!(code("/health", "").await, 200);
    for path in ["/ready", "/status", "/metrics", "/", "/site/page.js", "/view/stored/61"] {
        assert_eq!(code(path, "").await, 401);
        assert_eq!(code(path, &basic("any:open:sesame")).await, 200);
        assert_eq!(code(path, "authorization: bearer open:sesame\r\n").await, 200);
        for wrong in ["any:open:sesam", "any:open:sesame ", "open:sesame", "any:", "any"] {
            assert_eq!(code(path, &basic(wrong)).await, 401, "{wrong}");
        }
        assert_eq!(code(path, "Authorization: Basic ???\r\n").await, 401);
        assert_eq!(code(path, "Authorization: open:sesame\r\n").await, 401);
    }
}

#[actix::test]
async fn stops_at_once_although_a_connection_idles() {
    let node = Node(Phase::Serving).start();
    let asked = asked(&node);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let site = actix::spawn(serve(listener, asked, settings(address, None), stopped));
    let _idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(fetch(address, "/health", "").await.0, 200);
    stop.send_replace(true);
    site.await.unwrap().unwrap();
}

#[actix::test]
async fn one_more_than_may_come_in_waits_for_a_place() {
    let (address, _stop) = site(Phase::Serving, None).await;
    let mut inside = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // The first byte of the answer: this one is inside, and stays.
        stream.read_u8().await.unwrap();
        inside.push(stream);
    }
    let waiting = actix::spawn(fetch(address, "/health", ""));
    inside.pop();
    assert_eq!(waiting.await.unwrap().0, 200);
}
