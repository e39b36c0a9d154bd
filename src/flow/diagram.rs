//! A story as a sequence diagram, before it is drawn: columns, and rows from top to bottom.
//!
//! One row a message, at the place where it arrived (where it was sent, if it never did), and one a
//! decision. Messages within a node are no arrows: of an answer of the own replica a note remains.
//! The terminal, mermaid, the page and the HTML file draw this same model.

use super::{book::Story, line::Line};
use serde::Serialize;
use simpledynamo_actors::flow::{Event, RecordId};
use std::collections::BTreeMap;

/// A sequence diagram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagram {
    /// The request's id.
    pub request: String,
    /// What was asked: `SET greeting`.
    pub title: String,
    /// How it ended: `done`, or why not; empty while it has not.
    pub outcome: String,
    /// Microseconds from the command to the answer; none while there is none.
    pub took: Option<u64>,
    /// When the first row was, microseconds since the Unix epoch.
    pub began: u64,
    /// From left to right; the client is the first.
    pub columns: Vec<Column>,
    /// From top to bottom.
    pub rows: Vec<Row>,
    /// What is missing, in words.
    pub missing: Vec<String>,
}

/// One participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The node; 0 for the client.
    pub node: u32,
    /// `client`, or the node's id.
    pub label: String,
}

/// One line of the diagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "row", rename_all = "lowercase")]
pub enum Row {
    /// A message between two participants.
    Arrow(Arrow),
    /// A decision, or what a node did.
    Note(Note),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrow {
    /// Microseconds since the first row, where the row stands.
    pub at: u64,
    /// Microseconds from the sending to the receipt; none if it was not received.
    pub travel: Option<u64>,
    /// Index of the sender's column.
    pub from: usize,
    /// Index of the receiver's column.
    pub to: usize,
    /// `Accept v8`.
    pub label: String,
    /// Why it did not arrive; empty if it did.
    pub lost: String,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Microseconds since the first row.
    pub at: u64,
    /// Index of the column it stands at.
    pub column: usize,
    /// What, in a few words.
    pub label: String,
    /// Whether something went wrong.
    pub bad: bool,
}

/// Draws the model of a story.
#[must_use]
pub fn diagram(story: &Story) -> Diagram {
    let mut drawing = Drawing::new(story);
    for line in &story.lines {
        drawing.line(line);
    }
    drawing.diagram
}

struct Drawing<'a> {
    diagram: Diagram,
    columns: BTreeMap<u32, usize>,
    /// What became of each message: when it was received, or why not.
    fates: BTreeMap<RecordId, &'a Line>,
    sent: BTreeMap<RecordId, &'a Line>,
}

