//! Stories for other programs: mermaid, Perfetto, ShiViz, JSON.
//!
//! - **mermaid**: a `sequenceDiagram`, as GitHub and many editors draw it.
//! - **Perfetto**: one JSON array of trace events; a process is a node, a thread one of its actors, a
//!   message an arrow between two slices. A slice stands before the arrows that begin or end in it,
//!   times are microseconds since the Unix epoch, arrows have whole numbers. Open at ui.perfetto.dev.
//! - **ShiViz**: its regular expression, an empty line, then two lines an event. A host is a life of a
//!   node, `5554.17`; its clock starts at 1 and has no gap, so events are numbered anew.
//! - **JSON**: the records as they are, in the diagram's order, a line each.

use super::{
    book::Story,
    diagram::{Arrow, Diagram, Note, Row, micros},
    line::Line,
};
use serde_json::{Value, json};
use simpledynamo_actors::flow::{Actor, Event, RecordId};
use std::collections::BTreeMap;

/// How ShiViz finds host, clock and event in what [`shiviz`] writes.
pub const SHIVIZ_PATTERN: &str = r"(?<host>\S*) (?<clock>{.*})\n(?<event>.*)";

/// A diagram for mermaid.
#[must_use]
pub fn mermaid(diagram: &Diagram) -> String {
    let mut text = String::from("sequenceDiagram\n");
    for (at, column) in diagram.columns.iter().enumerate() {
        text.push_str(&format!("    participant p{at} as {}\n", column.label));
    }
    for row in &diagram.rows {
        match row {
            Row::Arrow(Arrow { at, from, to, label, lost, travel }) => {
                let arrow = if travel.is_some() { "->>" } else { "-x" };
                let why = if lost.is_empty() { String::new() } else { format!(", {lost}") };
                let label = plain(&format!("{label}{why}"));
                text.push_str(&format!("    p{from}{arrow}p{to}: {label} ({})\n", micros(*at)));
            }
            Row::Note(Note { at, column, label, bad: _ }) => {
                let label = plain(label);
                text.push_str(&format!("    Note over p{column}: {label} ({})\n", micros(*at)));
            }
        }
    }
    text
}

/// Text in which mermaid finds no syntax of its own.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '#' | ';' | '<' | '>' | '"' | '&' | '\\' | '%' | '{' | '}' => {
                plain.push_str(&format!("#{};", u32::from(c)));
            }
            c => plain.push(c),
        }
    }
    plain
}

/// Stories as Perfetto's (Chrome's) trace events.
#[must_use]
pub fn perfetto(stories: &[Story]) -> Value {
    let mut events = Vec::new();
    let mut arrows: BTreeMap<RecordId, usize> = BTreeMap::new();
    let mut threads = BTreeMap::new();
    for (at, story) in stories.iter().enumerate() {
        whole(story, at, &mut events);
        for line in &story.lines {
            let actor = part(line);
            threads.insert((line.node, tid(actor)), actor);
            events.push(slice(line, actor));
            let Some(message) = line.message.filter(|_| !line.is_local()) else { continue };
            let next = arrows.len() + 1;
            let id = *arrows.entry(message).or_insert(next);
            let ends = match line.event {
                Event::Send => json!({"ph": "s"}),
                Event::Receive => json!({"ph": "f", "bp": "e"}),
                _ => continue,
            };
            let mut arrow = json!({
                "name": line.kind, "cat": "message", "id": id,
                "pid": line.node, "tid": tid(actor), "ts": line.wall,
            });
            if let (Value::Object(arrow), Value::Object(ends)) = (&mut arrow, ends) {
                arrow.extend(ends);
            }
            events.push(arrow);
        }
    }
    for ((node, thread), actor) in &threads {
        let named = |what: &str, name: String| {
            json!({
                "name": what, "cat": "__metadata", "ph": "M", "pid": node, "tid": thread, "ts": 0,
                "args": {"name": name},
            })
        };
        events.push(named("process_name", format!("node {node}")));
        events.push(named("thread_name", actor.name().to_owned()));
    }
    Value::Array(events)
}

/// The request from its command to its answer, on a thread of its own.
fn whole(story: &Story, at: usize, events: &mut Vec<Value>) {
    let of = |event| story.lines.iter().find(|line| line.event == event);
    let (Some(command), Some(reply)) = (of(Event::Command), of(Event::Reply)) else { return };
    events.push(json!({
        "name": format!("{} {}", command.kind, command.key), "cat": "request", "ph": "X",
        "pid": command.node, "tid": 100 + at, "ts": command.wall, "dur": reply.handling.max(1),
        "args": {"request": story.request.to_string(), "outcome": reply.reason},
    }));
}

fn slice(line: &Line, actor: Actor) -> Value {
    json!({
        "name": format!("{} {}", line.event.name(), line.kind).trim_end(), "cat": "flow", "ph": "X",
        "pid": line.node, "tid": tid(actor), "ts": line.wall, "dur": 1, "args": line,
    })
}

/// The part of the node in which it happened.
fn part(line: &Line) -> Actor {
    let here = |spot: &super::line::Spot| spot.node == line.node;
    let first = if line.event == Event::Receive { line.to } else { line.from };
    first.filter(here).or(line.to.filter(here)).map_or(Actor::Router, |spot| spot.actor)
}

fn tid(actor: Actor) -> usize {
    Actor::ALL.iter().position(|other| *other == actor).unwrap_or(0) + 1
}

/// A story for ShiViz.
#[must_use]
pub fn shiviz(story: &Story) -> String {
    let mut text = format!("{SHIVIZ_PATTERN}\n\n");
    let mut clocks: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut sent: BTreeMap<RecordId, BTreeMap<String, u64>> = BTreeMap::new();
    for line in &story.lines {
        let host = format!("{}.{}", line.node, line.incarnation);
        let mut clock = clocks.remove(&host).unwrap_or_default();
        *clock.entry(host.clone()).or_default() += 1;
        let came = line.message.filter(|_| line.event == Event::Receive);
        for (other, time) in came.and_then(|message| sent.get(&message)).into_iter().flatten() {
            let known = clock.entry(other.clone()).or_default();
            *known = (*known).max(*time);
        }
        if let Some(message) = line.message.filter(|_| line.event == Event::Send) {
            sent.insert(message, clock.clone());
        }
        text.push_str(&format!("{host} {}\n{}\n", json!(clock), event(line)));
        clocks.insert(host, clock);
    }
    text
}

/// A record in one line for people.
fn event(line: &Line) -> String {
    let mut text = line.event.name().to_owned();
    let stamp = line.stamp();
    let key = if line.key.is_empty() { String::new() } else { format!("key={}", line.key) };
    let way = match (line.from, line.to) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        _ => String::new(),
    };
    for word in [line.kind.as_str(), key.as_str(), stamp.as_str(), line.reason.as_str(), &way] {
        if !word.is_empty() {
            text.push(' ');
            text.push_str(word);
        }
    }
    text
}

/// The records of a story, a line each.
#[must_use]
pub fn lines(story: &Story) -> String {
    let taken_down = story.lines.iter().filter(|line| !line.inferred);
    let lines = taken_down.filter_map(|line| serde_json::to_string(line).ok());
    lines.map(|line| line + "\n").collect()
}
