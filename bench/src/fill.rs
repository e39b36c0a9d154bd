//! Keys written before a run, as fast as the servers take them, and waiting for servers.

use crate::{
    etcd::put,
    grpc::{CallError, Channel, PUT, PutRequest, RequestOp, TXN, TxnRequest},
    plan::{Protocol, Supply, Workload, parts},
    redis,
    resp::{self, Reply},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{cell::RefCell, io, net::SocketAddr, ops::Range, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{JoinSet, spawn_local},
    time::{sleep, timeout},
};

/// Connections that write side by side.
const WRITERS: usize = 16;
/// Keys in a batch; etcd allows 128 operations a transaction.
const BATCH_KEYS: u64 = 100;
/// Bytes of values in a batch at most, unless one value is larger: etcd takes requests up to 1.5 MiB.
const BATCH_BYTES: u64 = 1 << 20;
/// Attempts at one batch: a ring that has just started may refuse a few.
const ATTEMPTS: u32 = 50;
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one attempt to get an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// What is to be written where.
pub struct Fill {
    pub protocol: Protocol,
    pub address: Vec<SocketAddr>,
    pub keys: u64,
    pub value_bytes: usize,
}

impl Fill {
    pub async fn run(self) -> io::Result<()> {
        let supply = Rc::new(Supply::new(self.keys, self.value_bytes, Workload::Write)?);
        let size = u64::try_from(self.value_bytes).unwrap_or(u64::MAX).max(1);
        let batch = (BATCH_BYTES / size).clamp(1, BATCH_KEYS);
        let left: Rc<RefCell<Vec<_>>> = Rc::new(RefCell::new(parts(self.keys, batch).collect()));
        let mut writers = JoinSet::new();
        for at in 0..WRITERS {
            let address = self.address[at % self.address.len()];
            let (left, supply) = (Rc::clone(&left), Rc::clone(&supply));
            match self.protocol {
                Protocol::Redis => writers.spawn_local(fill_redis(address, left, supply)),
                Protocol::Etcd => writers.spawn_local(fill_etcd(address, left, supply)),
            };
        }
        while let Some(ended) = writers.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

type Left = Rc<RefCell<Vec<Range<u64>>>>;

async fn fill_redis(address: SocketAddr, left: Left, supply: Rc<Supply>) -> io::Result<()> {
    let (mut reader, mut writer) = redis::open(address).await?.into_split();
    let mut attempts = 0;
    let (mut out, mut bytes) = (BytesMut::new(), BytesMut::new());
    loop {
        let Some(keys) = left.borrow_mut().pop() else { return Ok(()) };
        let mut missing = keys.end - keys.start;
        out.clear();
        for number in keys.clone() {
            resp::set(&mut out, &supply, number, number as usize);
        }
        // Both at once: a server that waits for its replies to be read takes nothing more.
        let batch = out.split();
        let write = spawn_local(async move { writer.write_all(&batch).await.map(|()| writer) });
        let mut refused = None;
        while missing > 0 {
            while let Some((reply, size)) = resp::reply(&bytes) {
                if reply != Reply::Simple {
                    refused = Some(format!("{address}: a write was refused: {reply:?}"));
                }
                bytes.advance(size);
                missing -= 1;
            }
            if missing > 0 && reader.read_buf(&mut bytes).await? == 0 {
                return Err(io::Error::other(format!("{address} closed the connection")));
            }
        }
        writer = write.await.map_err(io::Error::other)??;
        if let Some(why) = refused {
            attempts += 1;
            if attempts > ATTEMPTS {
                return Err(io::Error::other(why));
            }
            left.borrow_mut().push(keys);
            sleep(PAUSE).await;
        }
    }
}

async fn fill_etcd(address: SocketAddr, left: Left, supply: Rc<Supply>) -> io::Result<()> {
    let channel = Channel::open(address).await?;
    let mut attempts = 0;
    loop {
        let Some(keys) = left.borrow_mut().pop() else { return Ok(()) };
        let put = |number: u64| RequestOp { put: Some(put(&supply, number, number as usize)) };
        let transaction = TxnRequest { success: keys.clone().map(put).collect() };
        match channel.call(TXN, &transaction).await {
            Ok(_) => {}
            Err(CallError::Refused(_)) if attempts < ATTEMPTS => {
                attempts += 1;
                left.borrow_mut().push(keys);
                sleep(PAUSE).await;
            }
            Err(CallError::Refused(why) | CallError::Broken(why)) => {
                return Err(io::Error::other(format!("{address}: {why}")));
            }
        }
    }
}

/// Tries one write at an address: servers that have just started take none at first.
pub async fn takes_writes(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    match timeout(ANSWER_TIME, write_one(protocol, address)).await {
        Ok(ended) => ended.map_err(|error| io::Error::other(format!("{address}: {error}"))),
        Err(_) => Err(io::Error::other(format!("{address}: no answer"))),
    }
}

async fn write_one(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    match protocol {
        Protocol::Redis => {
            let mut stream = redis::open(address).await?;
            let mut bytes = BytesMut::new();
            bytes.put_slice(b"*3\r\n$3\r\nSET\r\n$5\r\nready\r\n$3\r\nyes\r\n");
            stream.write_all(&bytes).await?;
            bytes.clear();
            loop {
                match resp::reply(&bytes) {
                    Some((Reply::Simple, _)) => return Ok(()),
                    Some((other, _)) => return Err(io::Error::other(format!("{other:?}"))),
                    None => {}
                }
                if stream.read_buf(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Protocol::Etcd => {
            let put =
                PutRequest { key: Bytes::from_static(b"ready"), value: Bytes::from_static(b"yes") };
            let answer = Channel::open(address).await?.call(PUT, &put).await;
            answer.map(|_| ()).map_err(|error| io::Error::other(format!("{error:?}")))
        }
    }
}
