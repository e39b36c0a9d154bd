//! The command line: one subcommand a file.
//!
//! Results go to standard output, all else to standard error. Exit codes: 0, 1 where something
//! failed, 2 where the command line or the configuration is wrong; with 2 nothing was started.
//! clap, because it checks, completes and documents arguments as people expect it.
//!
//! Shared parts: `launch` starts node processes and waits for them, `client` is a small RESP
//! client, `out` prints.

mod accept_loss;
mod check;
mod check_config;
pub(crate) mod client;
mod data;
mod flow;
pub(crate) mod launch;
mod node;
pub(crate) mod out;
mod signal;
mod simulate;
mod start;
pub(crate) mod status;
mod top;
mod torture;
mod up;

use crate::{
    config::{Cluster, ConfigError, Environment, node_dir},
    serve::ServeError,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use simpledynamo_actors::settings::Replication;
use simpledynamo_protocol::ring::NodeId;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What may be asked for with `--replication`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// Any replica coordinates, a majority decides.
    Quorum,
    /// Writes enter at the head of a chain, reads go to its tail.
    Chain,
}

impl From<Strategy> for Replication {
    fn from(strategy: Strategy) -> Replication {
        match strategy {
            Strategy::Quorum => Replication::Quorum,
            Strategy::Chain => Replication::Chain,
        }
    }
}

/// Default of `--config`.
const CONFIG: &str = "cluster.toml";
/// Default of `--data-dir`.
const DATA_DIR: &str = "data";

const EXAMPLES: &str = "\
Examples:
  dynamo up                          start the five nodes of cluster.toml, Ctrl-C stops them
  redis-cli -p 11108 set greeting hello
  dynamo get greeting
  dynamo status
  dynamo flow                        the newest requests; --key, --slow, --failed draw them
  dynamo kill 5558                   as a crash: SIGKILL; every key stays readable and writable
  dynamo start 5558                  bring it back; it copies what it missed

Environment:
  DYNAMO_SECRET, DYNAMO_PASSWORD     win over `secret` and `password` of the configuration
  RUST_LOG                           wins over `level` of the configuration
  NO_COLOR                           no colours

Exit codes: 0 done, 1 failed, 2 usage or configuration.";

/// A linearizable, always available key-value store that speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "dynamo", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the cluster is described and kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// The cluster's description.
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG)]
    pub(crate) config: PathBuf,
    /// Where the nodes keep their data: DIR/ID each.
    #[arg(long, global = true, value_name = "DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start every node of the cluster on this machine and stay in the foreground.
    ///
    /// Waits until all answer, prints where they are, and stops them all on Ctrl-C or SIGTERM. A
    /// node that is killed is not started again: `dynamo start ID` does. The nodes write their logs
    /// to DIR/ID/log, appended; one above 4 MiB is moved to DIR/ID/log.old when its node starts.
    Up,
    /// Run one node in the foreground, log on standard error, until Ctrl-C or SIGTERM.
    Node(node::NodeArguments),
    /// Kill a node as a crash would: SIGKILL.
    Kill(OneNode),
    /// Stop a node without ending it: SIGSTOP. It looks dead to the others.
    Pause(OneNode),
    /// Let a paused node go on: SIGCONT.
    Resume(OneNode),
    /// Start a node in the background and wait until it answers.
    Start(OneNode),
    /// Let a stopped node vote although it has lost what it stored; acknowledged writes may be gone.
    ///
    /// Only for the case that all replicas of a range lost something at once, as after a power cut
    /// with `durability = "os"`: then none can copy from another and the range stays unavailable.
    AcceptLoss(accept_loss::Arguments),
    /// Show how every node is, as each says itself.
    Status(status::StatusArguments),
    /// Watch the ring in the terminal: load, latency, queues, suspicion of every node.
    ///
    /// Redrawn every second; q or Ctrl-C ends it. Where the output is no terminal use
    /// `dynamo status --watch`.
    Top,
    /// Check the configuration and show the ring it describes; start nothing.
    CheckConfig,
    /// Print the value of a key; exit code 1 if there is none.
    Get(data::GetArguments),
    /// Set a key to a value.
    Set(data::SetArguments),
    /// Delete a key.
    Del(data::DelArguments),
    /// Show what happened to a request: every message and decision, as a sequence diagram.
    #[command(after_help = flow::EXAMPLES)]
    Flow(flow::FlowArguments),
    /// Decide whether a recorded history is linearizable.
    #[command(after_help = check::FORMAT)]
    Check(check::CheckArguments),
    /// Run a ring of five of its own under load and faults, and check what clients saw.
    ///
    /// Nothing of your cluster is touched: nodes, data and ports are temporary, `--config` and
    /// `--data-dir` are not used. One node at a time is killed, paused, cut off or slowed down while
    /// clients work at all five.
    #[command(after_help = torture::CAVEATS)]
    Torture(torture::TortureArguments),
    /// Run whole rings on simulated time, with faults drawn from seeds, and check all that must hold.
    ///
    /// Nothing is started and nothing is written: nodes, network, disks and clocks are simulated in
    /// this process, `--config` and `--data-dir` are not used. A failure names its seed and the
    /// command that replays it.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::SimulateArguments),
}

