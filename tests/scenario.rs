//! The scenario of docs/testing.md, word for word, on both backends.

use simpledynamo::processes::processes;
use simpledynamo_actors::harness::{Cluster, Failure, Faults, Mix, ms, play, sim};

fn coordinator_dies_and_a_disk_is_lost(t: &mut impl Cluster) -> Result<(), Failure> {
    t.after(ms(50), |t| t.partition(&["5554"]).one_way());
    t.after(ms(900), |t| t.heal());
    t.clients(5).run(Mix::default().keys(10)).start();
    t.progress(200)?;
    t.crash("5558");
    t.progress(200)?;
    t.restart("5558").wipe_disk();
    t.until_serving()?;
    t.pause("5560", ms(300));
    let history = t.finish()?;
    t.heal_and_settle()?;
    Ok(history.assert_linearizable()?)
}

#[test]
fn simulated() -> Result<(), Failure> {
    play(sim(7), coordinator_dies_and_a_disk_is_lost)
}

#[test]
fn on_processes() -> Result<(), Failure> {
    play(processes(7), coordinator_dies_and_a_disk_is_lost)
}
