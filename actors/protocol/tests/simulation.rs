//! The register under random schedules and faults; see [`sim`].
mod sim;

#[test]
fn seeds() {
    let from: u64 = std::env::var("FROM").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("COUNT").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    let (mut steps, mut ops, mut chosen, mut unk) = (0, 0, 0, 0);
    for seed in from..from + count {
        match std::panic::catch_unwind(|| sim::run(seed, None)) {
            Ok(Ok(e)) => {
                steps += e.steps;
                ops += e.history.operations.len();
                chosen += e.chosen;
                unk += e.history.outcomes().2 + e.history.outcomes().1 * 1000000
            }
            Ok(Err(v)) => println!("seed {seed}: {} {}", v.rule, v.text),
            Err(_) => println!("seed {seed}: panic"),
        }
    }
    println!("steps {steps} ops {ops} chosen {chosen} unknown {unk}");
}
