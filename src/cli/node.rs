//! `node ID`: one node in the foreground.

use super::{Failure, Place};
use crate::{config::Cluster, logger, serve};
use clap::Args;
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd,
};
use simpledynamo_protocol::ring::NodeId;

/// Open files beside the clients' connections: the store's segments, peers, http, the log.
const FILES_BESIDE: u64 = 1024;

/// `node`
#[derive(Args, Debug)]
pub(super) struct NodeArguments {
    /// The node's id, such as 5554.
    id: NodeId,
    /// End when this process ends: how `up` leaves no nodes behind, however it dies.
    #[arg(long, hide = true, value_name = "PID")]
    owner: Option<i32>,
    /// Leave the terminal's session: how `start` starts a node that outlives the terminal.
    #[arg(long, hide = true)]
    detached: bool,
}

/// Runs the node until a signal.
pub(super) fn run(
    cluster: &Cluster,
    place: &Place,
    arguments: &NodeArguments,
) -> Result<(), Failure> {
    cluster.node(arguments.id)?;
    logger::init(cluster.level, arguments.id);
    if arguments.detached {
        unistd::setsid().map_err(|error| Failure::new(format!("cannot detach: {error}")))?;
    }
    if let Some(owner) = arguments.owner {
        follow(owner)?;
    }
    raise_open_files(cluster.limits.clients);
    let system = actix::System::new();
    Ok(system.block_on(serve::run(cluster, arguments.id, &place.data_dir))?)
}

/// Asks the kernel for a SIGTERM when `owner`, the parent, ends.
fn follow(owner: i32) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGTERM)
        .map_err(|error| Failure::new(format!("cannot follow process {owner}: {error}")))?;
    // It may have ended before the call: then the kernel has nothing to tell any more.
    if unistd::getppid().as_raw() != owner {
        return Err(Failure::new(format!("process {owner}, which started this node, has ended")));
    }
    Ok(())
}

/// Lets this process open as many files as its clients may need: the usual bound is 1,024.
fn raise_open_files(clients: usize) {
    let wanted = (clients as u64).saturating_add(FILES_BESIDE);
    let raise = || {
        let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let to = wanted.min(most).max(now);
        setrlimit(Resource::RLIMIT_NOFILE, to, most).map(|()| to)
    };
    match raise() {
        Ok(files) if files < wanted => log::warn!(
            "{clients} clients need {wanted} open files and the system allows {files}: raise \
             `ulimit -Hn` or lower limits.clients"
        ),
        Ok(_) => {}
        Err(error) => log::warn!("cannot raise the number of open files: {error}"),
    }
}
