//! Starting, striking and ending the servers that are measured.
//!
//! Every server listens on loopback ports that are free, below the range from which Linux takes ports of
//! outgoing connections: a killed server finds its own free again. Its data is in a directory that goes
//! with it. All processes end with this one, whatever ends it: on the way out by [`Servers`]' `Drop`, and
//! else by the kernel (`PR_SET_PDEATHSIG`).

use super::{Interrupt, alone};
use crate::{etcd, fill, plan::Protocol};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

/// Where free ports are looked for.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// The nodes of the ring.
pub const IDS: [u32; 5] = [5554, 5556, 5558, 5560, 5562];
/// How long servers may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to copy all that it lacks.
const LEVEL_TIME: Duration = Duration::from_secs(300);
/// How long a server may take to end when it is asked to.
const END_TIME: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Servers that are started together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Etcd,
    /// No persistence.
    Redis,
    /// `appendfsync always`.
    RedisAof,
    Ring {
        chain: bool,
        sync: bool,
    },
}

impl Group {
    pub const ALL: [Group; 7] = [
        Group::Etcd,
        Group::Redis,
        Group::RedisAof,
        Group::Ring { chain: false, sync: true },
        Group::Ring { chain: false, sync: false },
        Group::Ring { chain: true, sync: true },
        Group::Ring { chain: true, sync: false },
    ];

    pub fn name(self) -> &'static str {
        match self {
            Group::Etcd => "etcd",
            Group::Redis => "redis",
            Group::RedisAof => "redis-aof",
            Group::Ring { chain: false, sync: true } => "ring-sync",
            Group::Ring { chain: false, sync: false } => "ring-os",
            Group::Ring { chain: true, sync: true } => "chain-sync",
            Group::Ring { chain: true, sync: false } => "chain-os",
        }
    }

    pub fn is_ring(self) -> bool {
        matches!(self, Group::Ring { .. })
    }

    fn protocol(self) -> Protocol {
        if self == Group::Etcd { Protocol::Etcd } else { Protocol::Redis }
    }

    fn servers(self) -> usize {
        if self.is_ring() { IDS.len() } else { 3 }
    }
}

/// Servers that run, and their data.
pub struct Servers {
    pub group: Group,
    /// Where clients connect.
    pub addresses: Vec<SocketAddr>,
    pub protocol: Protocol,
    /// Redis Sentinels, after [`Servers::start_sentinels`].
    pub sentinels: Vec<SocketAddr>,
    dynamo: PathBuf,
    dir: PathBuf,
    ports: Vec<u16>,
    children: Vec<Option<Child>>,
    interrupt: Interrupt,
}

