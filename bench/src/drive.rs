//! One run: connect, warm up, count, let what is in flight end.
//!
//! In a closed loop each connection sends its next batch when the last is answered. In an open loop one
//! timer goes through the offered rate and hands each operation to the next client in turn; the client
//! sends it at once, whatever else it waits for.

use crate::{
    etcd,
    machine::{Timer, processor_time, processor_times, strike},
    meter::{Meter, Record},
    plan::{Blow, Plan, Protocol, Supply},
    redis,
};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{task::spawn_local, time::sleep};

/// How often connections are looked at for what waits too long.
const SWEEP: Duration = Duration::from_millis(20);
/// Beyond the clients' own patience, how long the end of a run waits for what is in flight.
const GRACE: Duration = Duration::from_millis(500);

/// What all clients of a run share.
pub struct Run {
    pub plan: Plan,
    pub supply: Rc<Supply>,
    pub meter: RefCell<Option<Meter>>,
    /// No further operation begins.
    pub over: Cell<bool>,
}

impl Run {
    pub fn done(&self, due: Instant, now: Instant, live: bool) {
        if let Some(meter) = self.meter.borrow_mut().as_mut() {
            meter.done(due, now, live);
        }
    }

    pub fn failed(&self, due: Instant, now: Instant, live: bool, why: &str) {
        if let Some(meter) = self.meter.borrow_mut().as_mut() {
            meter.failed(due, now, live, why);
        }
    }

    /// Whether the address at this place is not the victim's.
    pub fn is_live(&self, address: std::net::SocketAddr) -> bool {
        self.plan.victim != Some(address)
    }
}

/// All clients of one protocol.
pub trait Clients {
    /// Begins work in a closed loop.
    fn begin(&self);
    /// Sends one operation, due then, from client number `client`.
    fn issue(&self, client: usize, due: Instant);
    /// Gives up what waits for too long.
    fn sweep(&self, now: Instant);
    /// Whether nothing is in flight.
    fn is_idle(&self) -> bool;
    /// Counts all that is still in flight as failed.
    fn give_up(&self, now: Instant);
}

/// Does the run.
pub async fn run(plan: Plan) -> io::Result<Record> {
    plan.check()?;
    raise_open_files();
    let supply = Rc::new(Supply::new(plan.keys, plan.value_bytes, plan.workload)?);
    let run = Rc::new(Run { plan, supply, meter: RefCell::new(None), over: Cell::new(false) });
    let clients: Rc<dyn Clients> = match run.plan.protocol {
        Protocol::Redis => Rc::new(redis::connect(&run).await?),
        Protocol::Etcd => Rc::new(etcd::connect(&run).await?),
    };
    let begin = Instant::now();
    let from = begin + Duration::from_secs_f64(run.plan.warmup);
    let until = from + Duration::from_secs_f64(run.plan.seconds);
    *run.meter.borrow_mut() = Some(Meter::new(from, until, run.plan.is_open())?);
    let offered = if run.plan.is_open() {
        Some(spawn_local(offer(Rc::clone(&run), Rc::clone(&clients), begin, until)))
    } else {
        clients.begin();
        None
    };
    let sweeper = spawn_local(sweep(Rc::clone(&clients)));
    if let (Some(blow), Some(pid)) = (run.plan.blow, run.plan.victim_pid) {
        let at = from + Duration::from_secs_f64(run.plan.blow_after);
        spawn_local(async move {
            sleep(at.saturating_duration_since(Instant::now())).await;
            if let Err(error) = strike(pid, blow == Blow::Kill) {
                eprintln!("load: process {pid} could not be struck: {error}");
            }
        });
    }
    sleep(from.saturating_duration_since(Instant::now())).await;
    let before = used(&run);
    sleep(until.saturating_duration_since(Instant::now())).await;
    let after = used(&run);
    run.over.set(true);
    let patience = Instant::now() + run.plan.timeout() + GRACE;
    let is_late = || offered.as_ref().is_some_and(|offered| !offered.is_finished());
    while (is_late() || !clients.is_idle()) && Instant::now() < patience {
        sleep(SWEEP).await;
    }
    sweeper.abort();
    clients.give_up(Instant::now());
    let meter = run.meter.borrow_mut().take();
    let meter = meter.ok_or_else(|| io::Error::other("the run was measured twice"))?;
    let between =
        |before: Option<Duration>, after: Option<Duration>| Some(after?.saturating_sub(before?));
    Ok(meter.record(&run.plan, between(before.0, after.0), between(before.1, after.1)))
}

/// Processor time of the servers and of this process.
fn used(run: &Run) -> (Option<Duration>, Option<Duration>) {
    (processor_times(&run.plan.server_pid), processor_time(std::process::id()))
}

/// Hands out operations at the offered rate.
async fn offer(run: Rc<Run>, clients: Rc<dyn Clients>, begin: Instant, until: Instant) {
    let timer = match Timer::new() {
        Ok(timer) => timer,
        Err(error) => return eprintln!("load: no timer: {error}"),
    };
    for number in 0u64.. {
        let due = begin + Duration::from_secs_f64(number as f64 / run.plan.rate);
        if due >= until {
            return;
        }
        // Also where it is late, so that replies are read between.
        let pause = due > Instant::now() || number.is_multiple_of(64);
        if pause && let Err(error) = timer.until(due).await {
            return eprintln!("load: the timer failed: {error}");
        }
        clients.issue((number % run.plan.connections as u64) as usize, due);
    }
}

async fn sweep(clients: Rc<dyn Clients>) {
    loop {
        sleep(SWEEP).await;
        clients.sweep(Instant::now());
    }
}

/// Thousands of connections need as many descriptors. Where the limit cannot be raised, connecting says
/// what is wrong.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
