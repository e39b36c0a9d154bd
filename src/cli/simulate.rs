//! `simulate`: whole rings with faults on simulated time, one run a seed, on all cores.
//!
//! A run is a function of its seed, so everything can be seen again. Runs that may end in a panic of
//! a release build (shrinking tries many) and runs that are to be compared take place in processes
//! of their own: this program, called with `--terse`.
//!
//! Caveat: a run is single-threaded, so a single seed uses one core.

mod report;

use super::{Failure, Strategy, out};
use clap::Args;
use report::{Found, Run, told};
use simpledynamo_actors::harness::swarm::{
    Case, Figures, Outcome, Selection, arguments, replicated, shrink,
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    num::NonZero,
    panic,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Failures after which no further seed is begun.
const FAILURES_MAX: usize = 5;
/// How often the line on the terminal is written anew.
const PROGRESS: Duration = Duration::from_millis(500);
/// How often a line is written where there is no terminal.
const PROGRESS_LINE: Duration = Duration::from_secs(60);

/// The end of the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  dynamo simulate --seeds 2000             fresh seeds; says which, so that they can be run again
  dynamo simulate --from 1000 --seeds 500  these
  dynamo simulate --seed 1017 --log        one, with every message
  dynamo simulate --seed 1017 --shrink     fewest faults with which it still fails
  dynamo simulate --replication chain      chains only; without it each seed draws its strategy
  dynamo simulate --seeds 50 --check-determinism

Exit codes: 0 everything held, 1 something did not, 2 usage.";

thread_local! {
    /// What this thread runs, for the word about a panic.
    static RUNNING: RefCell<Option<(u64, Selection)>> = const { RefCell::new(None) };
}

/// `simulate`
#[derive(Args, Clone, Debug)]
pub(super) struct SimulateArguments {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them; by default seeds that nobody has tried before.
    #[arg(long, value_name = "S")]
    from: Option<u64>,
    /// Run this seed only.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With --seed: only these faults of its schedule, by number; `none` for none.
    #[arg(long, value_name = "N,…", requires = "seed", value_parser = numbers)]
    faults: Option<Numbers>,
    /// With --seed: so many client operations.
    #[arg(long, value_name = "N", requires = "seed", value_parser = clap::value_parser!(u64).range(1..))]
    operations: Option<u64>,
    /// With --seed: so many clients.
    #[arg(long, value_name = "N", requires = "seed", value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: Option<u32>,
    /// Keys are kept by quorums, or by chains; by default each seed draws it.
    #[arg(long, value_enum)]
    replication: Option<Strategy>,
    /// With --seed: print its schedule and every message, sendings and (indented) arrivals.
    #[arg(long, requires = "seed")]
    log: bool,
    /// Look for the fewest faults, operations and clients with which a failing seed still fails.
    #[arg(long)]
    shrink: bool,
    /// Run every seed a second time, in another process: both message logs must be the same.
    #[arg(long)]
    check_determinism: bool,
    /// Runs at a time; by default one a core.
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// One line a seed, for the process that called this one.
    #[arg(long, hide = true)]
    terse: bool,
}

impl SimulateArguments {
    /// What of each seed is run where there are many.
    fn each(&self) -> Selection {
        Selection { replication: self.replication.map(Into::into), ..Selection::default() }
    }
}

/// Numbers of faults.
#[derive(Clone, Debug)]
struct Numbers(BTreeSet<usize>);

fn numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(BTreeSet::new()));
    }
    let number = |part: &str| {
        part.trim().parse().map_err(|_| format!("\"{part}\" is no number: write 3,7,12 or none"))
    };
    text.split(',').map(number).collect::<Result<_, _>>().map(Numbers)
}

/// Runs what the arguments say.
pub(super) fn run(arguments: &SimulateArguments) -> Result<(), Failure> {
    name_the_seed_of_a_panic();
    match arguments.seed {
        Some(seed) => one(seed, arguments),
        None => many(arguments),
    }
}

/// A panic must not leave anybody guessing which seed it was.
fn name_the_seed_of_a_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        let running = RUNNING.with_borrow(Option::clone);
        if let Some((seed, selection)) = running {
            out::error(format!("seed {seed}: an actor died, see above"));
            out::note(format!("replay: {}", command(&arguments(seed, &selection))));
            if cfg!(panic = "abort") {
                std::process::exit(1);
            }
        }
    }));
}

