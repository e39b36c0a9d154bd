//! A byte proxy on each directed peer link, so that links can be held, slowed down and cut.
//!
//! Node A's configuration gives B's peer address as that of the proxy A → B, which connects to B.
//! Bytes flow as both directions say ([`Flow`]). A partition of one direction holds the forward
//! bytes of the one link and the backward bytes (hellos) of the other.
//!
//! Caveats: what is held or slowed down is one chunk of [`CHUNK_BYTES`]; more stays in the sockets,
//! as in a network that loses segments and sends them again. A connection still opens while its
//! bytes are held, but no hello comes through. Bytes in flight are lost with their connection.

use super::ring::reserve;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::spawn_local,
    time::sleep,
};

/// Bytes in the hands of a proxy, per connection and direction.
const CHUNK_BYTES: usize = 64 * 1024;
/// Connections that wait for a proxy to accept them.
const BACKLOG: i32 = 16;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// They pass.
    Open,
    /// They stay where they are until the flow is open again.
    Held,
    /// Each chunk passes this much later.
    Late(Duration),
    /// Connections are closed, and new ones at once.
    Cut,
}

/// The proxy of one directed link.
pub(super) struct Link {
    /// Index of the node that dials.
    pub(super) from: usize,
    /// Index of the node that is dialed.
    pub(super) to: usize,
    /// Where it is dialed instead.
    pub(super) address: SocketAddr,
    forward: watch::Sender<Flow>,
    backward: watch::Sender<Flow>,
}

impl Link {
    /// Starts a proxy to `target`; it ends with the runtime.
    pub(super) fn start(from: usize, to: usize, target: SocketAddr) -> io::Result<Link> {
        let (socket, address) = reserve()?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (forward, there) = watch::channel(Flow::Open);
        let (backward, back) = watch::channel(Flow::Open);
        spawn_local(accept(listener, target, there, back));
        Ok(Link { from, to, address, forward, backward })
    }

    /// Sets what happens to bytes of the dialing node, and to those that come back.
    pub(super) fn set(&self, forward: Flow, backward: Flow) {
        self.forward.send_replace(forward);
        self.backward.send_replace(backward);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
) {
    loop {
        match listener.accept().await {
            Ok((dialer, _)) => {
                spawn_local(connection(dialer, target, there.clone(), back.clone()));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection until either side, or a cut, ends it.
async fn connection(
    dialer: TcpStream,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
) {
    let cut = |mut flow: watch::Receiver<Flow>| async move {
        // Err: the proxy's owner is gone, and so is the link.
        let _ = flow.wait_for(|flow| *flow == Flow::Cut).await;
    };
    let (cut_there, cut_back) = (cut(there.clone()), cut(back.clone()));
    let pass = async {
        let listener = TcpStream::connect(target).await?;
        dialer.set_nodelay(true)?;
        listener.set_nodelay(true)?;
        let (from_dialer, to_dialer) = dialer.into_split();
        let (from_listener, to_listener) = listener.into_split();
        tokio::try_join!(
            pump(from_dialer, to_listener, there),
            pump(from_listener, to_dialer, back)
        )
    };
    // Whatever ends it, both sockets close: that is all a node may see of it.
    tokio::select! {
        biased;
        () = cut_there => {}
        () = cut_back => {}
        _ = pass => {}
    }
}

/// Moves bytes until the source ends, which is an error so that the other direction ends too.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = *flow.borrow();
        if let Flow::Late(by) = now {
            sleep(by).await;
        }
        flow.wait_for(|flow| *flow != Flow::Held).await.map_err(io::Error::other)?;
        to.write_all(chunk.get(..length).unwrap_or_default()).await?;
    }
}
