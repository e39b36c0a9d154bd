//! `flow`: what happened to a request, as a picture.
//!
//! Records are read from the files of all nodes and, over http, from the memory of those that run. With
//! `--request` that request is drawn; without, the newest that the filters leave.

use super::{
    Failure, Place,
    out::{self, BOLD, PLAIN, RED},
};
use crate::{
    config::{Cluster, parse_time},
    flow::{Book, Story, Summary, diagram, export, gather, html, text},
};
use clap::{Args, ValueEnum};
use simpledynamo_actors::flow::{ShortKey, request_id};
use simpledynamo_protocol::{recent::OpId, ring::NodeId};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often a ring that is followed is asked.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// How long after its answer a request's last records may come, microseconds: the third replica's
/// vote is not waited for.
const SETTLED: u64 = 300_000;
/// Records that following keeps, and of how many seconds, where there are more.
const FOLLOWED: (usize, u64) = (200_000, 30);
/// How much clocks of machines may differ, microseconds, where all records of a time are asked for.
const CLOCKS_DIFFER: u64 = 20_000;
/// Requests in a list without a filter.
const LISTED: usize = 20;

pub(super) const EXAMPLES: &str = "\
Examples:
  redis-cli -p 11108 dynamo flow on     in a session of its own: write every message of it down
  redis-cli -p 11108 dynamo last        the id of the session's last request
  dynamo flow                           the newest requests
  dynamo flow --request 5554-17-203     one, as a picture
  dynamo flow --slow 20ms --follow      slow ones, as they happen
  dynamo flow --key cart --format mermaid

Which requests are there is the ring's `flow` under [logging]; docs/inspection.md explains it.";

/// `flow`
#[derive(Args, Debug)]
pub(super) struct FlowArguments {
    /// This request, as DYNAMO LAST, errors and the list name it.
    #[arg(long, value_name = "ID", value_parser = request_id)]
    request: Option<OpId>,
    /// Requests on this key.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Requests that took so long, such as 20ms, or have waited so long and are not answered yet.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    slow: Option<Duration>,
    /// Requests that ended with an error.
    #[arg(long)]
    failed: bool,
    /// Requests that began so long ago at most.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    since: Duration,
    /// Requests that this node took from the client or coordinated.
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
    /// Show requests as they end, until Ctrl-C; asks running nodes only.
    #[arg(long)]
    follow: bool,
    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Draw so many requests at most, the newest.
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,
    /// A line a request instead of pictures.
    #[arg(long)]
    list: bool,
}

/// What a story is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A sequence diagram for the terminal.
    Text,
    /// A sequence diagram for mermaid.
    Mermaid,
    /// A page to open in a browser.
    Html,
    /// A trace for ui.perfetto.dev.
    Perfetto,
    /// A log for ShiViz.
    Shiviz,
    /// The records.
    Json,
}

/// Reads, chooses, draws.
pub(super) async fn run(
    cluster: &Cluster,
    place: &Place,
    arguments: &FlowArguments,
) -> Result<(), Failure> {
    if let Some(node) = arguments.node {
        cluster.node(node)?;
    }
    if arguments.follow {
        return follow(cluster, arguments).await;
    }
    // Gathering takes its time, too: who had no answer when it began has not waited all that longer.
    let asked = now();
    let mut book = gathered(cluster, place, arguments).await?;
    if let Some(request) = arguments.request {
        complete(cluster, place, &mut book, request).await?;
        let story = book.story(request).ok_or_else(|| unknown(request))?;
        return write(&[story], arguments.format);
    }
    let mut chosen: Vec<_> =
        book.summaries().into_iter().filter(|summary| arguments.wants(summary, asked)).collect();
    if chosen.is_empty() && arguments.failed {
        let among = book.len();
        out::note(format!("no request that fits is known to have failed, among {among} records"));
        return Ok(());
    }
    if chosen.is_empty() {
        return Err(Failure::new(format!(
            "no request is known that fits, among {} records: DYNAMO FLOW ON in a session has its \
             requests written, flow = \"all\" under [logging] those of all",
            book.len()
        )));
    }
    if arguments.list || !arguments.filters() {
        let most = if arguments.list { usize::MAX } else { LISTED };
        return list(chosen.split_off(chosen.len().saturating_sub(most)).as_slice());
    }
    let older = chosen.len().saturating_sub(arguments.limit);
    let newest = chosen.split_off(older);
    for summary in &newest {
        complete(cluster, place, &mut book, summary.request).await?;
    }
    let stories: Vec<_> = newest.iter().filter_map(|summary| book.story(summary.request)).collect();
    write(&stories, arguments.format)?;
    if older > 0 {
        out::note(format!("{older} earlier ones fit too: --list names them, --limit draws more"));
    }
    Ok(())
}

