//! The processes of a ring, in a directory of their own, behind proxies.
//!
//! Ports are chosen by the system and stay bound, without listening, to the end: no outgoing
//! connection takes the port of a node that is down, and the node binds it beside (`SO_REUSEADDR`).
//! Each node has a configuration of its own, in which its peers' addresses are those of its proxies.
//!
//! Processes are children of this one and are ended by their pids. Should this process be killed, or
//! the thread that started them end, the kernel ends them (`--owner`); a node that is paused at that
//! moment ends when it goes on.

use super::proxy::{Flow, Links};
use crate::{
    cli::{
        Failure, Place,
        launch::{Launched, Tie, how, launch_program, serves},
        status,
    },
    config::{Cluster, Environment},
    http::StatusPage,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};
use std::{
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The shipped ids.
pub(crate) const IDS: [u32; 5] = [5554, 5556, 5558, 5560, 5562];
/// How long a node may take to serve, and to be level again: far above what a healthy one needs on a
/// busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to end by itself.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long a node may take to say how it is.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// How often it is looked whether something has come to pass.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// What a ring is made of.
pub(crate) struct Plan {
    /// Of the directory's name.
    pub(crate) name: &'static str,
    /// The binary `dynamo`.
    pub(crate) program: PathBuf,
    /// The nodes' ids.
    pub(crate) ids: Vec<u32>,
    /// What stands in every cluster.toml above the nodes.
    pub(crate) settings: String,
    /// Decides how late slow links are.
    pub(crate) seed: u64,
}

/// Processes and the links between them. Nodes are counted from 0, in the order of the ids given.
pub(crate) struct Fleet {
    /// As clients see it: true addresses.
    pub(crate) cluster: Rc<Cluster>,
    /// Where everything is.
    pub(crate) dir: PathBuf,
    program: PathBuf,
    links: Links,
    launched: Vec<Option<Launched>>,
    /// Killed, not yet known to be gone.
    dying: Vec<Option<Launched>>,
    wiped: u32,
    _ports: Vec<Socket>,
}

impl Fleet {
    /// Writes the configurations and starts the proxies; no node yet.
    pub(crate) fn new(plan: Plan) -> Result<Fleet, Failure> {
        let dir = directory(plan.name)?;
        Fleet::within(dir.clone(), plan).inspect_err(|_| {
            // Err: what remains of it has nothing to tell.
            let _ = fs::remove_dir_all(dir);
        })
    }

    fn within(dir: PathBuf, plan: Plan) -> Result<Fleet, Failure> {
        let Plan { program, ids, settings, seed, .. } = plan;
        let (mut ports, mut nodes) = (Vec::new(), Vec::new());
        for _ in &ids {
            let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 3];
            for address in &mut addresses {
                let (socket, bound) = reserve()?;
                ports.push(socket);
                *address = bound;
            }
            nodes.push(addresses);
        }
        let peers: Vec<SocketAddr> = nodes.iter().map(|[_, peer, _]| *peer).collect();
        let links = Links::start(&peers, seed)?;
        let describe = |of: Option<usize>| {
            let mut text = format!("{settings}\n");
            for (to, (id, [client, peer, http])) in ids.iter().zip(&nodes).enumerate() {
                let proxy = links.all.iter().find(|link| Some(link.from) == of && link.to == to);
                let peer = proxy.map_or(*peer, |link| link.address);
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\"\n"
                );
            }
            text
        };
        for (from, id) in ids.iter().enumerate() {
            fs::write(dir.join(format!("{id}.toml")), describe(Some(from)))?;
        }
        let file = dir.join("cluster.toml");
        fs::write(&file, describe(None))?;
        let cluster = Rc::new(Cluster::load(&file, &Environment::of_process())?);
        let none = || ids.iter().map(|_| None).collect();
        let (launched, dying) = (none(), none());
        Ok(Fleet { cluster, dir, program, links, launched, dying, wiped: 0, _ports: ports })
    }

    /// Starts every node and waits until all serve.
    pub(crate) async fn start(&mut self) -> Result<(), Failure> {
        (0..self.launched.len()).try_for_each(|node| self.launch(node))?;
        for node in 0..self.launched.len() {
            self.ready(node).await?;
        }
        Ok(())
    }

    /// Starts the process of a node.
    pub(crate) fn launch(&mut self, node: usize) -> Result<(), Failure> {
        self.reap(node)?;
        let (Some(described), Some(place)) =
            (self.cluster.nodes.get(node), self.launched.get_mut(node))
        else {
            return Ok(());
        };
        let data_dir = self.dir.join("data");
        let config = self.dir.join(format!("{}.toml", described.id));
        let where_it_is = Place { config, data_dir };
        *place = Some(launch_program(&self.program, &where_it_is, described, Tie::Owned)?);
        Ok(())
    }

    /// Waits until the killed process of a node is gone.
    pub(crate) fn reap(&mut self, node: usize) -> Result<(), Failure> {
        if let Some(mut dying) = self.dying.get_mut(node).and_then(Option::take) {
            dying.child.wait()?;
        }
        Ok(())
    }

    /// Takes the directory of a node that is down away; it stays beside, for whoever looks.
    pub(crate) fn wipe(&mut self, node: usize) -> Result<(), Failure> {
        let Some(described) = self.cluster.nodes.get(node) else { return Ok(()) };
        let data = self.dir.join("data");
        let (from, id) = (data.join(described.id.to_string()), described.id);
        self.wiped += 1;
        match fs::rename(from, data.join(format!("{id}.wiped-{}", self.wiped))) {
            // It never ran.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether a node has a process.
    pub(crate) fn is_running(&self, node: usize) -> bool {
        self.launched.get(node).is_some_and(Option::is_some)
    }

    /// Waits until a node serves and has copied what it missed, and nobody suspects anybody.
    pub(crate) async fn ready(&mut self, node: usize) -> Result<(), Failure> {
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
    pub(crate) fn living(&mut self) -> Result<(), Failure> {
        for launched in self.launched.iter_mut().flatten() {
            if let Some(status) = launched.child.try_wait()? {
                let (id, tail) = (launched.node.id, launched.tail());
                return Err(Failure::new(format!("node {id} {} by itself:{tail}", how(status))));
            }
        }
        Ok(())
    }

    /// `kill -9`; it does not wait until the process is gone.
    pub(crate) fn kill(&mut self, node: usize) -> Result<(), Failure> {
        let (Some(launched), Some(dying)) = (self.launched.get_mut(node), self.dying.get_mut(node))
        else {
            return Ok(());
        };
        if let Some(launched) = launched {
            launched.child.kill()?;
        }
        if let Some(launched) = launched.take() {
            *dying = Some(launched);
        }
        Ok(())
    }

    /// Sends a signal to a node's process, which is this one's child and has not been reaped.
    pub(crate) fn signal(&self, node: usize, signal: Signal) -> Result<(), Failure> {
        let Some(Some(launched)) = self.launched.get(node) else { return Ok(()) };
        let pid = i32::try_from(launched.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), signal).map_err(|error| {
            Failure::new(format!("cannot send {signal} to node {}: {error}", launched.node.id))
        })
    }

    /// Changes how what `from` says to `to` flows: the bytes it sends where it dialed, and those it
    /// sends back where it was dialed.
    pub(crate) fn flow(&self, from: usize, to: usize, change: impl Fn(&mut Flow)) {
        for link in &self.links.all {
            if (link.from, link.to) == (from, to) {
                link.forward.send_modify(&change);
            } else if (link.from, link.to) == (to, from) {
                link.backward.send_modify(&change);
            }
        }
    }

    /// Changes how everything flows.
    pub(crate) fn flow_all(&self, change: impl Fn(&mut Flow)) {
        for link in &self.links.all {
            link.forward.send_modify(&change);
            link.backward.send_modify(&change);
        }
    }

    /// Late bytes of what `from` says to `to`.
    pub(crate) fn latency(&self, from: usize, to: usize, range: &Range<Duration>) {
        self.flow(from, to, |flow| flow.late = range.clone());
    }

    /// Ends every process: SIGTERM, and SIGKILL for those still there after [`STOP_TIME`].
    pub(crate) async fn stop(&mut self) {
        for node in 0..self.launched.len() {
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
    pub(crate) fn kill_all(&mut self) {
        let all = self.launched.iter_mut().chain(&mut self.dying);
        for mut launched in all.filter_map(Option::take) {
            // Err: it has ended already.
            let _ = launched.child.kill();
            let _ = launched.child.wait();
        }
    }

    /// Removes the directory.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// What a node says of itself; none where it does not in time.
pub(crate) async fn status_of(cluster: &Cluster, node: usize) -> Option<StatusPage> {
    let described = cluster.nodes.get(node)?;
    timeout(ANSWER_TIME, status::ask(cluster, described)).await.ok()?.ok()
}

/// Whether `node` is level and every node trusts every other.
pub(crate) async fn calm(cluster: &Cluster, node: usize) -> bool {
    for index in 0..cluster.nodes.len() {
        let Some(page) = status_of(cluster, index).await else { return false };
        let suspects = page.nodes.iter().any(|row| row.standing == "suspected");
        if suspects || (index == node && !page.level) {
            return false;
        }
    }
    true
}

/// A directory that nobody else has.
fn directory(name: &str) -> Result<PathBuf, Failure> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("dynamo-{name}-{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    match fs::create_dir(&dir) {
        Ok(()) => Ok(dir),
        Err(error) => Err(Failure::new(format!("cannot make {}: {error}", dir.display()))),
    }
}

/// A port that nobody else gets as long as the socket lives.
pub(crate) fn reserve() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok((socket, address))
}
