//! Real sockets in front of a node that is not there.

use super::*;
use actix::{Actor, Context, Handler, MessageResult};
use simpledynamo_actors::flow::Reader;
use simpledynamo_actors::messages::{Member, Standing, Status, Table};
use simpledynamo_protocol::ring::NodeId;
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

/// A site in front of a node in `phase`, and what ends it.
async fn site(phase: Phase, password: Option<&str>) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let node = Node(phase).start();
    let asked = Asked {
        status: node.clone().recipient(),
        table: node.recipient(),
        flow: Reader::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    actix::spawn(serve(listener, asked, password.map(str::to_owned), stopped));
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
    for path in ["/ready", "/status"] {
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
    let asked = Asked {
        status: node.clone().recipient(),
        table: node.recipient(),
        flow: Reader::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let site = actix::spawn(serve(listener, asked, None, stopped));
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
