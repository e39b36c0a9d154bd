//! The network as a parameter: production speaks tokio TCP, a simulator its own.
//!
//! The type parameter appears only where a node listens, dials and starts; everything above sees a
//! [`super::BridgeHandle`].

use std::{future::Future, io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// Time for which sent bytes may stay unacknowledged before the system gives a connection up. The
/// system's own patience is a quarter of an hour, and after a partition it waits up to two minutes
/// before it tries again; a new connection gets through at once.
pub const UNACKNOWLEDGED_TIME_MAX: Duration = Duration::from_secs(3);

/// A kind of network.
pub trait Net: Clone + 'static {
    /// A connection: bytes in order, both ways.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;
    /// Something that accepts connections.
    type Listener: 'static;

    /// Listens at `at` and says where that is (port 0 lets the system choose).
    fn bind(
        &self,
        at: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Listener, SocketAddr)>>;

    /// The next connection, and where it comes from.
    fn accept(
        &self,
        listener: &mut Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;

    /// Dials `to`.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;
}

/// TCP of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Net for Tcp {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn bind(&self, at: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(at).await?;
        let at = listener.local_addr()?;
        Ok((listener, at))
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        // Left with Nagle's algorithm: the accepting end says single packets of the hello only.
        listener.accept().await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(to).await?;
        // Frames are gathered here already; the system must not hold a lone one back.
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIME_MAX))?;
        Ok(stream)
    }
}
