//! The ring under torture: five processes in a directory of their own, behind proxies.
//!
//! Ports are chosen by the system and stay bound, without listening, to the end: no outgoing
//! connection takes the port of a node that is down, and the node binds it beside (`SO_REUSEADDR`).
//! Each node has a configuration of its own, in which its peers' addresses are those of its proxies.
//!
//! Processes are children of this one and are ended by their pids. Should this process be killed,
//! the kernel ends them (`--owner`); a node that is paused at that moment ends when it goes on.

use super::{
    super::{
        Failure, Place,
        launch::{Launched, Tie, how, launch, serves},
        status,
    },
    proxy::{Flow, Link},
};
use crate::config::{Cluster, Environment};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};
use std::{
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The shipped ids.
const IDS: [u32; 5] = [5554, 5556, 5558, 5560, 5562];
/// How long a node may take to serve, and to be level again: far above what a healthy one needs on a
/// busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to end by itself.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long a node may take to say how it is.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// How often it is looked whether something has come to pass.
const LOOK: Duration = Duration::from_millis(20);

/// Which directions between one node and all others a fault has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// From the node and to it.
    Both,
    /// Only what the node says.
    Out,
    /// Only what it is told.
    In,
}

/// Five processes and the twenty links between them.
pub(super) struct Ring {
    /// As clients see it: true addresses.
    pub(super) cluster: Rc<Cluster>,
    /// Where everything is.
    pub(super) dir: PathBuf,
    links: Vec<Link>,
    launched: Vec<Option<Launched>>,
    _ports: Vec<Socket>,
}