impl Servers {
    /// Starts all servers of a group on an empty directory and waits until each takes a write. `limits`:
    /// lines of the ring's `[limits]`.
    pub fn start(
        group: Group,
        dynamo: &Path,
        dir: &Path,
        limits: &str,
        interrupt: &Interrupt,
    ) -> io::Result<Servers> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        let ports = free_ports(3 * IDS.len())?;
        let asked =
            if group.protocol() == Protocol::Etcd || group.is_ring() { group.servers() } else { 1 };
        let mut servers = Servers {
            group,
            addresses: ports.iter().take(asked).map(|port| local(*port)).collect(),
            protocol: group.protocol(),
            sentinels: Vec::new(),
            dynamo: dynamo.to_owned(),
            dir: dir.to_owned(),
            ports,
            children: Vec::new(),
            interrupt: interrupt.clone(),
        };
        if let Group::Ring { chain, sync } = group {
            fs::write(dir.join("cluster.toml"), servers.cluster(chain, sync, limits))?;
        }
        servers.launch_all()?;
        Ok(servers)
    }

    /// Starts all with the data that is there.
    pub fn launch_all(&mut self) -> io::Result<()> {
        self.children = (0..self.group.servers()).map(|_| None).collect();
        for at in 0..self.group.servers() {
            self.launch(at)?;
        }
        self.ready()
    }

    /// Starts one server.
    pub fn launch(&mut self, at: usize) -> io::Result<()> {
        let command = match self.group {
            Group::Etcd => self.etcd(at),
            Group::Redis | Group::RedisAof => self.redis(at)?,
            Group::Ring { .. } => {
                let mut command = Command::new(&self.dynamo);
                command.arg("node").arg(IDS[at].to_string());
                command.arg("--config").arg(self.dir.join("cluster.toml"));
                command.arg("--data-dir").arg(self.dir.join("data"));
                command
            }
        };
        self.children[at] = Some(self.spawn(command, &at.to_string())?);
        Ok(())
    }

    fn spawn(&self, mut command: Command, name: &str) -> io::Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(name.to_owned() + ".log"))?;
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C is for this process, which then ends the others.
        command.process_group(0);
        // SAFETY: one system call, which allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| {
                let signal = Some(rustix::process::Signal::KILL);
                Ok(rustix::process::set_parent_process_death_signal(signal)?)
            });
        }
        let program = command.get_program().display().to_string();
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))
    }

    fn etcd(&self, at: usize) -> Command {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let members: Vec<_> = (0..3).map(|i| format!("n{i}={}", url(self.ports[i + 3]))).collect();
        let (client, peer) = (url(self.ports[at]), url(self.ports[at + 3]));
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("n{at}"), "--log-level", "error"]);
        command.arg("--data-dir").arg(self.dir.join(at.to_string()));
        // Only a bound on the file; the default of 2 GiB would end long runs.
        command.args(["--quota-backend-bytes", "8589934592"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
        command
    }

    fn redis(&self, at: usize) -> io::Result<Command> {
        let dir = self.dir.join(at.to_string());
        fs::create_dir_all(&dir)?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.ports[at].to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(dir).args(["--save", "", "--maxclients", "10000"]);
        command.args(["--repl-diskless-sync-delay", "0"]);
        if self.group == Group::RedisAof {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        if at > 0 {
            command.args(["--replicaof", "127.0.0.1", &self.ports[0].to_string()]);
        }
        Ok(command)
    }

    fn cluster(&self, chain: bool, sync: bool, limits: &str) -> String {
        let mut text = format!(
            "replication = \"{}\"\ndurability = \"{}\"\n",
            if chain { "chain" } else { "quorum" },
            if sync { "sync" } else { "os" }
        );
        if !limits.is_empty() {
            let _ = writeln!(text, "[limits]\n{limits}");
        }
        for (at, id) in IDS.iter().enumerate() {
            let [client, peer, http] = [at, at + 5, at + 10].map(|at| local(self.ports[at]));
            let _ = writeln!(
                text,
                "[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nhttp = \"{http}\""
            );
        }
        text
    }

    /// Waits until every server takes a write, and Redis' replicas follow.
    pub fn ready(&mut self) -> io::Result<()> {
        let (protocol, addresses) = (self.protocol, self.addresses.clone());
        self.wait_for(PATIENCE, "takes writes", |_, interrupt| {
            addresses.iter().try_for_each(|at| alone(interrupt, fill::takes_writes(protocol, *at)))
        })?;
        if self.group.is_ring() || self.protocol == Protocol::Etcd {
            return Ok(());
        }
        let master = self.addresses[0];
        self.wait_for(PATIENCE, "has two replicas", |_, _| {
            let told = ask(master, "INFO replication\r\nQUIT\r\n")?;
            let online = told.matches("state=online").count();
            if online == 2 { Ok(()) } else { Err(io::Error::other(format!("{online} replicas"))) }
        })
    }

    /// Asks until there is no error; the last one when the patience ends, or at once where a server died.
    fn wait_for<T>(
        &mut self,
        patience: Duration,
        what: &str,
        mut look: impl FnMut(&Servers, &Interrupt) -> io::Result<T>,
    ) -> io::Result<T> {
        let until = Instant::now() + patience;
        let interrupt = self.interrupt.clone();
        loop {
            let why = match look(self, &interrupt) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            interrupt.check()?;
            self.check()?;
            if Instant::now() > until {
                let name = self.group.name();
                return Err(io::Error::other(format!(
                    "{name}: nobody {what} in {patience:?}: {why}"
                )));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// An error with the last lines of its log where a server has ended by itself.
    pub fn check(&mut self) -> io::Result<()> {
        for (at, child) in self.children.iter_mut().enumerate() {
            let Some(ended) = child.as_mut().map(Child::try_wait).transpose()?.flatten() else {
                continue;
            };
            let log = fs::read_to_string(self.dir.join(format!("{at}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(5).collect();
            let lines: Vec<_> = lines.into_iter().rev().collect();
            return Err(io::Error::other(format!(
                "server {at} of {} ended by itself ({ended}):\n{}",
                self.group.name(),
                lines.join("\n")
            )));
        }
        Ok(())
    }

    /// Processes that run; Sentinels are none of those that do the work.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().take(self.group.servers()).flatten().map(Child::id).collect()
    }

    pub fn pid(&self, at: usize) -> Option<u32> {
        self.children.get(at)?.as_ref().map(Child::id)
    }

    /// What the report calls one server.
    pub fn title(&self, at: usize) -> String {
        match self.group {
            Group::Ring { .. } => format!("node {}", IDS[at]),
            Group::Etcd => format!("server {at}"),
            Group::Redis | Group::RedisAof if at == 0 => "master".to_owned(),
            Group::Redis | Group::RedisAof => format!("replica {at}"),
        }
    }

    /// The place of the server that leads: the one whose loss is felt. Rings have none.
    pub fn leader(&self) -> io::Result<usize> {
        match self.group {
            Group::Etcd => alone(&self.interrupt, etcd::leader(&self.addresses)),
            _ => Ok(0),
        }
    }

    /// Kills a server unless it is dead, and waits for its end.
    pub fn kill(&mut self, at: usize) -> io::Result<()> {
        if let Some(mut child) = self.children.get_mut(at).and_then(Option::take) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Lets a stopped server go on.
    pub fn resume(&self, at: usize) -> io::Result<()> {
        signal(self.pid(at), rustix::process::Signal::CONT)
    }

    /// Removes the data of a node of a ring that is dead.
    pub fn wipe(&self, at: usize) -> io::Result<()> {
        fs::remove_dir_all(self.dir.join("data").join(IDS[at].to_string()))
    }

    /// Ends all servers as a person would; their data stays.
    pub fn stop(&mut self) -> io::Result<()> {
        for at in 0..self.children.len() {
            signal(self.pid(at), rustix::process::Signal::TERM)?;
        }
        let until = Instant::now() + END_TIME;
        for child in self.children.iter_mut().flatten() {
            while child.try_wait()?.is_none() {
                if Instant::now() > until {
                    child.kill()?;
                }
                std::thread::sleep(LOOK);
            }
        }
        self.children.clear();
        Ok(())
    }

    /// Resident memory of a server, bytes.
    pub fn resident(&self, at: usize) -> io::Result<u64> {
        let gone = || io::Error::other("a server is gone");
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid(at).ok_or_else(gone)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kilobytes.ok_or_else(gone)? * 1024)
    }

    /// What a node of a ring says of itself.
    pub fn status(&self, at: usize) -> io::Result<serde_json::Value> {
        let told = ask(local(self.ports[at + 10]), "GET /status HTTP/1.0\r\n\r\n")?;
        let (_, body) = told.split_once("\r\n\r\n").unwrap_or_default();
        Ok(serde_json::from_str(body)?)
    }

    /// Waits until a node of a ring serves, holds all it had missed and every node trusts every other.
    pub fn level(&mut self, at: usize) -> io::Result<serde_json::Value> {
        self.wait_for(LEVEL_TIME, "is level", |servers, _| {
            for (other, id) in IDS.iter().enumerate() {
                let status = servers.status(other)?;
                let rows = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
                let suspects = rows.iter().any(|row| row["standing"] == "suspected");
                if suspects || status["phase"] != "serving" || status["level"] != true {
                    return Err(io::Error::other(format!("node {id} is not level")));
                }
            }
            servers.status(at)
        })
    }

    /// Starts three Sentinels that take the master for dead after a second of silence.
    pub fn start_sentinels(&mut self) -> io::Result<()> {
        self.sentinels = self.ports[3..6].iter().map(|port| local(*port)).collect();
        for at in 3..6 {
            let conf = self.dir.join(format!("sentinel{at}.conf"));
            let text = format!(
                "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor bench 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds bench 1000\nsentinel failover-timeout bench 5000\n",
                self.ports[at],
                self.dir.display(),
                self.ports[0]
            );
            fs::write(&conf, text)?;
            let mut command = Command::new("redis-server");
            command.arg(conf).arg("--sentinel");
            let child = self.spawn(command, &at.to_string())?;
            self.children.push(Some(child));
        }
        self.wait_for(PATIENCE, "knows the other Sentinels", |servers, _| {
            for sentinel in &servers.sentinels {
                let told =
                    ask(*sentinel, "SENTINEL MASTER bench\r\nQUIT\r\n")?.replace("\r\n", " ");
                if !told.contains("num-slaves $1 2") || !told.contains("num-other-sentinels $1 2") {
                    return Err(io::Error::other("the Sentinels do not know all"));
                }
            }
            Ok(())
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // SIGKILL ends a stopped process too. Its data is removed: nobody waits for it to be saved.
            let _ = child.kill();
        }
        for child in self.children.iter_mut().flatten() {
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn signal(pid: Option<u32>, signal: rustix::process::Signal) -> io::Result<()> {
    let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    match pid {
        Some(pid) => Ok(rustix::process::kill_process(pid, signal)?),
        None => Ok(()),
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Ports that are free now; all are held until the last is known, so that no two are the same.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    // Two that look at the same time begin at different places.
    let begin = PORTS.start + (std::process::id() * 37 % PORTS.len() as u32) as u16;
    let all = (begin..PORTS.end).chain(PORTS.start..begin);
    let held = all.filter_map(|port| TcpListener::bind(local(port)).ok()).take(count);
    let held: Vec<_> = held.collect();
    if held.len() < count {
        return Err(io::Error::other(format!("fewer than {count} ports of {PORTS:?} are free")));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Sends a request and reads what comes until the peer closes or is silent.
fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.write_all(request.as_bytes())?;
    let mut told = Vec::new();
    let ended = stream.read_to_end(&mut told);
    match ended {
        // What has come is in `told`.
        Err(error) if told.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&told).into_owned()),
    }
}
