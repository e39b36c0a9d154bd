//! `load suite`: measures what [`plan`] has, part by part, and writes the report.
//!
//! What is measured is appended to `bench/results/SIZE.jsonl` at once and not measured again, so a run that
//! was ended goes on where it was. Two things make a part count as not measured: `--again`, and for this
//! ring another build of the program than the records are of.
//!
//! One thread does all, and asks between any two steps whether it was interrupted.

mod parts;
pub mod plan;
pub mod servers;

use crate::{machine, meter::Record, report};
use clap::Args;
use plan::{Block, Part, Size, chosen};
use servers::Servers;
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long the machine is looked at for stalls of its own before a run.
const STALLS_LOOKED: Duration = Duration::from_secs(10);
/// How often a run asks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// `load suite`
#[derive(Args)]
pub struct Suite {
    /// About five minutes: few runs, short ones
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Long runs and ten million keys: hours
    #[arg(long)]
    full: bool,
    /// Only parts with these words in their name, such as `failover`, `ring-sync`, `write/64/1`, `etcd`;
    /// may be given more than once
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
    /// Measure also what has been measured
    #[arg(long)]
    again: bool,
    /// Measure nothing, write the report of what was measured
    #[arg(long)]
    report: bool,
    /// Print the names of all parts and end
    #[arg(long)]
    list: bool,
    /// Where report.md and its plots go; by default bench/, with --quick bench/results/quick/
    #[arg(long)]
    out: Option<PathBuf>,
    /// The directory bench/
    #[arg(long, hide = true)]
    here: PathBuf,
    /// The program that is measured
    #[arg(long, hide = true)]
    dynamo: PathBuf,
}