impl Ring {
    /// Writes the configurations and starts the proxies; no node yet. Within a `LocalSet`.
    pub(super) fn new() -> Result<Ring, Failure> {
        let dir = std::env::temp_dir().join(format!("dynamo-torture-{}", std::process::id()));
        fs::create_dir(&dir)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
        let (mut ports, mut nodes) = (Vec::new(), Vec::new());
        for _ in IDS {
            let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 3];
            for address in &mut addresses {
                let (socket, bound) = reserve()?;
                ports.push(socket);
                *address = bound;
            }
            nodes.push(addresses);
        }
        let mut links = Vec::new();
        for from in 0..IDS.len() {
            for (to, [_, peer, _]) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                links.push(Link::start(from, to, *peer)?);
            }
        }
        let describe = |of: Option<usize>| {
            let mut text = String::new();
            for (to, (id, [client, peer, http])) in IDS.iter().zip(&nodes).enumerate() {
                let proxy = links.iter().find(|link| Some(link.from) == of && link.to == to);
                let peer = proxy.map_or(*peer, |link| link.address);
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\"\n"
                );
            }
            text
        };
        for (from, id) in IDS.iter().enumerate() {
            fs::write(dir.join(format!("{id}.toml")), describe(Some(from)))?;
        }
        let file = dir.join("cluster.toml");
        fs::write(&file, describe(None))?;
        let cluster = Rc::new(Cluster::load(&file, &Environment::of_process())?);
        let launched = IDS.iter().map(|_| None).collect();
        Ok(Ring { cluster, dir, links, launched, _ports: ports })
    }

    /// Starts every node and waits until all serve.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        (0..IDS.len()).try_for_each(|node| self.launch(node))?;
        for node in 0..IDS.len() {
            self.ready(node).await?;
        }
        Ok(())
    }

    /// Starts the process of a node.
    pub(super) fn launch(&mut self, node: usize) -> Result<(), Failure> {
        let (Some(described), Some(place)) =
            (self.cluster.nodes.get(node), self.launched.get_mut(node))
        else {
            return Ok(());
        };
        let data_dir = self.dir.join("data");
        let config = self.dir.join(format!("{}.toml", described.id));
        *place = Some(launch(&Place { config, data_dir }, described, Tie::Owned)?);
        Ok(())
    }

    /// Waits until a node serves and has copied what it missed, and nobody suspects anybody.
    pub(super) async fn ready(&mut self, node: usize) -> Result<(), Failure> {
        let cluster = Rc::clone(&self.cluster);
        let Some(described) = cluster.nodes.get(node) else { return Ok(()) };
        let id = described.id;
        let end = Instant::now() + PATIENCE;
        let all = async {
            serves(&cluster, described).await;
            while !calm(&cluster, node).await {
                sleep(LOOK).await;
            }
        };
        tokio::pin!(all);
        loop {
            if timeout(LOOK, &mut all).await.is_ok() {
                return Ok(());
            }
            self.living()?;
            if Instant::now() > end {
                let what = format!("node {id} is not level again after {} s", PATIENCE.as_secs());
                return Err(Failure::new(what));
            }
        }
    }

    /// That no process has ended by itself.
    pub(super) fn living(&mut self) -> Result<(), Failure> {
        for launched in self.launched.iter_mut().flatten() {
            if let Some(status) = launched.child.try_wait()? {
                let (id, tail) = (launched.node.id, launched.tail());
                return Err(Failure::new(format!("node {id} {} by itself:{tail}", how(status))));
            }
        }
        Ok(())
    }

    /// `kill -9`; returns once the process is gone.
    pub(super) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        if let Some(mut launched) = self.launched.get_mut(node).and_then(Option::take) {
            launched.child.kill()?;
            launched.child.wait()?;
        }
        Ok(())
    }

    /// Sends a signal to a node's process, which is this one's child and has not been reaped.
    pub(super) fn signal(&self, node: usize, signal: Signal) -> Result<(), Failure> {
        let Some(Some(launched)) = self.launched.get(node) else { return Ok(()) };
        let pid = i32::try_from(launched.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(|error| {
            Failure::new(format!("cannot send {signal} to node {}: {error}", launched.node.id))
        })
    }

    /// Lets what goes between `node` and all others flow so.
    pub(super) fn flow(&self, node: usize, ways: Ways, flow: Flow) {
        let out = if ways == Ways::In { Flow::Open } else { flow };
        let into = if ways == Ways::Out { Flow::Open } else { flow };
        for link in &self.links {
            if link.from == node {
                link.set(out, into);
            } else if link.to == node {
                link.set(into, out);
            }
        }
    }

    /// Ends every process: SIGTERM, and SIGKILL for those still there after [`STOP_TIME`].
    pub(super) async fn stop(&mut self) {
        for node in 0..IDS.len() {
            // Err: it has ended already.
            let _ = self.signal(node, Signal::SIGTERM);
            let _ = self.signal(node, Signal::SIGCONT);
        }
        let end = Instant::now() + STOP_TIME;
        for launched in self.launched.iter_mut().flatten() {
            while Instant::now() < end && matches!(launched.child.try_wait(), Ok(None)) {
                sleep(LOOK).await;
            }
        }
        self.kill_all();
    }

    /// Ends every process at once.
    pub(super) fn kill_all(&mut self) {
        for mut launched in self.launched.iter_mut().filter_map(Option::take) {
            // Err: it has ended already.
            let _ = launched.child.kill();
            let _ = launched.child.wait();
        }
    }

    /// Removes the directory.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Whether `node` is level and every node trusts every other.
async fn calm(cluster: &Cluster, node: usize) -> bool {
    for (index, described) in cluster.nodes.iter().enumerate() {
        let Ok(Ok(page)) = timeout(ANSWER_TIME, status::ask(cluster, described)).await else {
            return false;
        };
        let suspects = page.nodes.iter().any(|row| row.standing == "suspected");
        if suspects || (index == node && !page.level) {
            return false;
        }
    }
    true
}

/// A port that nobody else gets as long as the socket lives.
pub(super) fn reserve() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok((socket, address))
}

/// The file with what the faults were and when, in `dir`.
pub(super) fn faults_file(dir: &Path) -> PathBuf {
    dir.join("faults.txt")
}
