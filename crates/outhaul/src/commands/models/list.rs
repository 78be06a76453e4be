//! The table of `outhaul models list`.

use clap::ValueEnum;

use super::client::Entry;
use crate::commands::size_text;

/// How a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Standing {
    Ready,
    Loading,
    Dormant,
    Failed,
    Unloaded,
}

impl Standing {
    /// Returns the word that the server uses.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Standing::Ready => "ready",
            Standing::Loading => "loading",
            Standing::Dormant => "dormant",
            Standing::Failed => "failed",
            Standing::Unloaded => "unloaded",
        }
    }
}

const HEADER: [&str; 7] = ["MODEL", "VERSION", "STATE", "LABELS", "ENGINE", "MEMORY", "LAST ERROR"];

/// What stands where there is nothing to tell, so that every row has as many words.
const NOTHING: &str = "-";

/// Writes the table, its lines cut to `width` characters where there is a width.
pub(super) fn table(entries: &[Entry], width: Option<usize>) -> String {
    let header = HEADER.map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(header).chain(entries.iter().map(row)).collect();
    let length = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let lengths: Vec<usize> = (0..HEADER.len() - 1).filter_map(length).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, length) in row.iter().zip(&lengths) {
            line.push_str(&format!("{cell:length$}  "));
        }
        line.push_str(&row[HEADER.len() - 1]);
        text.push_str(cut(line.trim_end(), width).trim_end());
        text.push('\n');
    }
    text
}

fn row(entry: &Entry) -> [String; 7] {
    let or_nothing = |text: &str| if text.is_empty() { NOTHING } else { text }.to_owned();
    // One line a version, whatever an engine had to say.
    let error = entry.last_error.as_deref().unwrap_or_default();
    let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
    [
        entry.name.clone(),
        or_nothing(&entry.version),
        entry.state.clone(),
        or_nothing(&entry.labels.join(",")),
        or_nothing(entry.engine.as_deref().unwrap_or_default()),
        entry.memory_bytes.map_or_else(|| NOTHING.to_owned(), size_text),
        or_nothing(&error),
    ]
}

fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => {
            let kept = line.chars().take(width.saturating_sub(3));
            kept.chain("...".chars()).collect()
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [Entry; 2] {
        let ready = Entry {
            name: "iris".to_owned(),
            version: "12".to_owned(),
            state: "ready".to_owned(),
            labels: vec!["canary".to_owned(), "stable".to_owned()],
            engine: Some("onnxruntime".to_owned()),
            memory_bytes: Some(3 << 19),
            reason: String::new(),
            last_error: None,
            source: None,
        };
        let failed = Entry {
            name: "reviews".to_owned(),
            version: "1".to_owned(),
            state: "failed".to_owned(),
            labels: Vec::new(),
            engine: None,
            memory_bytes: None,
            last_error: Some("no operator\n  'Frobnicate'".to_owned()),
            ..ready.clone()
        };
        [ready, failed]
    }

    #[test]
    fn the_table_has_a_line_for_each_version() {
        let expected = "\
MODEL    VERSION  STATE   LABELS         ENGINE       MEMORY   LAST ERROR
iris     12       ready   canary,stable  onnxruntime  1.5 MiB  -
reviews  1        failed  -              -            -        no operator 'Frobnicate'
";
        assert_eq!(table(&entries(), None), expected);
        assert_eq!(table(&[], None).lines().count(), 1, "the header");
    }

    #[test]
    fn lines_end_where_the_terminal_does() {
        let text = table(&entries(), Some(70));
        let last = text.lines().last().unwrap();
        assert_eq!(last.chars().count(), 70);
        assert!(last.ends_with("  no o..."), "{last}");
    }
}
