//! What is wrong with a configuration, where, and the mend.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// Characters of a line that is still shown: two of a wide terminal's.
const EXCERPT_CHARS_MAX: usize = 300;

/// A finding. `Display`: `cluster.toml:7:12: what is wrong: the mend`, then the line itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    place: Option<Place>,
    what: String,
}

/// A place in the file, for people: counted from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    excerpt: Option<Excerpt>,
}

/// The line, and how many of its characters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    width: usize,
}

/// A finding before its place is worked out: the span in bytes, and what is wrong with the mend.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) span: Option<Range<usize>>,
    pub(super) what: String,
}

impl ConfigError {
    /// A finding about the file as a whole.
    pub(super) fn of_file(file: &Path, what: impl Into<String>) -> ConfigError {
        ConfigError { file: file.to_owned(), place: None, what: what.into() }
    }

    /// A finding in `text`, the file's content.
    pub(super) fn locate(file: &Path, text: &str, finding: Finding) -> ConfigError {
        let place = finding.span.map(|span| Place::of(text, &span));
        ConfigError { file: file.to_owned(), place, what: finding.what }
    }
}

impl Place {
    fn of(text: &str, span: &Range<usize>) -> Place {
        let before = text.get(..span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.get(start..).unwrap_or("");
        let column = before.get(start..).unwrap_or("").chars().count() + 1;
        let line_text = rest.lines().next().unwrap_or("");
        let spanned = text.get(span.clone()).and_then(|s| s.lines().next()).unwrap_or("");
        let excerpt = Excerpt {
            // One column each, so that the marks stand below what they mean.
            text: line_text.replace(char::is_control, " "),
            width: spanned.chars().count().max(1),
        };
        Place {
            line: before.matches('\n').count() + 1,
            column,
            excerpt: showable(line_text).then_some(excerpt),
        }
    }
}

/// Whether a line may be shown: it is short, and has no secret.
fn showable(line: &str) -> bool {
    let hidden = ["secret", "password"].iter().any(|name| line.contains(name));
    !hidden && line.chars().count() <= EXCERPT_CHARS_MAX
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let Some(place) = &self.place else { return write!(f, "{file}: {}", self.what) };
        let Place { line, column, excerpt } = place;
        write!(f, "{file}:{line}:{column}: {}", self.what)?;
        let Some(Excerpt { text, width }) = excerpt else { return Ok(()) };
        writeln!(f, "\n{line:>5} | {text}")?;
        let indent = column - 1;
        write!(f, "      | {:indent$}{}", "", "^".repeat(*width))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_line_and_column_in_characters() {
        let text = "a = 1\nä = \"ö\" # here\n";
        let start = text.find("\"ö").unwrap();
        let finding = Finding { span: Some(start..start + 4), what: "wrong: mend it".into() };
        let error = ConfigError::locate(Path::new("c.toml"), text, finding);
        assert_eq!(
            error.to_string(),
            "c.toml:2:5: wrong: mend it\n    2 | ä = \"ö\" # here\n      |     ^^^"
        );
    }

    #[test]
    fn secrets_and_endless_lines_are_not_shown() {
        for text in ["secret = \"abc\"".to_owned(), format!("a = {}", "1".repeat(1_000))] {
            let finding = Finding { span: Some(4..5), what: "wrong".into() };
            let error = ConfigError::locate(Path::new("c.toml"), &text, finding);
            assert_eq!(error.to_string(), "c.toml:1:5: wrong");
        }
    }

    #[test]
    fn the_end_of_the_file_is_a_place_too() {
        let finding = Finding { span: Some(5..5), what: "ends early".into() };
        let error = ConfigError::locate(Path::new("c.toml"), "a = [", finding);
        assert_eq!(error.to_string(), "c.toml:1:6: ends early\n    1 | a = [\n      |      ^");
    }
}