impl<'a> Drawing<'a> {
    fn new(story: &'a Story) -> Drawing<'a> {
        let (mut fates, mut sent) = (BTreeMap::new(), BTreeMap::new());
        for line in &story.lines {
            let Some(message) = line.message else { continue };
            match line.event {
                Event::Receive | Event::Drop => {
                    fates.insert(message, line);
                }
                Event::Send => {
                    sent.insert(message, line);
                }
                _ => {}
            }
        }
        let client = Column { node: 0, label: "client".to_owned() };
        let diagram = Diagram {
            request: story.request.to_string(),
            began: story.lines.first().map_or(0, |line| line.wall),
            columns: vec![client],
            missing: story.missing.clone(),
            ..Diagram::default()
        };
        Drawing { diagram, columns: BTreeMap::new(), fates, sent }
    }

    fn column(&mut self, node: u32) -> usize {
        let columns = &mut self.diagram.columns;
        *self.columns.entry(node).or_insert_with(|| {
            columns.push(Column { node, label: node.to_string() });
            columns.len() - 1
        })
    }

    fn line(&mut self, line: &Line) {
        match line.event {
            Event::Command => {
                self.diagram.title = format!("{} {}", line.kind, line.key);
                let label = self.diagram.title.clone();
                self.client(line, true, label);
            }
            Event::Reply => {
                self.diagram.took = Some(line.handling);
                self.diagram.outcome.clone_from(&line.reason);
                self.client(line, false, line.reason.clone());
            }
            Event::Send if line.is_local() => self.local(line),
            Event::Send => self.sending(line),
            Event::Drop => self.drop(line),
            Event::Receive => self.receipt(line),
            _ => {
                if let Some((label, bad)) = decision(line) {
                    self.note(line, label, bad);
                }
            }
        }
    }

    fn at(&self, line: &Line) -> u64 {
        line.wall.saturating_sub(self.diagram.began)
    }

    fn client(&mut self, line: &Line, command: bool, label: String) {
        let (at, column) = (self.at(line), self.column(line.node));
        let (from, to) = if command { (0, column) } else { (column, 0) };
        let lost = String::new();
        let arrow = Arrow { at, travel: Some(0), from, to, label, lost };
        self.diagram.rows.push(Row::Arrow(arrow));
    }

    fn arrow(&mut self, line: &Line, travel: Option<u64>, lost: String) {
        let Some((from, to)) = line.from.zip(line.to) else { return };
        let at = self.at(line);
        let (from, to) = (self.column(from.node), self.column(to.node));
        let arrow = Arrow { at, travel, from, to, label: label(line), lost };
        self.diagram.rows.push(Row::Arrow(arrow));
    }

    /// A message that arrived stands where it arrived.
    fn sending(&mut self, line: &Line) {
        // The sender's column comes first, whoever is heard first.
        self.column(line.node);
        let fate = line.message.and_then(|message| self.fates.get(&message));
        match fate.map(|fate| fate.event) {
            Some(Event::Receive | Event::Drop) => {}
            _ => self.arrow(line, None, "never received".to_owned()),
        }
    }

    fn drop(&mut self, line: &Line) {
        self.arrow(line, None, line.reason.clone());
    }

    fn receipt(&mut self, line: &Line) {
        let sent = line.message.and_then(|message| self.sent.get(&message));
        let travel = sent.map_or(0, |sent| line.wall.saturating_sub(sent.wall));
        self.arrow(line, Some(travel), String::new());
    }

    fn local(&mut self, line: &Line) {
        let label = match line.kind.as_str() {
            "Request" => "coordinates it itself".to_owned(),
            "Accepted" | "Promise" | "State" | "Refused" | "NoVote" => {
                format!("own {}{}", label(line), worked(line))
            }
            _ => return,
        };
        self.note(line, label, matches!(line.kind.as_str(), "Refused" | "NoVote"));
    }

    fn note(&mut self, line: &Line, label: String, bad: bool) {
        let (at, column) = (self.at(line), self.column(line.node));
        self.diagram.rows.push(Row::Note(Note { at, column, label, bad }));
    }
}

/// `Accept v8`: short, because it stands on an arrow; the ballot is in the notes.
fn label(line: &Line) -> String {
    let mut label = line.kind.clone();
    // Of a message that was dropped the reason says why.
    let said = if line.event == Event::Drop { "" } else { line.reason.as_str() };
    let version = || if line.version == 0 { String::new() } else { format!("v{}", line.version) };
    let rest = match line.kind.as_str() {
        "Request" if line.attempt > 1 => {
            format!("{said} #{}", line.attempt).trim_start().to_owned()
        }
        "Request" | "Answer" | "NoVote" => said.to_owned(),
        "State" if line.version == 0 => "nothing".to_owned(),
        "Prepare" | "Refused" => line.ballot.clone(),
        "Query" => String::new(),
        _ => version(),
    };
    if !rest.is_empty() {
        label.push(' ');
        label.push_str(&rest);
    }
    label
}

/// How long an answer waited and took, where that is worth a word.
fn worked(line: &Line) -> String {
    match (line.queue, line.handling) {
        (0..1_000, 0..1_000) => String::new(),
        (queue, handling) if queue > handling => format!(", waited {}", micros(queue)),
        (_, handling) => format!(", took {}", micros(handling)),
    }
}

/// What a decision says, and whether it is bad news.
fn decision(line: &Line) -> Option<(String, bool)> {
    let to = line.to.map(|to| to.node).unwrap_or_default();
    let stamp = line.stamp();
    Some(match line.event {
        Event::Choose => (format!("asks {to}: {}", line.reason), false),
        Event::TimeOut => (format!("{to} silent for {}", micros(line.handling)), true),
        Event::Retry => (format!("tries {to}: attempt {}, {}", line.attempt, line.reason), true),
        Event::Suspect => (format!("suspects {to}"), true),
        Event::Trust => (format!("trusts {to} again"), false),
        Event::Round => match line.kind.as_str() {
            "Begin" => ("wants a ballot".to_owned(), false),
            "Prepare" => (format!("prepares {stamp}"), false),
            "Accept" => (format!("proposes {stamp}"), false),
            _ if stamp.is_empty() => ("asks the replicas".to_owned(), false),
            _ => (format!("asks all, believes {stamp}"), false),
        },
        Event::Join => ("joins the round".to_owned(), false),
        Event::Quorum => match line.kind.as_str() {
            "Prepare" => (format!("quorum: owns {}", line.ballot), false),
            "Accept" => (format!("quorum: {stamp} is chosen"), false),
            _ if stamp.is_empty() => ("quorum: no value".to_owned(), false),
            _ => (format!("quorum: {stamp}"), false),
        },
        Event::WriteBack => ("no agreement: writes back".to_owned(), true),
        Event::GiveUp => (format!("gives the {} up {}", line.kind, line.ballot), true),
        Event::BackOff => (format!("pauses {}", micros(line.queue)), true),
        Event::Crash => (format!("crashes: {}", line.reason), true),
        Event::Command
        | Event::Reply
        | Event::Send
        | Event::Receive
        | Event::Drop
        | Event::Level
        | Event::Start
        | Event::Stop
        | Event::Lost => return None,
    })
}

/// A span as people read it: `412 µs`, `8.3 ms`, `1.20 s`.
#[must_use]
pub fn micros(span: u64) -> String {
    match span {
        0..1_000 => format!("{span} µs"),
        1_000..100_000 => format!("{}.{} ms", span / 1_000, span % 1_000 / 100),
        100_000..1_000_000 => format!("{} ms", span / 1_000),
        _ => format!("{}.{:02} s", span / 1_000_000, span % 1_000_000 / 10_000),
    }
}
