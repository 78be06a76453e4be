//! Weights that stay in their files: the library maps the files beside a model into memory and keeps
//! mapped what it does not re-pack, which no allocator knows of.
//!
//! What is counted is what is mapped, not what of it is in RAM: that changes with every run. Linux
//! only; elsewhere nothing is counted.

use std::fs;
use std::path::{Path, PathBuf};

use outhaul_onnx::OnnxModel;

/// How much of a model's files was mapped at one moment.
pub(crate) struct Mapped {
    files: Vec<PathBuf>,
    bytes: u64,
}

impl Mapped {
    /// Looks before the library loads a model. Where the model has no such files, which is usual,
    /// nothing is read.
    pub(crate) fn before_loading(model: &OnnxModel) -> Self {
        let folder = model.path.parent().unwrap_or(Path::new(""));
        let files = model.external_files();
        let files: Vec<PathBuf> =
            files.iter().filter_map(|file| folder.join(file).canonicalize().ok()).collect();
        let bytes = mapped_bytes(&files);
        Mapped { files, bytes }
    }

    /// Returns how much more is mapped now.
    pub(crate) fn grown_by(&self) -> i64 {
        mapped_bytes(&self.files).saturating_sub(self.bytes).try_into().unwrap_or(i64::MAX)
    }
}

fn mapped_bytes(files: &[PathBuf]) -> u64 {
    if files.is_empty() {
        return 0;
    }
    // Where it cannot be read nothing is counted: too little is better than no model.
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(|line| size_of_mapping(line, files)).sum()
}

/// Reads a line such as `7f00-7f10 r--p 00000000 08:01 1234    /models/a/1/weights.data`.
fn size_of_mapping(line: &str, files: &[PathBuf]) -> Option<u64> {
    let path = Path::new(&line[line.find('/')?..]);
    if !files.iter().any(|file| file == path) {
        return None;
    }
    let (from, rest) = line.split_once('-')?;
    let (to, _) = rest.split_once(' ')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    address(to)?.checked_sub(address(from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_the_files_count() {
        let files = [PathBuf::from("/models/a b/1/weights.data")];
        let size = |line| size_of_mapping(line, &files);
        let line =
            "7f0000001000-7f0000003000 r--p 00000000 08:01 12     /models/a b/1/weights.data";
        assert_eq!(size(line), Some(0x2000));
        assert_eq!(size("7f0000001000-7f0000003000 r--p 00000000 08:01 12   /models/b"), None);
        assert_eq!(size("7f0000001000-7f0000003000 rw-p 00000000 00:00 0 "), None);
        assert_eq!(size("7f0000001000-7f0000003000 rw-p 00000000 00:00 0    [heap]"), None);
    }
}
