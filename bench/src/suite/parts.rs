//! What each part does: from servers that are up to records.

use super::{
    Session, alone,
    plan::{BLOW_AFTER, Block, CACHE_VALUE, FAILOVER_CLIENTS, FAILOVER_RATE, Part, Task, wait},
    servers::{Group, IDS, Servers},
};
use crate::{
    drive,
    fill::Fill,
    meter::Record,
    plan::{Blow, Plan, Workload},
    report,
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Bytes of a value where nothing else is said.
const VALUE: usize = 100;
/// Seconds between the last write and the look at memory.
const REST: Duration = Duration::from_secs(5);
/// Clients of the runs at half the peak load.
const HALF_PEAK_CLIENTS: usize = 64;
/// Milliseconds after which a client gives a silent connection up when a server is struck.
const FAILOVER_PATIENCE: u64 = 1_000;
/// The node of a ring that loses its disk: of the shipped ids it has the largest share.
const WIPED: usize = 2;

/// The servers of a block.
pub(super) struct Bench {
    pub(super) servers: Option<Servers>,
    pub(super) start_seconds: f64,
    /// Keys that are there, and the size of their values; none before they are needed.
    filled: Option<(u64, usize)>,
}

impl Bench {
    fn servers(&mut self) -> io::Result<&mut Servers> {
        self.servers.as_mut().ok_or_else(|| io::Error::other("a part without servers"))
    }
}

fn figure(kind: &str, system: &str, name: &str, value: f64, unit: &str) -> Record {
    Record {
        kind: kind.to_owned(),
        system: system.to_owned(),
        name: Some(name.to_owned()),
        value,
        unit: unit.to_owned(),
        ..Record::default()
    }
}

impl Session {
    pub(super) fn bench(&self, block: &Block) -> io::Result<Bench> {
        let start = |group: Group| {
            Servers::start(group, &self.dynamo, &self.data, block.limits, &self.interrupt)
        };
        let servers = block.group.map(start).transpose()?;
        Ok(Bench { servers, start_seconds: 0.0, filled: None })
    }

    pub(super) fn part(
        &mut self,
        bench: &mut Bench,
        block: &Block,
        part: &Part,
    ) -> io::Result<Vec<Record>> {
        self.interrupt.check()?;
        match &part.task {
            Task::Start => Ok(vec![self.start(bench)?]),
            Task::Simulation(nodes) => self.simulation(*nodes),
            Task::Micro => self.micro(),
            task => {
                let refill = if let Task::Run { refill, .. } = task { *refill } else { None };
                self.fill(bench, refill.unwrap_or((block.fill, VALUE)))?;
                self.with_keys(bench, block, task)
            }
        }
    }

    fn with_keys(&self, bench: &mut Bench, block: &Block, task: &Task) -> io::Result<Vec<Record>> {
        match task {
            Task::Run { kind, system, round, workload, connections, pipeline, .. } => {
                let mut plan = self.plan(bench, system)?;
                plan.kind = (*kind).to_owned();
                (plan.round, plan.workload) = (*round, *workload);
                (plan.connections, plan.pipeline) = (*connections, *pipeline);
                Ok(vec![self.drive(plan)?])
            }
            Task::HalfPeak { system, workload } => self.half_peak(bench, system, *workload),
            Task::Failover { blow, victim } => self.failover(bench, *blow, *victim),
            Task::Memory => self.memory(bench, block.fill),
            Task::Restart => Ok(vec![self.restart(bench, block.fill)?]),
            Task::CatchUp => Ok(vec![self.catch_up(bench)?]),
            Task::CacheMemory => self.cache_memory(bench),
            Task::Start | Task::Simulation(_) | Task::Micro => Ok(Vec::new()),
        }
    }

    /// Writes keys, unless just these are there.
    fn fill(&self, bench: &mut Bench, wanted: (u64, usize)) -> io::Result<()> {
        if bench.filled == Some(wanted) {
            return Ok(());
        }
        let servers = bench.servers()?;
        let (keys, value_bytes) = wanted;
        let address = servers.addresses.clone();
        let fill = Fill { protocol: servers.protocol, address, keys, value_bytes };
        alone(&self.interrupt, fill.run())?;
        bench.filled = Some(wanted);
        Ok(())
    }

    fn plan(&self, bench: &mut Bench, system: &str) -> io::Result<Plan> {
        let (keys, value_bytes) = bench.filled.unwrap_or((self.settings.keys, VALUE));
        let servers = bench.servers()?;
        Ok(Plan {
            wait: wait(system),
            keys,
            value_bytes,
            warmup: self.settings.warmup,
            seconds: self.settings.seconds,
            server_pid: servers.pids(),
            ..Plan::new(system, servers.protocol, &servers.addresses)
        })
    }

    fn drive(&self, plan: Plan) -> io::Result<Record> {
        alone(&self.interrupt, drive::run(plan))
    }

    fn half_peak(
        &self,
        bench: &mut Bench,
        system: &str,
        workload: Workload,
    ) -> io::Result<Vec<Record>> {
        let best = report::best(&self.records, system, workload);
        if best == 0.0 {
            return Err(io::Error::other(format!("needs throughput/{system} measured before")));
        }
        let plan = self.plan(bench, system)?;
        let record = self.drive(Plan {
            kind: "half-peak".to_owned(),
            workload,
            connections: HALF_PEAK_CLIENTS,
            rate: (best / 2.0).round(),
            seconds: 2.0 * self.settings.seconds,
            ..plan
        })?;
        Ok(vec![record])
    }

    fn failover(
        &self,
        bench: &mut Bench,
        blow: Blow,
        victim: Option<usize>,
    ) -> io::Result<Vec<Record>> {
        let servers = bench.servers()?;
        let group = servers.group;
        if group == Group::Redis {
            servers.start_sentinels()?;
        }
        let at = match victim {
            Some(at) => at,
            None => servers.leader()?,
        };
        let (pid, address) = (servers.pid(at), servers.addresses[at]);
        let (sentinel, title) = (servers.sentinels.clone(), servers.title(at));
        let plan = self.plan(bench, group.name())?;
        let record = self.drive(Plan {
            kind: "failover".to_owned(),
            workload: Workload::Mixed,
            connections: FAILOVER_CLIENTS,
            rate: FAILOVER_RATE,
            seconds: BLOW_AFTER + self.settings.after_blow,
            timeout: FAILOVER_PATIENCE,
            sentinel,
            blow: Some(blow),
            victim_pid: pid,
            victim: Some(address),
            blow_after: BLOW_AFTER,
            note: Some(if group.is_ring() { title } else { "the leader".to_owned() }),
            ..plan
        })?;
        let servers = bench.servers()?;
        match blow {
            Blow::Stop => servers.resume(at)?,
            Blow::Kill => servers.kill(at)?,
        }
        if group.is_ring() {
            if blow == Blow::Kill {
                servers.launch(at)?;
            }
            servers.level(at)?;
        }
        Ok(vec![record])
    }

    fn start(&self, bench: &mut Bench) -> io::Result<Record> {
        let (seconds, servers) = (bench.start_seconds, bench.servers()?);
        Ok(figure("start", servers.group.name(), "first start, empty", seconds, "s"))
    }

    fn restart(&self, bench: &mut Bench, keys: u64) -> io::Result<Record> {
        let servers = bench.servers()?;
        servers.stop()?;
        let begun = Instant::now();
        servers.launch_all()?;
        let seconds = begun.elapsed().as_secs_f64();
        let name = format!("restart with {} keys", report::thousands(keys as f64));
        Ok(figure("start", servers.group.name(), &name, seconds, "s"))
    }

    fn memory(&self, bench: &mut Bench, keys: u64) -> io::Result<Vec<Record>> {
        self.interrupt.sleep(REST)?;
        let servers = bench.servers()?;
        let mut records = Vec::new();
        for at in 0..servers.pids().len() {
            let held = if servers.group.is_ring() {
                servers.status(at)?["rows"].as_u64().unwrap_or_default()
            } else {
                keys
            };
            let megabytes = servers.resident(at)? as f64 / 1e6;
            let (system, title) = (servers.group.name(), servers.title(at));
            records
                .push(Record { keys: held, ..figure("memory", system, &title, megabytes, "MB") });
        }
        Ok(records)
    }

    fn catch_up(&self, bench: &mut Bench) -> io::Result<Record> {
        let servers = bench.servers()?;
        // Its data must be elsewhere: a ring that has just started may not hold all of it three times.
        servers.level(WIPED)?;
        servers.kill(WIPED)?;
        servers.wipe(WIPED)?;
        let begun = Instant::now();
        servers.launch(WIPED)?;
        let status = servers.level(WIPED)?;
        let seconds = begun.elapsed().as_secs_f64();
        let held = status["rows"].as_f64().unwrap_or_default();
        if held == 0.0 {
            return Err(io::Error::other("the node says that it is level, and holds nothing"));
        }
        let name = format!(
            "node {} loses its disk: {} keys there again after {seconds:.1} s, its start included",
            IDS[WIPED],
            report::thousands(held)
        );
        Ok(figure("catch-up", servers.group.name(), &name, held / seconds, "keys/s"))
    }

    fn cache_memory(&self, bench: &mut Bench) -> io::Result<Vec<Record>> {
        let keys = self.settings.cache_keys;
        let servers = bench.servers()?;
        let system = servers.group.name();
        let mut records = Vec::new();
        for (at, id) in IDS.iter().enumerate() {
            let resident = servers.resident(at)? as f64 / 1e6;
            let status = servers.status(at)?;
            let rows = status["rows"].as_f64().unwrap_or_default();
            let values = rows * CACHE_VALUE as f64 / 1e6;
            let name = format!("node {id}: resident, with {values:.0} MB of values");
            records.push(Record { keys, ..figure("cache", system, &name, resident, "MB") });
        }
        Ok(records)
    }

    /// Runs a program to its end, or to the person's; what it printed.
    fn output(&self, mut command: Command) -> io::Result<String> {
        let path = self.file.with_extension("out");
        command.stdout(std::fs::File::create(&path)?).stdin(Stdio::null());
        command.process_group(0);
        let mut child = command.spawn()?;
        let ended = loop {
            if let Some(ended) = child.try_wait()? {
                break ended;
            }
            if let Err(interrupted) = self.interrupt.sleep(Duration::from_millis(50)) {
                // With what it has started itself.
                if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                    kill_process_group(group, Signal::KILL)?;
                }
                child.wait()?;
                return Err(interrupted);
            }
        };
        let text = std::fs::read_to_string(&path)?;
        std::fs::remove_file(path)?;
        if ended.success() { Ok(text) } else { Err(io::Error::other(format!("{ended}"))) }
    }

    fn simulation(&self, nodes: u32) -> io::Result<Vec<Record>> {
        let mut command = Command::new(self.built("examples/ring_sizes"));
        command.arg(nodes.to_string());
        let text = self.output(command)?;
        let line = |line: &str| serde_json::from_str(line).map_err(io::Error::other);
        text.lines().map(line).collect()
    }

    /// A program of this package.
    fn built(&self, name: &str) -> PathBuf {
        self.here.join("../target/bench/release").join(name)
    }

    fn micro(&self) -> io::Result<Vec<Record>> {
        let mut command = Command::new("cargo");
        command.args(["bench", "--quiet", "--bench", "micro", "--manifest-path"]);
        command.arg(self.here.join("Cargo.toml"));
        command.arg("--target-dir").arg(self.here.join("../target/bench"));
        let text = self.output(command)?;
        Ok(vec![figure("micro", "", &text, 0.0, "")])
    }
}
