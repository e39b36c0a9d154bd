//! A node's view of the simulated network: the bridge's [`Net`] over [`super::wire`].

use super::wire::{DIALER, LISTENER, Wire};
use crate::bridge::net::Net;
use simpledynamo_protocol::ring::NodeId;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The network as one life of one node sees it.
#[derive(Clone)]
pub(super) struct SimNet {
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) node: NodeId,
    pub(super) life: u64,
}

/// One end of a connection; let go when it is dropped.
pub(super) struct SimStream {
    wire: Rc<RefCell<Wire>>,
    connection: u64,
    side: usize,
}

impl Net for SimNet {
    type Stream = SimStream;
    type Listener = ();

    async fn bind(&self, at: SocketAddr) -> io::Result<((), SocketAddr)> {
        self.wire.borrow_mut().bind(self.node);
        Ok(((), at))
    }

    async fn accept(&self, _: &mut ()) -> io::Result<(SimStream, SocketAddr)> {
        let (connection, from) =
            poll_fn(|cx| match self.wire.borrow_mut().accept(self.node, cx.waker()) {
                Some(accepted) => Poll::Ready(accepted),
                None => Poll::Pending,
            })
            .await;
        let port = u16::try_from(from.0 % 65_536).unwrap_or(0);
        let stream = SimStream { wire: self.wire.clone(), connection, side: LISTENER };
        Ok((stream, SocketAddr::from(([10, 0, 0, 1], port))))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        let dialed = self.wire.borrow_mut().dial(self.node, self.life, to);
        let connection = dialed.ok_or(io::ErrorKind::HostUnreachable)?;
        let stream = SimStream { wire: self.wire.clone(), connection, side: DIALER };
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            let Some(end) = wire.end(connection, DIALER) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match end.error {
                Some(error) => Poll::Ready(Err(io::Error::from(error))),
                None if end.open => Poll::Ready(Ok(())),
                None => {
                    end.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        Ok(stream)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.wire.borrow_mut();
        let Some(end) = wire.end(self.connection, self.side) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if !end.inbox.is_empty() {
            let size = end.inbox.len().min(buf.remaining());
            buf.put_slice(&end.inbox.split_to(size));
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = end.error {
            return Poll::Ready(Err(error.into()));
        }
        if end.eof {
            return Poll::Ready(Ok(()));
        }
        end.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.wire.borrow_mut().write(self.connection, self.side, bytes);
        Poll::Ready(written.map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // A simulator that is being dropped while it is borrowed is panicking already.
        if let Ok(mut wire) = self.wire.try_borrow_mut() {
            wire.let_go(self.connection, self.side);
        }
    }
}