fn unknown(request: OpId) -> Failure {
    Failure::new(format!(
        "nothing is known of request {request}: it was not written, and it is not in a running \
         node's memory any more; DYNAMO FLOW ON in a session has its requests written"
    ))
}

impl FlowArguments {
    fn filters(&self) -> bool {
        let FlowArguments { key, slow, failed, node, format, .. } = self;
        key.is_some() || slow.is_some() || *failed || node.is_some() || *format != Format::Text
    }

    /// Whether it fits. What has no answer yet has waited until `asked`, when records were asked for;
    /// where the command's record is gone, the answer's may be, too, and nobody knows.
    fn wants(&self, summary: &Summary, asked: u64) -> bool {
        let age = asked.saturating_sub(summary.began);
        let took = summary.took.or((!summary.command.is_empty()).then_some(age));
        let long = |span: Duration| took.is_some_and(|took| u128::from(took) >= span.as_micros());
        self.request.is_none_or(|request| summary.request == request)
            && self.shown_key().is_none_or(|key| summary.key == key)
            && self.slow.is_none_or(long)
            && (!self.failed || summary.failed())
            && self.node.is_none_or(|node| summary.nodes.contains(&node.0))
            && u128::from(age) <= self.since.as_micros()
    }

    fn shown_key(&self) -> Option<String> {
        self.key.as_ref().map(|key| ShortKey::of(key.as_bytes()).to_string())
    }
}

/// Microseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// All records that may be of use.
async fn gathered(
    cluster: &Cluster,
    place: &Place,
    arguments: &FlowArguments,
) -> Result<Book, Failure> {
    let span = u64::try_from(arguments.since.as_micros()).unwrap_or(u64::MAX);
    let since = if arguments.request.is_some() { 0 } else { now().saturating_sub(span) };
    let key = arguments.shown_key();
    let mut wanted = gather::Wanted { request: arguments.request, key, since, until: 0 };
    let mut book = Book::default();
    let mut silent = read(cluster, place, &wanted, &mut book).await?;
    if let Some(request) = arguments.request {
        // Its replicas know it by its key only.
        let summary = book.summary(request).ok_or_else(|| unknown(request))?;
        if !summary.key.is_empty() {
            wanted.key = Some(summary.key);
            silent = read(cluster, place, &wanted, &mut book).await?;
        }
    }
    if book.skipped() > 0 {
        out::note(format!("{} lines were no records of this version: skipped", book.skipped()));
    }
    if !silent.is_empty() {
        let nodes: Vec<_> = silent.iter().map(|(id, error)| format!("{id} ({error})")).collect();
        let nodes = nodes.join(", ");
        out::note(format!("no answer over http, what they wrote was read: {nodes}"));
    }
    Ok(book)
}

/// Looks for what a story still misses among all records of its time: what a tail asks on behalf of
/// many requests bears the name and the key of none.
async fn complete(
    cluster: &Cluster,
    place: &Place,
    book: &mut Book,
    request: OpId,
) -> Result<(), Failure> {
    let Some(story) = book.story(request).filter(|story| !story.missing.is_empty()) else {
        return Ok(());
    };
    let walls = || story.lines.iter().map(|line| line.wall);
    let (Some(first), Some(last)) = (walls().min(), walls().max()) else { return Ok(()) };
    let wanted = gather::Wanted {
        since: first.saturating_sub(CLOCKS_DIFFER),
        until: last.saturating_add(CLOCKS_DIFFER),
        ..gather::Wanted::default()
    };
    read(cluster, place, &wanted, book).await.map(|_| ())
}

async fn read(
    cluster: &Cluster,
    place: &Place,
    wanted: &gather::Wanted,
    book: &mut Book,
) -> Result<Vec<(u32, std::io::Error)>, Failure> {
    gather::read_files(cluster, &place.data_dir, wanted, book)
        .map_err(|error| Failure::new(format!("flow records cannot be read: {error}")))?;
    Ok(gather::ask_nodes(cluster, wanted, book).await)
}

