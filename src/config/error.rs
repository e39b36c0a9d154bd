//! What is wrong with a configuration, where, and the mend.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

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
        Place {
            line: before.matches('\n').count() + 1,
            column,
            text: line_text.to_owned(),
            width: spanned.chars().count().max(1),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let Some(place) = &self.place else { return write!(f, "{file}: {}", self.what) };
        let Place { line, column, text, width } = place;
        writeln!(f, "{file}:{line}:{column}: {}", self.what)?;
        writeln!(f, "{line:>5} | {text}")?;
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
    fn the_end_of_the_file_is_a_place_too() {
        let finding = Finding { span: Some(5..5), what: "ends early".into() };
        let error = ConfigError::locate(Path::new("c.toml"), "a = [", finding);
        assert_eq!(error.to_string(), "c.toml:1:6: ends early\n    1 | a = [\n      |      ^");
    }
}
