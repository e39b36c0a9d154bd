mod histories;
use histories::*;
use simpledynamo_protocol::checker;
use std::time::Instant;
#[test]
fn probe() {
    for (clients, lost, operations) in [
        (8, 0, 1000),
        (8, 2, 1000),
        (8, 5, 1000),
        (16, 0, 2000),
        (16, 1, 2000),
        (16, 2, 2000),
        (32, 0, 3000),
        (32, 2, 3000),
    ] {
        for seed in 0..3 {
            let h = record(&Run { seed, clients, keys: 1, operations, lost, unlike: true });
            let t = Instant::now();
            let r = checker::check(&h);
            let d = t.elapsed();
            println!(
                "good {clients} {lost} {operations}: {:?} {}",
                d,
                r.to_string().lines().take(2).collect::<Vec<_>>().join(" ")
            );
        }
    }
    let t = Instant::now();
    let h = record(&Run {
        seed: 7,
        clients: 32,
        keys: 1000,
        operations: 200_000,
        lost: 1,
        unlike: true,
    });
    println!("rec {:?}", t.elapsed());
    let t = Instant::now();
    let r = checker::check(&h);
    println!("200k {:?} {}", t.elapsed(), r);
}
use simpledynamo_protocol::{
    command::{Command, Reply},
    history::{History, Outcome},
};
fn one_wrong_read(mut history: History) -> History {
    let reads: Vec<usize> = (0..history.operations.len())
        .filter(|index| {
            let operation = &history.operations[*index];
            operation.command == Command::Get && matches!(operation.outcome, Outcome::Reply(_))
        })
        .collect();
    let late = reads[reads.len() * 3 / 4];
    let stale = reads[..reads.len() / 2]
        .iter()
        .map(|read| &history.operations[*read].outcome)
        .rfind(|outcome| matches!(outcome, Outcome::Reply(Reply::Bulk(value)) if value.len() > 2))
        .unwrap();
    history.operations[late].outcome = stale.clone();
    history
}
#[test]
fn bad() {
    for (clients, lost, operations) in [
        (4, 0, 300),
        (8, 0, 300),
        (8, 2, 300),
        (8, 0, 1000),
        (8, 2, 1000),
        (10, 0, 1000),
        (10, 2, 1000),
        (16, 0, 1000),
    ] {
        for seed in 0..3 {
            let h = one_wrong_read(record(&Run {
                seed,
                clients,
                keys: 1,
                operations,
                lost,
                unlike: true,
            }));
            let reg = checker::register::Register { value_bytes_max: 1 << 20 };
            let t = Instant::now();
            let r = checker::check_with(reg, &h, 300_000);
            let d = t.elapsed();
            println!("bad {clients} {lost} {operations}: {:?} {}", d, r);
        }
    }
}
