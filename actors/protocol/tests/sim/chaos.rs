//! How unkind a run is: each seed draws its own mixture, so that some runs are nearly quiet and
//! others lack a whole kind of fault ("swarm testing", Groce et al., ISSTA '12).

use super::rng::Rng;

/// Rates of a run. Chances are in a thousand, times in microseconds.
#[derive(Clone, Debug)]
pub struct Chaos {
    pub nodes: usize,
    pub clients: u32,
    pub operations: u32,
    pub think: u64,
    pub loss: u64,
    pub duplication: u64,
    pub delay: u64,
    pub slow: u64,
    pub slow_delay: u64,
    pub sync: u64,
    pub stall: u64,
    /// Between two faults; none where there are no faults.
    pub fault_every: Option<u64>,
    /// Which kinds of fault, by weight: crash, pause, cut, wipe.
    pub weights: [u64; 4],
    pub fault_lasts: u64,
    /// Until a client is told something at the latest.
    pub deadline: u64,
    /// Milliseconds that wall clocks differ at most.
    pub skew: u64,
    pub time_to_live: u64,
    pub compare: u64,
    pub drop_idle: u64,
    /// One fault at a time and no loss: then every operation must succeed.
    pub single: bool,
    /// The least wait before a request is hedged.
    pub hedge: u64,
}

impl Chaos {
    pub fn draw(rng: &mut Rng) -> Chaos {
        let mut some = |of: &[u64]| *rng.pick(of);
        let chaos = Chaos {
            nodes: if some(&[3, 5, 5]) == 3 { 3 } else { 5 },
            clients: 3 + some(&[0, 1, 2, 4]) as u32,
            operations: 8 + some(&[0, 6, 12]) as u32,
            think: some(&[200, 5_000, 40_000]),
            loss: some(&[0, 0, 10, 80, 250]),
            duplication: some(&[0, 30, 200]),
            delay: some(&[300, 1_000, 5_000]),
            slow: some(&[0, 10, 100]),
            slow_delay: some(&[20_000, 150_000, 600_000]),
            sync: some(&[100, 1_000, 5_000]),
            stall: some(&[0, 0, 20]),
            fault_every: [None, Some(30_000), Some(120_000), Some(400_000)]
                [some(&[0, 1, 2, 2, 3, 3]) as usize],
            weights: [some(&[0, 1, 3]), some(&[0, 1, 2]), some(&[0, 1, 2]), some(&[0, 0, 1])],
            fault_lasts: some(&[5_000, 60_000, 300_000, 2_500_000]),
            deadline: some(&[250_000, 2_000_000]),
            skew: some(&[0, 30, 400]),
            time_to_live: some(&[0, 0, 100, 300]),
            compare: some(&[0, 100, 700]),
            drop_idle: some(&[0, 100, 900]),
            single: some(&[0, 0, 0, 1]) == 1,
            hedge: some(&[1_000, 10_000, 1_000_000]),
        };
        if some(&[0, 0, 0, 0, 0, 1]) == 1 {
            chaos.hasty()
        } else if chaos.single {
            Chaos {
                loss: 0,
                slow: 0,
                stall: 0,
                deadline: 2_000_000,
                fault_lasts: chaos.fault_lasts.min(1_000_000),
                ..chaos
            }
        } else {
            chaos
        }
    }

    /// Stores are lost and learned again while messages of the former life are under way, slow disks
    /// hold others up, and nothing is so quick as a learner.
    pub fn hasty(self) -> Chaos {
        Chaos {
            nodes: 3,
            operations: 20,
            think: 5_000,
            loss: 10,
            delay: 300,
            slow: 300,
            slow_delay: 150_000,
            stall: 300,
            fault_every: Some(15_000),
            weights: [2, 0, 1, 6],
            fault_lasts: 1_000,
            compare: 700,
            single: false,
            ..self
        }
    }
}