/// A command line that can be pasted.
fn command(arguments: &str) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "dynamo".to_owned());
    format!("{} {arguments}", super::quoted(&program))
}

fn run_case(case: &Case, seed: u64, selection: &Selection) -> Outcome {
    RUNNING.set(Some((seed, selection.clone())));
    let outcome = case.run();
    RUNNING.set(None);
    outcome
}

// --- one seed -----------------------------------------------------------------------------------

fn one(seed: u64, arguments: &SimulateArguments) -> Result<(), Failure> {
    let selection = Selection {
        faults: arguments.faults.clone().map(|numbers| numbers.0),
        operations: arguments.operations,
        clients: arguments.clients,
        replication: arguments.replication.map(Into::into),
    };
    let case = Case::draw(seed).select(selection.clone());
    if let Some(wrong) = selection.faults.iter().flatten().find(|number| **number >= case.faults())
    {
        return Err(Failure::usage(format!(
            "seed {seed} has {} faults, numbered from 0: there is no fault {wrong}",
            case.faults()
        )));
    }
    if arguments.shrink {
        return shrunk(&case, seed);
    }
    let case = if arguments.log { case.keep_log() } else { case };
    if !arguments.terse {
        describe(&case)?;
    }
    let outcome = run_case(&case, seed, &selection);
    if arguments.terse {
        return terse(&outcome);
    }
    for line in &outcome.messages {
        out::line(line)?;
    }
    let mut figures = Figures::default();
    figures.add(&outcome);
    if arguments.check_determinism {
        let run = Run::of(&outcome);
        compare(&[run], &terse_arguments(seed, &selection))?;
    }
    match &outcome.verdict {
        Ok(()) => {
            out::line(&figures)?;
            Ok(out::line(format!("seed {seed}: everything held"))?)
        }
        Err(_) => {
            out::line(told(&outcome, &command(&self::arguments(seed, &selection))))?;
            Err(Failure::new(format!("seed {seed} failed")))
        }
    }
}

/// Prints what a case is made of.
fn describe(case: &Case) -> Result<(), Failure> {
    out::line(case)?;
    for (number, fault) in case.schedule() {
        out::line(format!("{number:>4} {fault}"))?;
    }
    Ok(())
}

fn terse_arguments(seed: u64, selection: &Selection) -> Vec<String> {
    let text = format!("{} --terse", arguments(seed, selection));
    text.split(' ').map(str::to_owned).collect()
}

fn terse(outcome: &Outcome) -> Result<(), Failure> {
    out::line(Run::of(outcome))?;
    if outcome.verdict.is_ok() { Ok(()) } else { Err(Failure::new("failed")) }
}

/// What this program, in a process of its own, says of runs; the words of a failure are its own.
fn in_another_process(arguments: &[String]) -> Result<Vec<Run>, Failure> {
    let program = std::env::current_exe()?;
    let child = Command::new(program).args(arguments).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&child.stdout);
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The fewest faults with which the case still fails as it does now.
fn shrunk(case: &Case, seed: u64) -> Result<(), Failure> {
    let verdict = |selection: &Selection| {
        let runs = in_another_process(&terse_arguments(seed, selection))?;
        // Without a line it died.
        Ok::<_, Failure>(runs.into_iter().next().map_or(Found::Panic, |run| run.found))
    };
    let whole = case.whole();
    let found = verdict(&whole)?;
    if found == Found::Nothing {
        out::line(format!("seed {seed}: everything held, there is nothing to shrink"))?;
        return Ok(());
    }
    let mut broken = None;
    let small = shrink(
        case,
        |selection| match verdict(selection) {
            Ok(now) => now == found,
            Err(failure) => {
                broken.get_or_insert(failure);
                false
            }
        },
        |tries, selection| {
            let faults = selection.faults.as_ref().map_or(0, BTreeSet::len);
            out::progress(format!("{tries} runs, {faults} faults left"));
        },
    );
    out::progress("");
    if let Some(failure) = broken {
        return Err(failure);
    }
    let case = Case::draw(seed).select(small.clone());
    describe(&case)?;
    let replay = command(&arguments(seed, &small));
    if found == Found::Panic {
        out::line(format!("an actor died\nreplay: {replay}"))?;
    } else {
        out::line(told(&run_case(&case, seed, &small), &replay))?;
    }
    Err(Failure::new(format!("seed {seed} failed")))
}

