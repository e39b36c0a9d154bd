//! Messages for people: the short form that logs, scripts and flow records show.
//!
//! Caveat: values are left out, and with them what two messages that look alike may differ in.

use super::{Held, Message, Outcome};
use crate::record::Record;
use std::fmt;

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Message::Request(m) => {
                write!(f, " key={} op={} #{} {}", m.key, m.op, m.attempt, m.command)
            }
            Message::Answer(m) => write!(f, " op={} #{} {}", m.op, m.attempt, m.outcome),
            Message::Prepare(m) => write!(f, " key={} ballot={}", m.key, m.ballot),
            Message::Promise(m) => {
                write!(f, " key={} ballot={} holds {}", m.key, m.ballot, Shown(m.record.as_ref()))
            }
            Message::Accept(m) => write!(f, " key={} {}", m.key, m.record),
            Message::Accepted(m) => write!(f, " key={} {}", m.key, m.stamp),
            Message::Refused(m) => {
                write!(f, " key={} ballot={} for {}", m.key, m.asked, m.promised)
            }
            Message::Query(m) => write!(f, " key={}", m.key),
            Message::State(m) => match &m.held {
                Held::Nothing => write!(f, " key={} holds nothing", m.key),
                Held::Same(stamp) => write!(f, " key={} holds the same {stamp}", m.key),
                Held::Record(record) => write!(f, " key={} holds {record}", m.key),
            },
            Message::NoVote(m) => write!(f, " key={} {:?}", m.key, m.reason),
            Message::AskDigests(m) => write!(f, " range={}", m.range.0),
            Message::Digests(m) => write!(f, " range={} live={}", m.range.0, m.live),
            Message::AskList(m) => write!(f, " range={} {:016x}–{:016x}", m.range.0, m.from, m.to),
            Message::Listed(m) => write!(f, " rows={}", m.rows.len()),
            Message::Fetch(m) => write!(f, " keys={}", m.keys.len()),
            Message::Records(m) => write!(f, " records={}", m.records.len()),
            Message::Collect(m) => write!(f, " key={} {}", m.key, m.stamp),
            Message::Greet(m) => write!(f, " store={:016x}", m.store),
            Message::Welcome(m) => {
                write!(f, " known_store={:016x} ceiling={}", m.known_store, m.ceiling)
            }
            Message::Keep(m) => write!(f, " key={} op={} of {} ms ago", m.key, m.op, m.ago),
            Message::ConfigRound(m) => write!(f, " range={} {m}", m.range.0),
            Message::Forward(m) => write!(f, " {m}"),
            Message::Acked(m) => write!(f, " {m}"),
            Message::Confirm(m) => write!(f, " range={} e{}", m.range.0, m.config.epoch),
            Message::Confirmed(m) => write!(f, " range={} e{}", m.range.0, m.epoch),
            Message::Survey(m) => write!(f, " range={} e{}", m.range.0, m.config.epoch),
            Message::Present(m) => write!(f, " range={} e{} {:?}", m.range.0, m.epoch, m.fitness),
            Message::Announce(m) => write!(f, " range={} {}", m.range.0, m.config),
            Message::Attach(m) => write!(f, " range={} e{}", m.range.0, m.config.epoch),
            Message::Attached(m) => write!(f, " range={} e{}", m.range.0, m.epoch),
            Message::Probe(_) | Message::Alive(_) | Message::Missed(_) => Ok(()),
        }
    }
}

struct Shown<'a>(Option<&'a Record>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(record) => record.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done { reply, recorded } => {
                write!(f, "done {reply:?}{}", if *recorded { " recorded" } else { "" })
            }
            Outcome::NotProposed(reason) => write!(f, "not proposed: {reason:?}"),
            Outcome::Unknown => f.write_str("unknown"),
            Outcome::ResultLost => f.write_str("applied, result not kept"),
        }
    }
}