fn list(chosen: &[Summary]) -> Result<(), Failure> {
    out::line(format!(
        "{BOLD}{:<28} {:<26} {:<12} {:<20} {:>9}  {}{PLAIN}",
        "began", "request", "command", "key", "took", "end"
    ))?;
    for summary in chosen {
        out::line(summary_line(summary))?;
    }
    Ok(())
}

fn summary_line(summary: &Summary) -> String {
    let Summary { request, began, command, key, took, outcome, attempts, .. } = summary;
    let took = took.map_or_else(|| "-".to_owned(), diagram::micros);
    let (begin, end) = if summary.failed() { (RED, PLAIN) } else { ("", "") };
    let outcome = match (outcome.is_empty(), command.is_empty()) {
        (false, _) => outcome,
        (true, false) => "not answered",
        (true, true) => "records gone",
    };
    let tries = if *attempts > 1 { format!(", {attempts} attempts") } else { String::new() };
    let (began, request) = (text::utc(*began), request.to_string());
    let began = began.trim_end_matches(" UTC");
    format!(
        "{began:<28} {request:<26} {command:<12} {key:<20} {took:>9}  {begin}{outcome}{end}{tries}"
    )
}

/// Draws stories.
fn write(stories: &[Story], format: Format) -> Result<(), Failure> {
    let diagrams = || stories.iter().map(diagram::diagram);
    let joined = |each: Vec<String>| each.join("\n");
    let written = match format {
        Format::Text => joined(diagrams().map(|diagram| text::draw(&diagram)).collect()),
        Format::Mermaid => joined(diagrams().map(|diagram| export::mermaid(&diagram)).collect()),
        Format::Html => html::page(&diagrams().collect::<Vec<_>>()),
        Format::Perfetto => export::perfetto(stories).to_string(),
        Format::Shiviz => match stories {
            [story] => export::shiviz(story),
            _ => {
                return Err(Failure::usage(format!(
                    "--format shiviz writes one request and {} fit: name it with --request ID",
                    stories.len()
                )));
            }
        },
        Format::Json => stories.iter().map(export::lines).collect(),
    };
    Ok(out::line(written.trim_end_matches('\n'))?)
}

/// Shows requests as they end.
async fn follow(cluster: &Cluster, arguments: &FlowArguments) -> Result<(), Failure> {
    let key = arguments.shown_key();
    let begin = now();
    let wanted = gather::Wanted { request: None, key, since: begin, until: 0 };
    let (mut book, mut shown) = (Book::default(), BTreeSet::new());
    loop {
        let silent = gather::ask_news(cluster, &wanted, &mut book).await;
        if silent == cluster.nodes.len() {
            return Err(Failure::new("no node answers over http: start the ring"));
        }
        for summary in book.summaries() {
            let ended = summary.took.map(|took| summary.began + took);
            let over = ended.is_some_and(|ended| ended + SETTLED < now());
            if !over || !arguments.wants(&summary, now()) || !shown.insert(summary.request) {
                continue;
            }
            match book.story(summary.request) {
                Some(story) if !arguments.list => write(&[story], arguments.format)?,
                _ => out::line(summary_line(&summary))?,
            }
            if arguments.request.is_some() {
                return Ok(());
            }
        }
        let (most, seconds) = FOLLOWED;
        if book.len() > most {
            book.forget_before(now().saturating_sub(seconds * 1_000_000));
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flow: FlowArguments,
    }

    #[test]
    fn what_is_not_answered_is_slow_once_it_has_waited_so_long() {
        let slow = Line::parse_from(["flow", "--slow", "20ms"]).flow;
        let at = |began: u64, took: Option<u64>| Summary {
            request: OpId::default(),
            began,
            command: "SET".to_owned(),
            key: "k".to_owned(),
            took,
            outcome: String::new(),
            attempts: 1,
            nodes: Vec::new(),
        };
        let asked = 1_000_000;
        assert!(slow.wants(&at(900_000, Some(20_000)), asked));
        assert!(!slow.wants(&at(900_000, Some(19_999)), asked));
        assert!(slow.wants(&at(asked - 20_000, None), asked), "it waits for that long");
        assert!(!slow.wants(&at(asked - 300, None), asked), "its answer may have come since");
        assert!(!slow.wants(&at(asked + 50_000, None), asked), "it came in since");
        let headless = Summary { command: String::new(), ..at(900_000, None) };
        assert!(!slow.wants(&headless, asked), "what its router knew of it is gone");
    }
}
