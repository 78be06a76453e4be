//! The names of classes.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use outhaul_types::Labels;

use crate::BuildError;

/// A longer file is no list of labels.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// Returns the names in the model's order; `None` where classes have only numbers.
pub(super) fn read(labels: &Labels) -> Result<Option<Arc<[String]>>, BuildError> {
    match labels {
        Labels::Numbers => Ok(None),
        Labels::List(labels) => Ok(Some(labels.as_slice().into())),
        Labels::File(path) => read_file(path).map(Some),
    }
}

fn read_file(path: &Path) -> Result<Arc<[String]>, BuildError> {
    let unreadable = |source| BuildError::Unreadable { path: path.to_owned(), source };
    let wrong =
        |problem: &str| BuildError::File { path: path.to_owned(), problem: problem.to_owned() };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(wrong("is larger than 16 MiB, which no list of labels is"));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8"))?;
    // Editors put a mark of byte order first and empty lines last; both are no label.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
    let labels: Arc<[String]> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    match labels.iter().position(String::is_empty) {
        _ if text.is_empty() => Err(wrong("holds no labels")),
        Some(empty) => Err(wrong(&format!("has no label in line {}", empty + 1))),
        None => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_label_a_line() {
        struct Case(&'static [u8], Result<&'static [&'static str], &'static str>);
        let cases = [
            Case(b"cat\ndog\n", Ok(&["cat", "dog"])),
            Case(b"\xef\xbb\xbfcat\r\ndog\r\n\r\n", Ok(&["cat", "dog"])),
            Case(b"cat", Ok(&["cat"])),
            Case("gro\u{df}er Hund\n katze".as_bytes(), Ok(&["gro\u{df}er Hund", " katze"])),
            Case(b"cat\n\ndog", Err("has no label in line 2")),
            Case(b"\n\n", Err("holds no labels")),
            Case(b"", Err("holds no labels")),
            Case(b"caf\xe9", Err("is not UTF-8")),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        for Case(content, expected) in cases {
            std::fs::write(&path, content).unwrap();
            let read = read(&Labels::File(path.clone()));
            let read =
                read.map(|labels| labels.unwrap().to_vec()).map_err(|error| error.to_string());
            let expected = expected
                .map(|labels| labels.iter().map(|&label| label.to_owned()).collect::<Vec<_>>())
                .map_err(|problem| format!("transform: {} {problem}", path.display()));
            assert_eq!(read, expected);
        }
        let gone = read(&Labels::File(folder.path().join("gone"))).unwrap_err();
        assert!(gone.to_string().ends_with("gone cannot be read"));
    }
}
