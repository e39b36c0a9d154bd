//! The few messages of etcd's version 3 that a generator needs, and unary gRPC calls over HTTP/2.
//!
//! The messages are written by hand, with the field numbers of etcd's `rpc.proto`; fields that nobody here
//! looks at are left out, which Protocol Buffers allow. A unary call is a frame of five bytes and a
//! message each way; a gRPC library would bring a code generator and a good part of the generator's
//! processor time.

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use http::{Request, header::HeaderValue};
use prost::Message;
use std::{io, net::SocketAddr};
use tokio::task::spawn_local;

#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Linearizable, as `serializable` is left out.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

/// A transaction without a condition.
#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
}

/// Of the kinds of operation only a put.
#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    #[prost(message, optional, tag = "2")]
    pub put: Option<PutRequest>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// Bytes before a message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;
/// What a server may send unread, bytes: many answers of the largest value.
const WINDOW: u32 = 8 * 1024 * 1024;

/// Why a call brought nothing.
#[derive(Debug)]
pub enum CallError {
    /// The server answered with an error.
    Refused(String),
    /// The connection is of no further use.
    Broken(String),
}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> CallError {
        CallError::Broken(error.to_string())
    }
}

/// A connection to one server.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Channel {
    /// Connects; the connection is driven by a task until all its users are gone.
    pub async fn open(address: SocketAddr) -> io::Result<Channel> {
        let stream = crate::redis::open(address).await?;
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        // Every call on it meets the same end.
        spawn_local(async move { drop(connection.await) });
        Ok(Channel { sender, authority: address.to_string() })
    }

    /// One unary call: the answer's message.
    pub async fn call(&self, path: &str, message: &impl Message) -> Result<Bytes, CallError> {
        let mut sender = self.sender.clone().ready().await?;
        let request = Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(());
        let request = request.map_err(|error| CallError::Broken(error.to_string()))?;
        let (response, mut stream) = sender.send_request(request, false)?;
        stream.send_data(frame(message), true)?;
        let response = response.await?;
        let status = status(response.headers());
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await?;
        match status.or_else(|| trailers.as_ref().and_then(self::status)) {
            Some(Ok(())) if bytes.len() >= FRAME_BYTES => Ok(bytes.split_off(FRAME_BYTES).freeze()),
            Some(Ok(())) => Err(CallError::Broken("half an answer".to_owned())),
            Some(Err(why)) => Err(CallError::Refused(why)),
            None => Err(CallError::Broken("an answer without a status".to_owned())),
        }
    }
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(FRAME_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for it.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// What headers or trailers say of the call's end; none where they say nothing.
fn status(headers: &http::HeaderMap) -> Option<Result<(), String>> {
    let status = headers.get("grpc-status")?;
    if status.as_bytes() == b"0" {
        return Some(Ok(()));
    }
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let why = headers.get("grpc-message").map_or_else(|| text(status), text);
    Some(Err(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_protocol_buffers() {
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        let op = RequestOp { put: Some(put) };
        let txn = TxnRequest { success: vec![op] };
        assert_eq!(txn.encode_to_vec(), b"\x12\x08\x12\x06\x0a\x01k\x12\x01v");
        let found = b"\x0a\x02\x10\x05\x12\x06\x0a\x01k\x2a\x01v\x20\x01";
        let found = RangeResponse::decode(&found[..]).unwrap().kvs;
        assert_eq!((&found[0].key[..], &found[0].value[..]), (&b"k"[..], &b"v"[..]));
        assert_eq!(frame(&Empty {}), &b"\0\0\0\0\0"[..]);
    }
}
