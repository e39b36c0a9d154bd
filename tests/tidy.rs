//! The house's rules as tests: what a review would have to look for each time.
//!
//! Caveat: rules are checked on the text of files, line by line, not on their syntax; a rule that
//! needs more than that belongs to clippy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use simpledynamo_protocol::message::Message;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A file longer than this is two rooms.
const FILE_LINES_MAX: usize = 600;
/// The packages' source directories.
const SOURCES: [&str; 3] = ["src", "actors/src", "actors/protocol/src"];
/// The texts whose links and commands are checked.
const TEXTS: [&str; 10] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/harness.md",
    "docs/inspection.md",
    "docs/performance.md",
    "docs/operations.md",
    "docs/protocol.md",
    "docs/testing.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files below a directory, by name of extension, in a fixed order.
fn files(below: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(below)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {extension} files below {below}");
    found
}

/// Every Rust file of the packages, tests included, with its name from the root and its text.
fn rust_files() -> Vec<(String, String)> {
    ["src", "tests", "actors"]
        .iter()
        .flat_map(|below| files(below, "rs"))
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            (name, text)
        })
        .collect()
}

fn is_source(name: &str) -> bool {
    SOURCES.iter().any(|below| name.starts_with(&format!("{below}/")))
}

/// Fails with every finding, not only the first.
#[track_caller]
fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn files_stay_short() {
    let long = rust_files()
        .into_iter()
        .filter(|(name, _)| is_source(name))
        .filter(|(_, text)| text.lines().count() > FILE_LINES_MAX)
        .map(|(name, text)| format!("{name} has {} lines", text.lines().count()))
        .collect();
    none(&format!("at most {FILE_LINES_MAX} lines a file"), long);
}

