//! A small RESP2 client: what `get`, `set`, `del` and the wait for a starting node need.
//!
//! Own, because it is one page and a Redis library brings pools, clusters and retries: a retry that
//! nobody asked for is what must not happen here.

use crate::config::Node;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// How long a live node may take to accept a connection and to answer PING.
pub(crate) const GREETING_TIME: Duration = Duration::from_millis(500);
/// Bytes of a line: longer than any error message.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Elements of an array: more than any reply has that is asked for here.
const ELEMENTS_MAX: usize = 1_000_000;

/// A reply; arrays within arrays are not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$5 …`, none for a key that does not exist.
    Bulk(Option<Vec<u8>>),
    /// `*3 …`
    Array(Vec<Reply>),
}

/// A connection to a node that has answered PING.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, gives the password and hears PONG.
    pub(crate) async fn connect(node: &Node, password: Option<&str>) -> io::Result<Client> {
        Client::connect_patiently(node, password, GREETING_TIME).await
    }

    /// As [`Client::connect`], from a node that may be paused: `patience` at most.
    pub(crate) async fn connect_patiently(
        node: &Node,
        password: Option<&str>,
        patience: Duration,
    ) -> io::Result<Client> {
        let greet = async {
            let stream = BufReader::new(TcpStream::connect(node.client).await?);
            let mut client = Client { stream };
            if let Some(password) = password {
                client.expect(&[b"AUTH", password.as_bytes()], "OK").await?;
            }
            client.expect(&[b"PING"], "PONG").await?;
            Ok(client)
        };
        timeout(patience, greet).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn expect(&mut self, command: &[&[u8]], answer: &str) -> io::Result<()> {
        match self.exchange(command).await? {
            Reply::Simple(text) if text == answer => Ok(()),
            Reply::Error(text) => Err(io::Error::other(text)),
            _ => Err(strange()),
        }
    }

    /// Sends a command and waits for its answer, `patience` at most. After an error the connection
    /// must not be used again, and whether the command took place is not known.
    pub(crate) async fn call(
        &mut self,
        command: &[&[u8]],
        patience: Duration,
    ) -> io::Result<Reply> {
        timeout(patience, self.exchange(command)).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn exchange(&mut self, command: &[&[u8]]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line().await?;
        let Some(count) = line.strip_prefix('*').filter(|count| *count != "-1") else {
            return self.plain(&line).await;
        };
        let count =
            count.parse().ok().filter(|count| *count <= ELEMENTS_MAX).ok_or_else(strange)?;
        let mut elements = Vec::new();
        for _ in 0..count {
            let line = self.line().await?;
            elements.push(self.plain(&line).await?);
        }
        Ok(Reply::Array(elements))
    }

    /// What begins with `line`, unless it is an array.
    async fn plain(&mut self, line: &str) -> io::Result<Reply> {
        let mut characters = line.chars();
        let kind = characters.next();
        let rest = characters.as_str();
        match kind {
            Some('+') => Ok(Reply::Simple(rest.to_owned())),
            Some('-') => Ok(Reply::Error(rest.to_owned())),
            Some(':') => rest.parse().map(Reply::Integer).map_err(|_| strange()),
            Some('$' | '*') if rest == "-1" => Ok(Reply::Bulk(None)),
            Some('$') => {
                let length = rest.parse::<u64>().map_err(|_| strange())?;
                self.bulk(length).await.map(|bytes| Reply::Bulk(Some(bytes)))
            }
            _ => Err(strange()),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the node closed the connection",
            ));
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// `length` bytes and a line end; memory grows with what arrives, not with what is announced.
    async fn bulk(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let announced = length.checked_add(2).ok_or_else(strange)?;
        (&mut self.stream).take(announced).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 != announced || !bytes.ends_with(b"\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(bytes.len() - 2);
        Ok(bytes)
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer that a node does not give")
}
