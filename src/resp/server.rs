//! The node as a server: INFO, CONFIG GET, TIME, WAIT.

use super::{
    REDIS_VERSION, Shared,
    args::{self, Failure},
    connection::{help, unknown_subcommand},
    dispatch::{Action, Call, Spec},
    execute,
    frame::Frame,
    glob, wall_millis,
};
use bytes::Bytes;
use simpledynamo_actors::messages::{AskStatus, Phase, Status};
use std::{fmt::Write, rc::Rc};

pub(super) const COMMANDS: &[Spec] = &[
    Spec::plain("info", -1, info).about("server", "1.0.0", "Describes the node in figures."),
    Spec::plain("config", -2, config).about(
        "server",
        "2.0.0",
        "Shows the settings that clients ask for.",
    ),
    Spec::plain("time", 1, time).about("server", "2.6.0", "Returns the node's clock."),
    Spec::plain("wait", 3, wait).about(
        "generic",
        "3.0.0",
        "Returns how many other replicas hold every acknowledged write.",
    ),
];

fn time(_: &mut Call<'_>) -> Result<Action, Failure> {
    let now = wall_millis();
    let part = |number: u64| Frame::text(number.to_string());
    Ok(Action::Reply(Frame::Array(vec![part(now / 1_000), part(now % 1_000 * 1_000)])))
}

/// Answers at once: a write is acknowledged only when a write quorum holds it durably, so all that this
/// connection was told is on the quorum's nodes, one of them counted as the master of Redis' terms.
/// More than that is never promised, whatever the time given.
fn wait(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, replicas, millis] = call.args else { return Err(call.wrong_arguments()) };
    args::need_integer(replicas)?;
    let millis = args::integer(millis).ok_or("ERR timeout is not an integer or out of range")?;
    if millis < 0 {
        return Err("ERR timeout is negative".into());
    }
    let others = call.shared.settings.write_quorum.saturating_sub(1);
    let frame = Frame::count(others as u64);
    // A task, as it must not answer before the writes ahead of it in the pipeline have ended.
    Ok(Action::Task(Box::pin(async move { frame })))
}

fn config(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, subcommand, rest @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let word = args::text(subcommand).to_ascii_lowercase();
    match (word.as_str(), rest) {
        ("get", [_, ..]) => Ok(Action::Reply(config_get(call.shared, rest))),
        ("resetstat", []) => Ok(Action::Reply(Frame::Ok)),
        ("set" | "rewrite", _) => Err("ERR settings are read from cluster.toml at start: change \
                                       them there and restart the node"
            .into()),
        ("help", []) => Ok(Action::Reply(help("CONFIG", &["GET <pattern> [<pattern> ...]"]))),
        ("get" | "resetstat" | "help", _) => Err(args::wrong_arguments(&format!("config|{word}"))),
        _ => Err(unknown_subcommand(subcommand, "CONFIG")),
    }
}

/// Settings of Redis that clients and benchmarks ask for, as they are here.
fn config_get(shared: &Shared, patterns: &[Bytes]) -> Frame {
    let limits = &shared.settings.limits;
    let settings = [
        ("appendonly", "yes".to_owned()),
        ("bind", "127.0.0.1".to_owned()),
        ("client-output-buffer-limit", format!("normal {} 0 0", limits.client_output_bytes)),
        ("databases", "1".to_owned()),
        ("maxclients", limits.clients.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", shared.port.to_string()),
        ("proto-max-bulk-len", limits.value_bytes.to_string()),
        ("save", String::new()),
        ("tcp-keepalive", "0".to_owned()),
        ("timeout", "0".to_owned()),
    ];
    let wanted =
        |name: &str| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes(), true));
    let pairs = settings.into_iter().filter(|(name, _)| wanted(name));
    Frame::Map(pairs.map(|(name, value)| (Frame::text(name), Frame::text(value))).collect())
}

/// Writes one section's lines.
type Section = fn(&Shared, &Status) -> String;

const SECTIONS: [(&str, Section); 7] = [
    ("Server", section_server),
    ("Clients", section_clients),
    ("Memory", section_memory),
    ("Persistence", section_persistence),
    ("Stats", section_stats),
    ("Replication", section_replication),
    ("Keyspace", section_keyspace),
];

