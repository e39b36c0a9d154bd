//! Records of all nodes: from their files, and from the memory of those that run.
//!
//! Files are read line by line, and only lines that may matter are parsed. A node that does not answer
//! is no error: its files say what it wrote. The http client is a GET, read to the end, bounded.

use super::book::Book;
use crate::config::{Cluster, Node, node_dir};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use simpledynamo_actors::flow::files;
use simpledynamo_protocol::recent::OpId;
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a node may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Records kept: some hundred MiB.
pub const RECORDS_MAX: usize = 1_000_000;

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// This request, …
    pub request: Option<OpId>,
    /// … or this key, as records show it; all where both are none.
    pub key: Option<String>,
    /// Not before this time, microseconds since the Unix epoch.
    pub since: u64,
    /// Not after this one; 0 for no end.
    pub until: u64,
}

impl Wanted {
    /// Whether a line may be of use; parsing decides.
    fn may_be(&self, line: &str, request: Option<&str>, key: Option<&str>) -> bool {
        (request.is_none() && key.is_none())
            || request.is_some_and(|request| line.contains(request))
            || key.is_some_and(|key| line.contains(key))
            || !line.contains("\"type\"")
    }

    fn question(&self) -> String {
        let mut question = format!("/flow?since={}&until={}", self.since, self.until);
        if let Some(request) = &self.request {
            question.push_str(&format!("&request={request}"));
        }
        if let Some(key) = &self.key {
            question.push_str(&format!("&key={}", percent(key)));
        }
        question
    }
}

/// Bytes that mean something else in a URL, as `%XX`.
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let quoted = text.bytes().map(|byte| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    });
    quoted.collect()
}

/// Reads the files of all nodes under `data_dir` into `book`.
///
/// # Errors
/// A file cannot be read, or there are more than [`RECORDS_MAX`] records.
pub fn read_files(
    cluster: &Cluster,
    data_dir: &Path,
    wanted: &Wanted,
    book: &mut Book,
) -> io::Result<()> {
    let request = wanted.request.map(|request| format!("\"request\":\"{request}\""));
    // A key within JSON: escaped once more.
    let key = wanted.key.as_ref().map(|key| format!("\"key\":{}", serde_json::json!(key)));
    for node in &cluster.nodes {
        let directory = node_dir(data_dir, node.id).join(files::DIRECTORY);
        for path in files::list(&directory)? {
            let file = match File::open(&path) {
                Ok(file) => file,
                // The node has just deleted it to make room.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).lines() {
                let line = line?;
                if wanted.may_be(&line, request.as_deref(), key.as_deref()) {
                    let until = if wanted.until == 0 { u64::MAX } else { wanted.until };
                    book.read_of(&line, wanted.since..=until);
                }
            }
            if book.len() > RECORDS_MAX {
                let what = format!(
                    "more than {RECORDS_MAX} records: ask for less with --since, --key or --request"
                );
                return Err(io::Error::other(what));
            }
        }
    }
    Ok(())
}

/// Asks all nodes for what they have in memory; gives those that did not answer, and why.
pub async fn ask_nodes(
    cluster: &Cluster,
    wanted: &Wanted,
    book: &mut Book,
) -> Vec<(u32, io::Error)> {
    let question = wanted.question();
    let password = cluster.password.as_ref().map(|password| password.0.as_str());
    let asked = cluster.nodes.iter().map(|node| ask(node, &question, password));
    let mut silent = Vec::new();
    for (node, answer) in cluster.nodes.iter().zip(join_all(asked).await) {
        match answer {
            Ok(text) => book.read(&text),
            Err(error) => silent.push((node.id.0, error)),
        }
    }
    silent
}

/// Asks all nodes for what they took down since they were last asked; how many did not answer.
pub async fn ask_news(cluster: &Cluster, wanted: &Wanted, book: &mut Book) -> usize {
    let password = cluster.password.as_ref().map(|password| password.0.as_str());
    let questions: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            // Of the latest life; one that begins counts anew and is then read from its start.
            let lives = book.last().filter(|((id, _), _)| *id == node.id.0);
            let ((_, life), after) = lives.max().unwrap_or_default();
            format!("{}&life={life}&after={after}", wanted.question())
        })
        .collect();
    let asked = cluster.nodes.iter().zip(&questions);
    let asked = asked.map(|(node, question)| ask(node, question, password));
    let mut silent = 0;
    for answer in join_all(asked).await {
        match answer {
            Ok(text) => book.read(&text),
            Err(_) => silent += 1,
        }
    }
    silent
}

/// One GET.
///
/// # Errors
/// The network's, or what the node says.
pub async fn ask(node: &Node, question: &str, password: Option<&str>) -> io::Result<String> {
    let get = async {
        let mut stream = TcpStream::connect(node.http).await?;
        let proof = password.map_or_else(String::new, |password| {
            let pair = STANDARD.encode(format!("dynamo:{password}"));
            format!("Authorization: Basic {pair}\r\n")
        });
        let request = format!("GET {question} HTTP/1.0\r\nHost: {}\r\n{proof}\r\n", node.http);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(ANSWER_TIME, get)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("status {status}: {}", body.trim()))),
    }
}