/// Whether a person wants the end; set by SIGINT and SIGTERM.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn new() -> io::Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupt(flag))
    }

    /// An error once it was wanted.
    pub fn check(&self) -> io::Result<()> {
        let wanted = self.0.load(Ordering::Relaxed);
        if wanted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// Waits so long.
    pub fn sleep(&self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}

/// Runs a future on a runtime of its own: all its tasks and connections end with it.
pub fn alone<T>(
    interrupt: &Interrupt,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    crate::alone(async {
        tokio::select! {
            ended = future => ended,
            interrupted = async {
                loop {
                    tokio::time::sleep(LOOK).await;
                    if let Err(error) = interrupt.check() {
                        return error;
                    }
                }
            } => Err(interrupted),
        }
    })
}

/// A run of the suite.
struct Session {
    settings: &'static plan::Settings,
    dynamo: PathBuf,
    /// Of the program that is measured.
    build: String,
    /// Programs and directories of this package.
    here: PathBuf,
    /// The servers' data: in the repository, so on a disk.
    data: PathBuf,
    file: PathBuf,
    records: Vec<Record>,
    interrupt: Interrupt,
    began: Instant,
    failed: usize,
}

impl Suite {
    fn size(&self) -> Size {
        match self {
            _ if self.quick => Size::Quick,
            _ if self.full => Size::Full,
            _ => Size::Default,
        }
    }

    pub fn run(self) -> io::Result<()> {
        let size = self.size();
        let blocks = size.settings().blocks();
        if self.list {
            let mut out = io::stdout().lock();
            return blocks
                .iter()
                .flat_map(|block| &block.parts)
                .try_for_each(|it| writeln!(out, "{}", it.name));
        }
        let results = self.here.join("results");
        fs::create_dir_all(&results)?;
        let _lock = lock(&results)?;
        let mut session = Session::open(&self, size, &results)?;
        if !self.report {
            session.measure(&blocks, &self)?;
        }
        let out = self.out.unwrap_or_else(|| match size {
            Size::Quick => results.join("quick"),
            Size::Default | Size::Full => self.here.clone(),
        });
        fs::create_dir_all(&out)?;
        report::write(&session.records, &out)?;
        println!("written: {}", out.join("report.md").display());
        match session.failed {
            0 => Ok(()),
            failed => Err(io::Error::other(format!(
                "{failed} parts failed and are left out; they are tried again the next time"
            ))),
        }
    }
}

/// Two that measure at a time measure each other.
fn lock(results: &std::path::Path) -> io::Result<File> {
    let file = File::create(results.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(io::Error::other("another bench/run is at work here")),
    }
}

impl Session {
    fn open(suite: &Suite, size: Size, results: &std::path::Path) -> io::Result<Session> {
        let file = results.join(format!("{}.jsonl", size.name()));
        let mut records = if file.exists() { report::read(&file)? } else { Vec::new() };
        let build = if suite.report { String::new() } else { build(&suite.dynamo)? };
        if !suite.report {
            // Figures of another program are no figures of this one.
            records.retain(|record| record.build.is_empty() || record.build == build);
            records.retain(|record| !suite.again || !chosen(&record.part, &suite.only));
        }
        Ok(Session {
            settings: size.settings(),
            dynamo: suite.dynamo.clone(),
            build,
            here: suite.here.clone(),
            data: results.join("data"),
            file,
            records,
            interrupt: Interrupt::new()?,
            began: Instant::now(),
            failed: 0,
        })
    }

    fn is_measured(&self, part: &str) -> bool {
        self.records.iter().any(|record| record.part == part)
    }

    fn measure(&mut self, blocks: &[Block], suite: &Suite) -> io::Result<()> {
        let left = |session: &Session, block: &Block| -> Vec<usize> {
            let wanted =
                |part: &Part| chosen(&part.name, &suite.only) && !session.is_measured(&part.name);
            (0..block.parts.len()).filter(|at| wanted(&block.parts[*at])).collect()
        };
        let of = |block: &Block| -> (usize, f64) {
            let parts: Vec<_> = left(self, block).into_iter().map(|at| &block.parts[at]).collect();
            (parts.len(), if parts.is_empty() { 0.0 } else { block.seconds(&parts) })
        };
        let sizes: Vec<_> = blocks.iter().map(of).collect();
        let count: usize = sizes.iter().map(|(count, _)| count).sum();
        let seconds: f64 = sizes.iter().map(|(_, seconds)| seconds).sum();
        let all = blocks.iter().map(|block| block.parts.len()).sum::<usize>();
        if count == 0 {
            let known = blocks.iter().flat_map(|block| &block.parts);
            if !known.into_iter().any(|part| chosen(&part.name, &suite.only)) {
                let why = format!("no part has {:?} in its name; --list shows all", suite.only);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            self.say("all of it has been measured; --again measures it again");
            return Ok(());
        }
        self.say(&format!(
            "{count} of {all} parts, about {:.0} minutes",
            (seconds / 60.0).max(1.0)
        ));
        self.save()?;
        self.about(suite)?;
        for (block, (count, seconds)) in blocks.iter().zip(sizes) {
            if count > 0 {
                self.say(&format!("{}: {count} parts, about {seconds:.0} s", block.title));
                let parts: Vec<_> =
                    left(self, block).into_iter().map(|at| &block.parts[at]).collect();
                self.block(block, &parts)?;
            }
        }
        Ok(())
    }

    /// Does a block. What goes wrong is told and left out, unless a person wants the end.
    fn block(&mut self, block: &Block, parts: &[&Part]) -> io::Result<()> {
        let begun = Instant::now();
        let mut bench = match self.bench(block) {
            Ok(bench) => bench,
            Err(error) => return self.missed(parts.len(), &block.title, error),
        };
        bench.start_seconds = begun.elapsed().as_secs_f64();
        for (at, part) in parts.iter().enumerate() {
            let ended = self.part(&mut bench, block, part);
            let ended = ended.and_then(|records| self.keep(part, records));
            if let Err(error) = ended {
                self.missed(1, &part.name, error)?;
            }
            if let Some(Err(error)) = bench.servers.as_mut().map(Servers::check) {
                return self.missed(parts.len() - at - 1, &block.title, error);
            }
        }
        Ok(())
    }

    fn missed(&mut self, parts: usize, what: &str, error: io::Error) -> io::Result<()> {
        self.interrupt.check()?;
        self.failed += parts;
        eprintln!("load: {what}: {error}");
        Ok(())
    }

    /// Appends what a part brought.
    fn keep(&mut self, part: &Part, records: Vec<Record>) -> io::Result<()> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut file = File::options().create(true).append(true).open(&self.file)?;
        for mut record in records {
            record.part.clone_from(&part.name);
            record.at = at;
            let others = ["etcd", "redis", "redis-wait", "redis-aof", "redis-aof-wait"];
            if !others.contains(&record.system.as_str()) {
                record.build.clone_from(&self.build);
            }
            self.say(&format!("  {}: {}", part.name, record.told()));
            writeln!(file, "{}", serde_json::to_string(&record)?)?;
            self.records.push(record);
        }
        Ok(())
    }

    /// Writes the records anew, without those that do not count any more.
    fn save(&self) -> io::Result<()> {
        let fresh = self.file.with_extension("new");
        let mut file = io::BufWriter::new(File::create(&fresh)?);
        for record in &self.records {
            writeln!(file, "{}", serde_json::to_string(record)?)?;
        }
        file.flush()?;
        fs::rename(fresh, &self.file)
    }

    fn say(&self, what: &str) {
        let seconds = self.began.elapsed().as_secs();
        println!("{:3}:{:02}  {what}", seconds / 60, seconds % 60);
    }

    /// What the report says of the machine and the programs; the last session's stands.
    fn about(&mut self, suite: &Suite) -> io::Result<()> {
        self.records.retain(|record| record.kind != "about");
        let first = |path: &str, start: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
            line.trim_start_matches(start).trim_matches([' ', '\t', ':']).to_owned()
        };
        let cores = std::thread::available_parallelism()?;
        let stalls = machine::stalls(STALLS_LOOKED, cores.get());
        let git = told(
            "git",
            &["-C", &suite.here.display().to_string(), "describe", "--always", "--dirty"],
        );
        let lines = [
            format!(
                "measured: `bench/run`, size `{}`, {} rounds of {} s a run",
                suite.size().name(),
                self.settings.rounds,
                self.settings.seconds
            ),
            format!(
                "processor: {}, {cores} of them for servers and generator together",
                first("/proc/cpuinfo", "model name")
            ),
            format!("memory: {}", first("/proc/meminfo", "MemTotal")),
            format!("kernel: Linux {}", first("/proc/sys/kernel/osrelease", "")),
            format!(
                "file system: {}",
                told("stat", &["-f", "-c", "%T", &suite.here.display().to_string()])
            ),
            format!("load average before: {}", first("/proc/loadavg", "")),
            format!(
                "stalls: before the run, with nothing but a busy thread a processor, the machine let one of them stand still \
                 for {} ms or longer {} times in {} s, {:.1} % of the time, the longest {:.0} ms",
                machine::STALL.as_millis(),
                stalls.count,
                STALLS_LOOKED.as_secs(),
                stalls.share * 100.0,
                stalls.longest.as_secs_f64() * 1000.0
            ),
            format!(
                "SimpleDynamo: {}, commit {git}",
                told(&self.dynamo.display().to_string(), &["--version"])
            ),
            format!("etcd: {}", told("etcd", &["--version"])),
            format!("Redis: {}", told("redis-server", &["--version"])),
        ];
        let record = |line: String| Record {
            kind: "about".to_owned(),
            name: Some(line),
            ..Record::default()
        };
        self.records.extend(lines.map(record));
        self.save()
    }
}

/// The first line that a program prints.
fn told(program: &str, arguments: &[&str]) -> String {
    let ended = Command::new(program).args(arguments).output();
    let text = ended.map(|ended| String::from_utf8_lossy(&ended.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

/// Which program is measured: a number made of its bytes.
fn build(dynamo: &std::path::Path) -> io::Result<String> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dynamo.display()));
    let mut hasher = DefaultHasher::new();
    fs::read(dynamo).map_err(named)?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