// --- many seeds ---------------------------------------------------------------------------------

fn many(arguments: &SimulateArguments) -> Result<(), Failure> {
    let from = arguments.from.unwrap_or_else(fresh);
    let jobs = arguments
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get) as u64);
    let selection = arguments.each();
    let again = format!("simulate --from {from} --seeds {}", arguments.seeds);
    let again = again + &replicated(&selection);
    if !arguments.terse {
        out::line(format!(
            "seeds {from} to {}; again: {}",
            from + arguments.seeds - 1,
            command(&again)
        ))?;
    }
    let started = Instant::now();
    let ended = run_all(from, jobs, arguments)?;
    if arguments.terse {
        return Ok(());
    }
    out::line(&ended.figures)?;
    out::line(format!(
        "wall time   {:.1} s with {jobs} at a time",
        started.elapsed().as_secs_f64()
    ))?;
    if arguments.check_determinism {
        let text = format!("{again} --jobs {jobs} --terse");
        let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        compare(&ended.runs, &words)?;
    }
    if arguments.shrink {
        for seed in &ended.failed {
            let _ = shrunk(&Case::draw(*seed).select(selection.clone()), *seed);
        }
    }
    match ended.failed.as_slice() {
        [] => Ok(out::line("everything held")?),
        [seed] => Err(Failure::new(format!("seed {seed} failed"))),
        seeds => Err(Failure::new(format!("{} seeds failed", seeds.len()))),
    }
}

/// A seed from the clock: milliseconds, of which the last nine digits are enough to be new.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0) % 1_000_000_000
}

/// What many runs came to.
#[derive(Default)]
struct Ended {
    figures: Figures,
    failed: Vec<u64>,
    runs: Vec<Run>,
}

fn run_all(from: u64, jobs: u64, arguments: &SimulateArguments) -> Result<Ended, Failure> {
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let end = from.saturating_add(arguments.seeds);
    let (sender, receiver) = mpsc::channel::<Outcome>();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(arguments.seeds) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let selection = arguments.each();
                    let case = Case::draw(seed).select(selection.clone());
                    let outcome = run_case(&case, seed, &selection);
                    if sender.send(outcome).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let ended = collect(&receiver, arguments, &stop);
        stop.store(true, Ordering::Relaxed);
        ended
    })
}

/// Takes the outcomes as they come; prints what failed at once.
fn collect(
    receiver: &mpsc::Receiver<Outcome>,
    arguments: &SimulateArguments,
    stop: &AtomicBool,
) -> Result<Ended, Failure> {
    let mut ended = Ended::default();
    let (mut shown, mut lined) = (Instant::now(), Instant::now());
    for outcome in receiver {
        ended.figures.add(&outcome);
        if arguments.terse {
            out::line(Run::of(&outcome))?;
            continue;
        }
        if arguments.check_determinism {
            ended.runs.push(Run::of(&outcome));
        }
        if outcome.verdict.is_err() {
            out::progress("");
            let replay = command(&self::arguments(outcome.seed, &outcome.selection));
            out::line(told(&outcome, &replay))?;
            ended.failed.push(outcome.seed);
            if ended.failed.len() >= FAILURES_MAX {
                stop.store(true, Ordering::Relaxed);
            }
        }
        let line = || format!("{} of {} seeds", ended.figures.seeds, arguments.seeds);
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            out::progress(line());
        }
        if lined.elapsed() >= PROGRESS_LINE {
            lined = Instant::now();
            out::progress_line(line());
        }
    }
    out::progress("");
    Ok(ended)
}

/// Runs the same again in another process; every digest must be the same.
fn compare(here: &[Run], arguments: &[String]) -> Result<(), Failure> {
    let there = in_another_process(arguments)?;
    for run in here {
        let Some(other) = there.iter().find(|other| other.seed == run.seed) else {
            return Err(Failure::new(format!(
                "seed {}: the other process ended before it",
                run.seed
            )));
        };
        if other != run {
            return Err(Failure::new(format!(
                "seed {} is not deterministic: here {run}, in another process {other}",
                run.seed
            )));
        }
    }
    let entries: u64 = here.iter().map(|run| run.entries).sum();
    Ok(out::line(format!(
        "determinism {} seeds run again in another process: the same {entries} log entries, byte for byte",
        here.len()
    ))?)
}