fn info(call: &mut Call<'_>) -> Result<Action, Failure> {
    let wanted: Vec<_> = call.args.iter().skip(1).map(|name| args::text(name)).collect();
    let shared = Rc::clone(call.shared);
    Ok(Action::Task(Box::pin(async move {
        let Ok(status) = shared.node.status.send(AskStatus).await else {
            return Frame::Error(execute::STOPPING);
        };
        let everything = ["default", "all", "everything"];
        let all = wanted.is_empty()
            || wanted
                .iter()
                .any(|name| everything.iter().any(|all| name.eq_ignore_ascii_case(all)));
        let mut text = String::new();
        for (name, section) in SECTIONS {
            if all || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) {
                let gap = if text.is_empty() { "" } else { "\r\n" };
                let _ = write!(text, "{gap}# {name}\r\n");
                for line in section(&shared, &status).lines() {
                    text.push_str(line);
                    text.push_str("\r\n");
                }
            }
        }
        Frame::Verbatim(text)
    })))
}

fn section_server(shared: &Shared, status: &Status) -> String {
    let uptime = shared.started.elapsed().as_secs();
    format!(
        "redis_version:{REDIS_VERSION}\nredis_mode:standalone\nsimpledynamo_version:{}\n\
         os:{}\narch_bits:{}\nprocess_id:{}\nrun_id:{:016x}{:024x}\ntcp_port:{}\n\
         uptime_in_seconds:{uptime}\nuptime_in_days:{}\nnode_id:{}\nincarnation:{}\nphase:{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        usize::BITS,
        std::process::id(),
        status.store,
        status.incarnation,
        shared.port,
        uptime / 86_400,
        shared.settings.me,
        status.incarnation,
        phase_word(status.phase),
    )
}

fn section_clients(shared: &Shared, _: &Status) -> String {
    format!(
        "connected_clients:{}\nmaxclients:{}\nblocked_clients:0",
        shared.clients.borrow().len(),
        shared.settings.limits.clients
    )
}

fn section_memory(_: &Shared, _: &Status) -> String {
    format!("used_memory:{}\nmaxmemory:0\nmaxmemory_policy:noeviction", resident_bytes())
}

fn section_persistence(_: &Shared, status: &Status) -> String {
    format!(
        "loading:{}\naof_enabled:1\ndurable_commits:{}\ndurable_operations:{}",
        u8::from(status.phase == Phase::Starting),
        status.commits,
        status.committed
    )
}

fn section_stats(shared: &Shared, status: &Status) -> String {
    format!(
        "total_connections_received:{}\ntotal_commands_processed:{}\nrejected_connections:{}\n\
         operations:{}\noperations_in_flight:{}\noperations_not_applied:{}\n\
         operations_unknown:{}\noperations_retried:{}\noperations_hedged:{}\ncoordinators:{}\npeer_messages_dropped:{}",
        shared.accepted.get(),
        shared.commands.get(),
        shared.turned_away.get(),
        status.operations,
        status.in_flight,
        status.refused,
        status.unknown,
        status.retries,
        status.hedges,
        status.coordinators,
        status.dropped
    )
}

/// Every node is a master to clients; `slave` figures would mislead them.
fn section_replication(shared: &Shared, status: &Status) -> String {
    let ring = &shared.settings.ring;
    format!(
        "role:master\nconnected_slaves:0\nring_nodes:{}\nring_replicas:{}\nwrite_quorum:{}\n\
         level:{}\nrecords_copied:{}",
        ring.nodes().len(),
        ring.replicas(),
        shared.settings.write_quorum,
        u8::from(status.level),
        status.copied
    )
}

/// Of this node only: its replicas, not the ring's keys.
fn section_keyspace(_: &Shared, status: &Status) -> String {
    match status.live {
        0 => String::new(),
        live => format!("db0:keys={live},expires=0,avg_ttl=0"),
    }
}

/// A phase as the status commands show it.
pub(super) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Learning => "learning",
        Phase::Serving => "serving",
    }
}

/// Resident memory of the process, bytes; 0 where the system does not tell. No disk is touched.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1_024))
}
