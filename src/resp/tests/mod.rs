//! The whole front end over real sockets, with a small stand-in for the node behind it.

mod bounds;
mod fake;
mod replies;

use super::{ClientSettings, serve};
use fake::{Fake, Shelf};
use simpledynamo_actors::settings::Limits;
use simpledynamo_protocol::ring::{NodeId, Ring};
use std::{cell::RefCell, net::SocketAddr, rc::Rc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The settings of the shipped ring, without a password.
fn settings() -> ClientSettings {
    ClientSettings {
        limits: Limits::default(),
        password: None,
        ring: Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3),
        me: NodeId(5554),
        write_quorum: 2,
    }
}

/// A front end on a port of its own.
struct Front {
    address: SocketAddr,
    shelf: Rc<RefCell<Shelf>>,
    stop: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Front {
    async fn start(settings: ClientSettings) -> Front {
        let (node, shelf) = Fake::start(settings.ring.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::task::spawn_local(serve(listener, node, settings, stopped));
        Front { address, shelf, stop, served }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }
}

/// A client that knows nothing but bytes.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    async fn connect(address: SocketAddr) -> Wire {
        Wire { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next whole reply, as text.
    async fn reply(&mut self) -> String {
        loop {
            if let Some(length) = frame_length(&self.unread) {
                let rest = self.unread.split_off(length);
                let frame = std::mem::replace(&mut self.unread, rest);
                return String::from_utf8_lossy(&frame).into_owned();
            }
            let count = self.stream.read_buf(&mut self.unread).await.unwrap();
            assert!(count > 0, "closed with {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Sends a line and gives its reply.
    async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    async fn expect(&mut self, line: &str, reply: &str) {
        assert_eq!(self.ask(line).await, reply, "{line}");
    }

    /// All that comes before the other side closes.
    async fn rest(&mut self) -> String {
        // A reset after the last byte is an end, too.
        let _ = self.stream.read_to_end(&mut self.unread).await;
        String::from_utf8_lossy(&self.unread).into_owned()
    }
}

/// A request as clients send it.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The length of the reply at the start of `bytes`, if it is whole.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..end - 2]).unwrap().parse::<i64>().unwrap();
    let many =
        |count: i64| (0..count).try_fold(end, |at, _| Some(at + frame_length(bytes.get(at..)?)?));
    match bytes[0] {
        b'$' | b'=' if number() >= 0 => {
            let whole = end + usize::try_from(number()).unwrap() + 2;
            (bytes.len() >= whole).then_some(whole)
        }
        b'*' | b'~' => many(number()),
        b'%' => many(number() * 2),
        _ => Some(end),
    }
}
