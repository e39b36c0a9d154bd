//! One GET of a node's http address, read to the end, bounded.
//!
//! Own, because it is one page: `status`, `top` and the page's view of the other nodes need nothing of an
//! http client but this.
//!
//! Caveat: it speaks HTTP/1.0, so each question costs a connection; neither redirects nor chunks.

use crate::config::Hidden;
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes of an answer: a status of thousands of nodes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The body of `path` at `address`, as long as the connection takes: put a time-out around it.
///
/// # Errors
/// The connection's; `InvalidData` where the answer is not 200, with what it says.
pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
    password: Option<&Hidden>,
) -> io::Result<String> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut stream = TcpStream::connect(address).await?;
    let proof = password
        .map_or_else(String::new, |password| format!("Authorization: Bearer {}\r\n", password.0));
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{proof}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).map_err(|_| strange("an answer that is not text"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| strange("half an answer"))?;
    let first = head.lines().next().unwrap_or_default();
    match first.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(strange(&format!("{first}: {}", body.trim_end()))),
    }
}