/// A subcommand's node.
#[derive(Args, Debug)]
struct OneNode {
    /// The node's id, such as 5554.
    id: NodeId,
}

/// Does what the arguments say.
///
/// # Errors
/// It failed, or the configuration is wrong.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { place, command } = arguments;
    let cluster = || Cluster::load(&place.config, &Environment::of_process());
    match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Torture(arguments) => in_runtime(torture::run(&arguments)),
        Command::Simulate(arguments) => simulate::run(&arguments),
        command => with_cluster(&cluster()?, &place, command),
    }
}

/// The commands that need the configuration.
fn with_cluster(cluster: &Cluster, place: &Place, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(_) | Command::Torture(_) | Command::Simulate(_) => Ok(()),
        Command::Up => in_runtime(up::run(cluster, place)),
        Command::Node(arguments) => node::run(cluster, place, &arguments),
        Command::Kill(node) => signal::kill(cluster, place, node.id),
        Command::Pause(node) => signal::pause(cluster, place, node.id),
        Command::Resume(node) => signal::resume(cluster, place, node.id),
        Command::Start(node) => in_runtime(start::run(cluster, place, node.id)),
        Command::AcceptLoss(arguments) => in_runtime(accept_loss::run(cluster, place, &arguments)),
        Command::Top => in_runtime(top::run(cluster, place)),
        Command::Status(arguments) => in_runtime(status::run(cluster, place, &arguments)),
        Command::CheckConfig => check_config::run(cluster),
        Command::Get(arguments) => in_runtime(data::get(cluster, &arguments)),
        Command::Set(arguments) => in_runtime(data::set(cluster, &arguments)),
        Command::Flow(arguments) => in_runtime(flow::run(cluster, place, &arguments)),
        Command::Del(arguments) => in_runtime(data::del(cluster, &arguments)),
    }
}

/// Runs a subcommand that waits for sockets or processes.
fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

impl Place {
    /// A node's own directory.
    pub(crate) fn of(&self, id: NodeId) -> PathBuf {
        node_dir(&self.data_dir, id)
    }

    /// A node's pid file.
    fn pid_file(&self, id: NodeId) -> PathBuf {
        self.of(id).join("pid")
    }

    /// A command line that can be pasted: this program as it was called, and these options where
    /// they are not the defaults.
    fn command(&self, command: &str) -> String {
        let program = std::env::args().next().unwrap_or_else(|| "dynamo".to_owned());
        let mut line = format!("{program} {command}");
        let mut option = |name: &str, value: &Path, default: &str| {
            if value != Path::new(default) {
                line.push_str(&format!(" {name} {}", quoted(&value.to_string_lossy())));
            }
        };
        option("--config", &self.config, CONFIG);
        option("--data-dir", &self.data_dir, DATA_DIR);
        line
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Why a subcommand failed, for the person who called it.
#[derive(Debug)]
pub struct Failure {
    usage: bool,
    /// Whoever read the result is gone: there is nobody to tell.
    unread: bool,
    message: String,
}

impl Failure {
    /// Something failed: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { usage: false, unread: false, message: message.into() }
    }

    /// What was given cannot be used: exit code 2.
    fn usage(message: impl Into<String>) -> Failure {
        Failure { usage: true, unread: false, message: message.into() }
    }

    /// Prints it on standard error.
    pub fn tell(&self) {
        if !self.unread {
            out::error(&self.message);
        }
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Failure {
        match error {
            ServeError::Config(error) => error.into(),
            ServeError::Other(message) => Failure::new(message),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let inner = error.get_ref();
        let unread = inner.is_some_and(|inner| inner.is::<out::NobodyReads>());
        Failure { unread, ..Failure::new(format!("input or output failed: {error}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn command_can_be_pasted() {
        let place = |config: &str, data: &str| {
            let place = Place { config: config.into(), data_dir: data.into() };
            let line = place.command("start 5558");
            line.split_once(" start ").map(|(_, rest)| rest.to_owned()).unwrap()
        };
        assert_eq!(place("cluster.toml", "data"), "5558");
        assert_eq!(
            place("a b.toml", "/tmp/it's"),
            "5558 --config 'a b.toml' --data-dir '/tmp/it'\\''s'"
        );
    }
}
