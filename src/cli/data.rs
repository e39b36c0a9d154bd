//! `get`, `set`, `del`: one command through the client port of the first node that answers.
//!
//! A node that does not answer PING is passed over. Once the command is sent, only `get` may be
//! tried at another node: a write without an answer may have taken place or may still, so it is
//! reported as what it is.

use super::{
    Failure,
    client::{Client, Reply},
    out,
};
use crate::config::Cluster;
use clap::Args;
use std::{
    io::{self, Write},
    time::Duration,
};

/// What a node may need beyond the deadline to send its answer.
const SPARE: Duration = Duration::from_secs(1);

/// `get`
#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// Which key.
    key: String,
}

/// `set`
#[derive(Args, Debug)]
pub(super) struct SetArguments {
    /// Which key.
    key: String,
    /// Its new value.
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// `del`
#[derive(Args, Debug)]
pub(super) struct DelArguments {
    /// Which key.
    key: String,
}

/// Prints the value, byte by byte as it is, and a line end.
pub(super) async fn get(cluster: &Cluster, arguments: &GetArguments) -> Result<(), Failure> {
    match ask(cluster, &[b"GET", arguments.key.as_bytes()], true).await? {
        Reply::Bulk(Some(value)) => {
            let mut to = io::stdout().lock();
            Ok(to.write_all(&value).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush())?)
        }
        Reply::Bulk(None) => Err(Failure::new(format!("there is no key \"{}\"", arguments.key))),
        other => unexpected(&other),
    }
}

/// Prints OK.
pub(super) async fn set(cluster: &Cluster, arguments: &SetArguments) -> Result<(), Failure> {
    let command = [b"SET".as_slice(), arguments.key.as_bytes(), arguments.value.as_bytes()];
    match ask(cluster, &command, false).await? {
        Reply::Simple(text) => Ok(out::line(text)?),
        other => unexpected(&other),
    }
}

/// Prints how many keys were deleted: 1 or 0.
pub(super) async fn del(cluster: &Cluster, arguments: &DelArguments) -> Result<(), Failure> {
    match ask(cluster, &[b"DEL", arguments.key.as_bytes()], false).await? {
        Reply::Integer(count) => Ok(out::line(count)?),
        other => unexpected(&other),
    }
}

fn unexpected(reply: &Reply) -> Result<(), Failure> {
    let Reply::Error(text) = reply else {
        return Err(Failure::new(format!("the node answered {reply:?}: is this port a dynamo?")));
    };
    Err(Failure::new(text))
}

async fn ask(cluster: &Cluster, command: &[&[u8]], repeat: bool) -> Result<Reply, Failure> {
    let password = cluster.password.as_ref().map(|password| password.0.as_str());
    let mut silent = Vec::new();
    for node in &cluster.nodes {
        let mut client = match Client::connect(node, password).await {
            Ok(client) => client,
            Err(error) => {
                silent.push(format!("\n  {} at {}: {error}", node.id, node.client));
                continue;
            }
        };
        match client.call(command, cluster.deadline + SPARE).await {
            Ok(Reply::Error(text)) if text.starts_with("LOADING") => {
                silent.push(format!("\n  {} at {}: {text}", node.id, node.client));
            }
            Ok(reply) => return Ok(reply),
            Err(error) if repeat => {
                silent.push(format!("\n  {} at {}: {error}", node.id, node.client));
            }
            Err(error) => {
                return Err(Failure::new(format!(
                    "the outcome is unknown: node {} took the command and did not answer \
                     ({error}); read the key to see",
                    node.id
                )));
            }
        }
    }
    let said = silent.concat();
    let why = if ["WRONGPASS", "NOAUTH", "ERR AUTH"].iter().any(|it| said.contains(it)) {
        "no node takes this password, or lack of one; give the ring's in DYNAMO_PASSWORD or `password`"
    } else if said.contains("LOADING") {
        "no node is ready yet; `dynamo status` tells more"
    } else {
        "no node answers; `dynamo status` tells more, `dynamo up` starts them"
    };
    Err(Failure::new(format!("{why}{said}")))
}
