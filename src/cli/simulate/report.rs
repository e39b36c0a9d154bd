//! A run in one line, for comparing and for the process that asked; a failure in words.

use simpledynamo_actors::harness::swarm::{Broke, Outcome};
use std::{fmt, str::FromStr};

/// What a run found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Invariant,
    History,
    Availability,
    Convergence,
    Panic,
}

/// Their words in a line.
const WORDS: [(Found, &str); 6] = [
    (Found::Nothing, "held"),
    (Found::Invariant, "invariant"),
    (Found::History, "history"),
    (Found::Availability, "availability"),
    (Found::Convergence, "convergence"),
    (Found::Panic, "panic"),
];

/// A run as its digest. `Display` and `FromStr`: `17 40213 0123456789abcdef held`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) seed: u64,
    /// Entries of its message log.
    pub(super) entries: u64,
    /// Their digest.
    digest: u64,
    pub(super) found: Found,
}

impl Run {
    pub(super) fn of(outcome: &Outcome) -> Run {
        let found = match outcome.broke {
            None => Found::Nothing,
            Some(Broke::Invariant) => Found::Invariant,
            Some(Broke::History) => Found::History,
            Some(Broke::Availability) => Found::Availability,
            Some(Broke::Convergence) => Found::Convergence,
            Some(Broke::Panic) => Found::Panic,
        };
        let (entries, digest) = outcome.digest;
        Run { seed: outcome.seed, entries, digest, found }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(found, _)| *found == self.found).map_or("", |it| it.1);
        write!(f, "{} {} {:016x} {word}", self.seed, self.entries, self.digest)
    }
}

impl FromStr for Run {
    type Err = ();

    fn from_str(text: &str) -> Result<Run, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let seed = word()?.parse().map_err(|_| ())?;
        let entries = word()?.parse().map_err(|_| ())?;
        let digest = u64::from_str_radix(word()?, 16).map_err(|_| ())?;
        let found = word()?;
        let found = WORDS.iter().find(|(_, known)| *known == found).ok_or(())?.0;
        Ok(Run { seed, entries, digest, found })
    }
}

/// A failure as a person reads it, with the one command that replays it.
pub(super) fn told(outcome: &Outcome, replay: &str) -> String {
    let what = match &outcome.verdict {
        Ok(()) => "everything held".to_owned(),
        Err(failure) => failure.to_string(),
    };
    format!("seed {} FAILED: {}\nreplay: {replay}", outcome.seed, what.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_as_they_are_written() {
        for (found, _) in WORDS {
            let run = Run { seed: 7, entries: 40_213, digest: 0x0123_4567_89ab_cdef, found };
            assert_eq!(run.to_string().parse(), Ok(run));
        }
        assert_eq!("7 40213".parse::<Run>(), Err(()));
        assert_eq!("7 1 zz held".parse::<Run>(), Err(()));
    }
}
