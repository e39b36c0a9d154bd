//! One node, from start to signal.
//!
//! In this order: the directory and its pid file (so two processes never share a store), the client
//! and http listeners (so a port in use is found at once, before the store is opened), the node, its
//! front ends. SIGTERM and SIGINT end it in the opposite order; a second signal ends it at once.
//!
//! Caveat: a client that connects while the node starts waits in the listener's queue for the few
//! milliseconds until the front end is there, and then may be answered `-LOADING`.

use crate::{
    config::{Cluster, ConfigError, Node, node_dir},
    http,
    pidfile::{Claimed, PidFile},
    resp::{self, ClientSettings},
};
use simpledynamo_actors::{bridge::net::Tcp, flow::Reader, node};
use simpledynamo_protocol::ring::NodeId;
use std::{fmt, io, net::SocketAddr, path::Path};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinSet},
};

/// Why a node could not be started or did not end well.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration.
    Config(ConfigError),
    /// Anything else: what is wrong, and the mend.
    Other(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Config(error) => error.fmt(f),
            ServeError::Other(what) => what.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> ServeError {
        ServeError::Config(error)
    }
}

/// Runs node `id` in `data_dir/ID` until SIGTERM or SIGINT. To be called inside an actix `System`.
///
/// # Errors
/// It could not be started, or an end of it failed; the message has the mend.
pub async fn run(cluster: &Cluster, id: NodeId, data_dir: &Path) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(|error| other("cannot listen to signals", &error))?;
    let me = *cluster.node(id)?;
    let settings = cluster.settings(id, data_dir)?;
    let _pid_file = claim(id, &node_dir(data_dir, id))?;
    let clients = bind(me.client, "client", id)?;
    let pages = bind(me.http, "http", id)?;

    let started = tokio::select! {
        started = node::start(Tcp, settings.clone()) => started,
        () = signals.next() => return Ok(()),
    };
    let (handle, mut stopper) =
        started.map_err(|error| other(&format!("node {id} cannot start"), &error))?;
    let (stop, stopped) = watch::channel(false);
    let pages_settings = http::HttpSettings {
        me: id,
        ring: settings.ring.clone(),
        nodes: cluster.nodes.clone(),
        password: cluster.password.clone(),
    };
    if settings.workers > 0 {
        log::info!("keys are spread over {} workers", handle.execute.count());
    }
    let asked = http::Asked::from(&handle);
    let flow = handle.flow.clone();
    write_flow_on_panic(flow.clone());
    let client_settings = ClientSettings {
        limits: settings.limits,
        password: cluster.password.clone().map(|password| password.0),
        ring: settings.ring,
        me: id,
        write_quorum: settings.write_quorum,
    };
    let mut fronts = JoinSet::new();
    fronts.spawn_local(resp::serve(clients, handle, client_settings, stopped.clone()));
    fronts.spawn_local(http::serve(pages, asked, pages_settings, stopped));
    let Node { client, peer, http, .. } = me;
    log::info!("node {id} is up: clients on {client}, peers on {peer}, http on {http}");

    let end = tokio::select! {
        () = signals.next() => Ok(()),
        // No orderly stop: it would note that all was kept, and the store has just said otherwise.
        why = stopper.failed() => {
            flow.crash("the node ended itself");
            return Err(ServeError::Other(format!("node {id} ended: {why}")));
        }
        Some(early) = fronts.join_next() => Err(ended_early(early)),
    };
    log::info!("stopping");
    stop.send_replace(true);
    let orderly = async {
        while fronts.join_next().await.is_some() {}
        stopper.stop().await;
    };
    tokio::select! {
        () = orderly => log::info!("stopped"),
        () = signals.next() => log::warn!("a second signal: stopping at once"),
    }
    end
}

/// Has a panic, which ends the process, write down what is remembered of recent requests.
fn write_flow_on_panic(flow: Reader) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        flow.crash("a panic");
    }));
}

/// A front end has ended although nobody asked it to: half a node must not live on.
fn ended_early(how: Result<io::Result<()>, JoinError>) -> ServeError {
    match how {
        Ok(Ok(())) => ServeError::Other("a front end ended by itself".to_owned()),
        Ok(Err(error)) => other("a front end ended", &error),
        Err(error) => other("a front end broke", &error),
    }
}

fn other(what: &str, error: &dyn fmt::Display) -> ServeError {
    ServeError::Other(format!("{what}: {error}"))
}

fn claim(id: NodeId, dir: &Path) -> Result<PidFile, ServeError> {
    std::fs::create_dir_all(dir).map_err(|error| {
        let what = "choose a directory that can be written with --data-dir DIR";
        ServeError::Other(format!("cannot create {}: {error}: {what}", dir.display()))
    })?;
    let path = dir.join("pid");
    PidFile::claim(&path).map_err(|claimed| match claimed {
        Claimed::By(pid) => {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            ServeError::Other(format!(
                "node {id} is already running in {}{pid}: stop that one first, or choose another \
                 directory with --data-dir DIR",
                dir.display()
            ))
        }
        Claimed::Io(error) => other(&format!("cannot claim {}", path.display()), &error),
    })
}

fn bind(address: SocketAddr, purpose: &str, id: NodeId) -> Result<TcpListener, ServeError> {
    listen(address).map_err(|error| ServeError::Other(cannot_bind(address, purpose, id, &error)))
}

/// Connections that may wait to be accepted; the kernel takes no more than `net.core.somaxconn`. With
/// the 128 of `TcpListener::bind` a burst of some hundred clients loses first packets, and those who
/// sent them wait for a second before they try again.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What to tell when a node's address cannot be listened on.
#[must_use]
pub fn cannot_bind(address: SocketAddr, purpose: &str, id: NodeId, error: &io::Error) -> String {
    let whose = format!("the {purpose} address {address} of node {id}");
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{whose} is in use by another process: stop that process (`ss -ltnp 'sport = :{}'` \
             names it) or give the node another port in the configuration",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => format!(
            "{whose} is not one of this machine: start that node where it is, with `dynamo node \
             {id}`"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "{whose} may not be listened on: ports below 1024 need privileges, choose a higher one"
            )
        }
        _ => format!("{whose} cannot be listened on: {error}"),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