#[test]
fn modules_open_with_their_idea() {
    let silent = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| name)
        .collect();
    none("a file opens with `//! ` and its idea", silent);
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not find itself.
    let words = [("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("dbg", "!("), ("todo", "!(")];
    let words = words.map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for (name, text) in rust_files() {
        for (at, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    none("finish it, or say in an issue what is missing", found);
}

/// The names of a manifest's table of dependencies.
fn dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let manifest: toml::Table = read(manifest).parse().unwrap();
    manifest[table].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn dependencies_point_one_way() {
    let protocol = dependencies("actors/protocol/Cargo.toml", "dependencies");
    let allowed = ["serde", "sha1", "smallvec"].map(str::to_owned);
    assert_eq!(protocol, BTreeSet::from(allowed), "the protocol package stays pure");
    let actors = dependencies("actors/Cargo.toml", "dependencies");
    assert!(actors.contains("simpledynamo-protocol") && !actors.contains("simpledynamo"));
    for manifest in ["Cargo.toml", "actors/Cargo.toml"] {
        assert!(!dependencies(manifest, "dev-dependencies").contains("simpledynamo"), "{manifest}");
    }
}

fn dynamo(arguments: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_dynamo")).args(arguments).output().unwrap();
    assert!(out.status.success(), "dynamo {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn subcommands_that_users_rely_on_exist() {
    let help = dynamo(&["--help"]);
    let commands: BTreeSet<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let relied_on = [
        "up",
        "node",
        "kill",
        "pause",
        "resume",
        "start",
        "status",
        "top",
        "check-config",
        "get",
        "set",
        "del",
        "check",
        "torture",
    ];
    for command in relied_on {
        assert!(commands.contains(command), "dynamo {command} is gone from:\n{help}");
        dynamo(&[command, "--help"]);
    }
    for option in ["--config", "--data-dir"] {
        assert!(help.contains(option), "{option} is gone from:\n{help}");
    }
    for option in ["--json", "--watch"] {
        assert!(dynamo(&["status", "--help"]).contains(option), "status {option} is gone");
    }
}

/// `dynamo X` or `cargo run --release -- X` in a text, for every X.
fn commands_named(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for before in ["dynamo ", "--release -- "] {
        for (at, _) in text.match_indices(before) {
            // Only where it is typed: `dynamo …`, or a line that starts with it.
            let typed = text[..at].chars().next_back().is_none_or(|c| "`/\n".contains(c));
            if before == "dynamo " && !typed {
                continue;
            }
            let rest = &text[at + before.len()..];
            let word = rest.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next();
            named.extend(
                word.filter(|word| !word.is_empty() && !word.starts_with('-')).map(str::to_owned),
            );
        }
    }
    named
}

#[test]
fn commands_of_the_texts_exist() {
    let help = dynamo(&["--help"]);
    let readme = commands_named(&read("README.md"));
    assert!(readme.contains("up") && readme.contains("kill"), "{readme:?}");
    for text in TEXTS {
        for command in commands_named(&read(text)) {
            assert!(help.contains(&format!("\n  {command} ")), "{text} names `dynamo {command}`");
        }
    }
    let readme = read("README.md");
    for command in ["cargo run --release -- up", "cargo test --workspace", "tests/outside"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
}

/// The fields of a struct in `src/config/file.rs`.
fn fields(of: &str) -> Vec<String> {
    let text = read("src/config/file.rs");
    let start = text.find(&format!("struct {of} {{")).unwrap_or_else(|| panic!("no struct {of}"));
    let fields: Vec<_> = text[start..]
        .lines()
        .skip(1)
        .take_while(|line| *line != "}")
        .filter_map(|line| line.trim().strip_prefix("pub(super) ")?.split(':').next())
        .map(str::to_owned)
        .collect();
    assert!(!fields.is_empty(), "no fields of {of}");
    fields
}

/// Whether the shipped file shows a field and says above it, or above all nodes, what it means.
fn described(shipped: &str, of: &str, field: &str) -> bool {
    let lines: Vec<_> = shipped.lines().collect();
    // `secret` and `password` are shown commented out.
    let shows = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{field} = "));
    let Some(at) = lines.iter().position(shows) else { return false };
    if of == "NodeFile" {
        return shipped.contains(&format!(" `{field}`: "));
    }
    let above = lines[..at].iter().rev().take_while(|line| !line.is_empty());
    above.into_iter().any(|line: &&str| line.starts_with("# "))
}

#[test]
fn every_field_of_the_configuration_is_documented() {
    let shipped = read("cluster.toml");
    let operations = read("docs/operations.md");
    let mut missing = Vec::new();
    for of in ["ClusterFile", "LimitsFile", "LoggingFile", "NodeFile"] {
        for field in fields(of) {
            // Tables: their fields are in the other structs.
            if ["limits", "logging", "node"].contains(&field.as_str()) {
                continue;
            }
            if !described(&shipped, of, &field) {
                missing.push(format!("{field} is not shown and described in cluster.toml"));
            }
            if !operations.contains(&format!("`{field}`")) {
                missing.push(format!("{field} is not in docs/operations.md"));
            }
        }
    }
    none("every field of cluster.toml is documented", missing);
}

#[test]
fn every_message_is_in_the_table_of_the_protocol() {
    let text = read("docs/protocol.md");
    let mut rows: Vec<(u16, String)> = Vec::new();
    for line in text.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(tag), Some(name)) = (cells.next(), cells.next()) else { continue };
        if let Ok(tag) = tag.parse() {
            rows.push((tag, name.trim_matches('`').to_owned()));
        }
    }
    let tags: Vec<_> = Message::TAGS.iter().map(|(tag, name)| (*tag, (*name).to_owned())).collect();
    assert_eq!(rows, tags, "the table of messages in docs/protocol.md");
}

/// The targets of a text's links, `[…](target)`.
fn links(text: &str) -> Vec<&str> {
    text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next()).collect()
}

/// A heading's anchor.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for name in TEXTS {
        let text = read(name);
        let dir = root().join(name).parent().unwrap().to_owned();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(name) } else { dir.join(path) };
            if !target.exists() {
                broken.push(format!("{name}: {link}: there is no such file"));
            } else if !fragment.is_empty() {
                let there = fs::read_to_string(&target).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                if !headings.any(|heading| anchor(heading) == fragment) {
                    broken.push(format!("{name}: {link}: there is no such heading"));
                }
            }
        }
    }
    none("links lead to files and headings that exist", broken);
}

#[test]
fn scenario_of_the_docs_is_the_one_that_runs() {
    let shown = format!("```rust\n{}```", read("tests/scenario.rs"));
    assert!(
        read("docs/testing.md").contains(&shown),
        "docs/testing.md does not show tests/scenario.rs word for word"
    );
}

#[test]
fn every_text_of_docs_is_checked_and_linked_from_the_readme() {
    let readme = read("README.md");
    for path in files("docs", "md") {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        assert!(TEXTS.contains(&name.as_str()), "{name} is not in TEXTS of this file");
        assert!(readme.contains(&format!("({name})")), "README.md does not link {name}");
    }
}
