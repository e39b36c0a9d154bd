//! Makes a failing run small: fewest faults first, then operations, then clients.
//!
//! Faults are left out in ever smaller groups, as delta debugging does (Zeller & Hildebrandt, TSE
//! '02); what remains is needed, each of it, as far as single omissions tell. Leaving something out
//! shifts every later draw, so a run may pass by chance: the result is small, not the smallest.

use super::case::{Case, Selection};
use std::collections::BTreeSet;

/// Runs that are tried.
const TRIES_MAX: u32 = 400;

/// The smallest selection of a case found for which `fails` still says so. `tried` hears of each
/// success: the number of tries, the faults left, operations and clients.
pub fn shrink(
    case: &Case,
    mut fails: impl FnMut(&Selection) -> bool,
    mut smaller: impl FnMut(u32, &Selection),
) -> Selection {
    let (clients, operations) = case.load();
    let all: BTreeSet<usize> = case.schedule().into_iter().map(|(number, _)| number).collect();
    let mut best = Selection {
        faults: Some(all),
        operations: Some(operations),
        clients: Some(clients),
        replication: case.selection.replication,
    };
    let mut tries = 0;
    let mut attempt = |candidate: Selection, best: &mut Selection| {
        tries += 1;
        let better = tries <= TRIES_MAX && fails(&candidate);
        if better {
            *best = candidate;
            smaller(tries, best);
        }
        better
    };
    let fewer = |best: &mut Selection,
                 attempt: &mut dyn FnMut(Selection, &mut Selection) -> bool| {
        let mut size = best.faults.as_ref().map_or(0, BTreeSet::len);
        while size > 0 {
            let mut at = 0;
            loop {
                let left: Vec<usize> = best.faults.iter().flatten().copied().collect();
                if at >= left.len() {
                    break;
                }
                let inside = |place: usize| (at..at + size).contains(&place);
                let rest = left.iter().enumerate().filter(|(place, _)| !inside(*place));
                let faults = Some(rest.map(|(_, number)| *number).collect());
                if !attempt(Selection { faults, ..best.clone() }, best) {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    };
    fewer(&mut best, &mut attempt);
    for (part, of) in [(1, 8), (1, 4), (1, 2), (3, 4), (7, 8)] {
        let operations = best.operations.map(|count| (count * part / of).max(1));
        attempt(Selection { operations, ..best.clone() }, &mut best);
    }
    for count in [2, 3, 5] {
        if best.clients.is_some_and(|clients| count < clients)
            && attempt(Selection { clients: Some(count), ..best.clone() }, &mut best)
        {
            break;
        }
    }
    fewer(&mut best, &mut attempt);
    best
}
