//! Five real processes in a temporary directory.
//!
//! Ports are chosen by the operating system and kept for the whole test: a socket stays bound to
//! each without listening, so that no outgoing connection takes the port while its node is dead. The
//! node binds it too, as both set `SO_REUSEADDR`. One ring lives at a time: two cores do not bear
//! more, and a test must not wait for another's disk.
//!
//! The processes end on drop, with SIGKILL. Where `setpriv` is installed the kernel ends them too
//! when the thread that started them dies, so a killed test leaves nothing behind; nodes are
//! therefore started by the test's own thread only.

use super::{
    resp::{Answer, Client},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use simpledynamo_protocol::ring::{NodeId, Ring};
use socket2::{Domain, Socket, Type};
use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tempfile::TempDir;

/// The shipped ids.
pub const IDS: [u32; 5] = [5554, 5556, 5558, 5560, 5562];

/// Lines of each node's log that a failed test prints.
const LOG_LINES: usize = 40;

const SETPRIV: &str = "/usr/bin/setpriv";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What clients may know of a node.
pub struct Door {
    pub id: u32,
    pub address: SocketAddr,
    /// Whether it is there for clients: cleared before it is killed, set once it answers.
    pub open: AtomicBool,
    /// How often it was killed; raised before it is.
    pub kills: AtomicU32,
}

impl Door {
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address).unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }
}

/// The ring. Node `i` is the one of `IDS[i]`.
pub struct Processes {
    dir: TempDir,
    doors: Arc<[Door]>,
    children: Vec<Option<Child>>,
    _ports: Vec<Socket>,
    _turn: MutexGuard<'static, ()>,
}

impl Processes {
    /// Starts five nodes with empty directories and waits until all answer.
    pub fn start(replication: &str) -> Processes {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let ports: Vec<Socket> = (0..3 * IDS.len()).map(|_| reserve()).collect();
        let addresses: Vec<SocketAddr> =
            ports.iter().map(|port| port.local_addr().unwrap().as_socket().unwrap()).collect();
        let mut text = format!("replication = \"{replication}\"\n");
        for (id, [client, peer, http]) in IDS.iter().zip(addresses.as_chunks().0) {
            writeln!(
                text,
                "\n[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\""
            )
            .unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cluster.toml"), text).unwrap();
        let doors = IDS.iter().zip(addresses.as_chunks().0).map(|(id, [client, _, _])| Door {
            id: *id,
            address: *client,
            open: AtomicBool::new(false),
            kills: AtomicU32::new(0),
        });
        let mut ring = Processes {
            dir,
            doors: doors.collect(),
            children: IDS.iter().map(|_| None).collect(),
            _ports: ports,
            _turn: turn,
        };
        ring.spawn_all();
        ring
    }

    /// The nodes as clients see them.
    pub fn doors(&self) -> Arc<[Door]> {
        Arc::clone(&self.doors)
    }

    /// A connection to node `node`.
    pub fn client(&self, node: usize) -> Client {
        self.doors[node].connect()
    }

    /// Starts every node at once, then waits until all answer.
    pub fn spawn_all(&mut self) {
        (0..IDS.len()).for_each(|node| self.spawn(node));
        (0..IDS.len()).for_each(|node| self.wait_ready(node));
    }

    /// Starts a node that is not running and waits until it answers.
    pub fn restart(&mut self, node: usize) {
        self.spawn(node);
        self.wait_ready(node);
    }

    fn spawn(&mut self, node: usize) {
        assert!(self.children[node].is_none(), "{} is running", IDS[node]);
        let dynamo = env!("CARGO_BIN_EXE_dynamo");
        let mut command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", "KILL", dynamo]);
            command
        } else {
            Command::new(dynamo)
        };
        let log = self.dir.path().join(format!("{}.log", IDS[node]));
        let log = File::options().create(true).append(true).open(log).unwrap();
        command
            .args(["node", &IDS[node].to_string(), "--config"])
            .arg(self.dir.path().join("cluster.toml"))
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .env_remove("DYNAMO_SECRET")
            .env_remove("DYNAMO_PASSWORD")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.children[node] = Some(command.spawn().unwrap());
    }

    /// Waits until a node answers PING and reads through a quorum, and opens its door.
    fn wait_ready(&mut self, node: usize) {
        let address = self.doors[node].address;
        let child = self.children[node].as_mut().unwrap();
        wait(&format!("{} answers", IDS[node]), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{} ended while it started: {status}", IDS[node]);
            }
            let mut client = Client::connect(address).ok()?;
            let pong = client.call(&["PING"]).ok()?;
            let read = client.call(&["GET", "no such key"]).ok()?;
            (pong == Answer::Simple("PONG".into()) && read == Answer::Nil).then_some(())
        });
        self.doors[node].open.store(true, Ordering::SeqCst);
    }

    /// `kill -9` of several nodes at once.
    pub fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.doors[*node].kills.fetch_add(1, Ordering::SeqCst);
            self.doors[*node].open.store(false, Ordering::SeqCst);
        }
        nodes.iter().for_each(|node| self.signal(*node, Signal::SIGKILL));
        for node in nodes {
            self.children[*node].take().unwrap().wait().unwrap();
        }
    }

    /// SIGSTOP: the node is there and does nothing.
    pub fn pause(&mut self, node: usize) {
        self.signal(node, Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self, node: usize) {
        self.signal(node, Signal::SIGCONT);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let child = self.children[node].as_ref().unwrap();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The nodes of a key, by the definition of the ring.
    pub fn holders(key: &str) -> Vec<usize> {
        let ring = Ring::new(IDS.map(NodeId), 3);
        let ids = ring.replicas_of(key.as_bytes());
        ids.iter().map(|id| IDS.iter().position(|other| *other == id.0).unwrap()).collect()
    }

    /// Waits until the three nodes that `DYNAMO WHERE` names hold the same of each key: value,
    /// version and ballot.
    pub fn wait_equal<'a>(&self, keys: impl IntoIterator<Item = &'a String>) {
        let mut clients: Vec<Client> = (0..IDS.len()).map(|node| self.client(node)).collect();
        for key in keys {
            let holders = Processes::holders(key);
            let named = clients[0].call(&["DYNAMO", "WHERE", key]).unwrap().array();
            let expected = holders.iter().map(|node| Answer::Int(IDS[*node].into()));
            assert_eq!(named, expected.collect::<Vec<_>>(), "DYNAMO WHERE {key}");
            let mut seen = Vec::new();
            let end = std::time::Instant::now() + super::PATIENCE;
            loop {
                seen.clear();
                for node in &holders {
                    seen.push(clients[*node].call(&["DYNAMO", "LOCAL", key]).unwrap());
                }
                if seen.iter().all(|copy| *copy == seen[0]) {
                    break;
                }
                assert!(std::time::Instant::now() < end, "the replicas of {key} differ: {seen:?}");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }

    /// The last lines of every node's log.
    fn logs(&self) -> String {
        let mut text = String::new();
        for id in IDS {
            let log = fs::read_to_string(self.dir.path().join(format!("{id}.log")));
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            writeln!(text, "--- {id} ---\n{}", lines[from..].join("\n")).unwrap();
        }
        text
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// A port that nobody else gets as long as the socket lives.
fn reserve() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket
}
