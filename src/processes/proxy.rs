//! A byte proxy on each directed peer link, so that links can be held, slowed down and cut.
//!
//! Node A's configuration gives B's peer address as that of the proxy A → B, which connects to B.
//! Bytes flow as both directions say ([`Flow`]). A partition of one direction holds the forward
//! bytes of the one link and the backward bytes (hellos) of the other.
//!
//! All proxies of a ring run on a thread of their own: links work whatever their owner waits for.
//!
//! Caveats: what is held or slowed down is one chunk of [`CHUNK_BYTES`]; more stays in the sockets,
//! as in a network that loses segments and sends them again. A connection still opens while its
//! bytes are held, but no hello comes through. Bytes in flight are lost with their connection.

use super::fleet::reserve;
use simpledynamo_actors::harness::Rng;
use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    ops::Range,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::{oneshot, watch},
    task::{LocalSet, spawn_local},
    time::sleep,
};

/// Bytes in the hands of a proxy, per connection and direction.
const CHUNK_BYTES: usize = 64 * 1024;
/// Connections that wait for a proxy to accept them.
const BACKLOG: i32 = 16;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What happens to the bytes of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// They stay where they are until this is over.
    pub(crate) held: bool,
    /// Connections are closed, and new ones at once.
    pub(crate) cut: bool,
    /// Each chunk passes so much later, drawn anew for each.
    pub(crate) late: Range<Duration>,
}

impl Flow {
    /// They pass.
    pub(crate) const OPEN: Flow =
        Flow { held: false, cut: false, late: Duration::ZERO..Duration::ZERO };
    /// They stay where they are.
    pub(crate) const HELD: Flow = Flow { held: true, ..Flow::OPEN };
    /// Connections are closed.
    pub(crate) const CUT: Flow = Flow { cut: true, ..Flow::OPEN };
}

/// The proxy of one directed link.
pub(crate) struct Link {
    /// Index of the node that dials.
    pub(crate) from: usize,
    /// Index of the node that is dialed.
    pub(crate) to: usize,
    /// Where it is dialed instead.
    pub(crate) address: SocketAddr,
    /// Bytes of the dialing node.
    pub(crate) forward: watch::Sender<Flow>,
    /// Bytes that come back.
    pub(crate) backward: watch::Sender<Flow>,
}

/// The proxies of a ring; they end when this is dropped.
pub(crate) struct Links {
    pub(crate) all: Vec<Link>,
    /// None once the thread was told to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A proxy before it runs.
struct Post {
    listener: std::net::TcpListener,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
}

impl Links {
    /// Starts a proxy for each pair of nodes; `peers` are their true addresses. `seed` decides how
    /// late chunks are.
    pub(crate) fn start(peers: &[SocketAddr], seed: u64) -> io::Result<Links> {
        let (mut all, mut posts) = (Vec::new(), Vec::new());
        for from in 0..peers.len() {
            for (to, target) in peers.iter().enumerate().filter(|(to, _)| *to != from) {
                let (socket, address) = reserve()?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                let (forward, there) = watch::channel(Flow::OPEN);
                let (backward, back) = watch::channel(Flow::OPEN);
                all.push(Link { from, to, address, forward, backward });
                posts.push(Post { listener: socket.into(), target: *target, there, back });
            }
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let proxies = thread::Builder::new().name("proxies".to_owned()).spawn(move || {
            let run = async {
                let rng = Rc::new(RefCell::new(Rng::new(seed, 5)));
                for post in posts {
                    spawn_local(accept(post, Rc::clone(&rng)));
                }
                // Err: the owner is gone, which means the same.
                let _ = stopped.await;
            };
            LocalSet::new().block_on(&runtime, run);
        })?;
        Ok(Links { all, stop: Some(stop), thread: Some(proxies) })
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Err: it panicked, which the panic hook has told.
            let _ = thread.join();
        }
    }
}

async fn accept(post: Post, rng: Rc<RefCell<Rng>>) {
    let Post { listener, target, there, back } = post;
    // Err: the runtime is ending.
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        match listener.accept().await {
            Ok((dialer, _)) => {
                spawn_local(connection(dialer, target, there.clone(), back.clone(), rng.clone()));
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
    rng: Rc<RefCell<Rng>>,
) {
    let cut = |mut flow: watch::Receiver<Flow>| async move {
        // Err: the proxy's owner is gone, and so is the link.
        let _ = flow.wait_for(|flow| flow.cut).await;
    };
    let (cut_there, cut_back) = (cut(there.clone()), cut(back.clone()));
    let pass = async {
        let listener = TcpStream::connect(target).await?;
        dialer.set_nodelay(true)?;
        listener.set_nodelay(true)?;
        let (from_dialer, to_dialer) = dialer.into_split();
        let (from_listener, to_listener) = listener.into_split();
        tokio::try_join!(
            pump(from_dialer, to_listener, there, &rng),
            pump(from_listener, to_dialer, back, &rng)
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
    rng: &RefCell<Rng>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let late = flow.borrow().late.clone();
        if !late.end.is_zero() {
            let late = rng.borrow_mut().span(&late);
            sleep(late).await;
        }
        flow.wait_for(|flow| !flow.held).await.map_err(io::Error::other)?;
        to.write_all(chunk.get(..length).unwrap_or_default()).await?;
    }
}
