//! From a file or its bytes to an [`OnnxModel`].

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use bytes::Bytes;

use crate::check;
use crate::error::{OnnxError, Problem};
use crate::model::OnnxModel;
use crate::proto;
use crate::wire::WireReader;

/// The largest file that is read: protobuf messages cannot be larger.
const MAX_FILE_BYTES: u64 = (1 << 31) - 1;

/// Enough for the description of a small model; weights are seeked over.
const BUFFER_BYTES: usize = 16 * 1024;

/// Reads a model's description from its file.
///
/// # Errors
///
/// Fails where the file cannot be read, is not a sound model, or has an input or output that no
/// wire contract carries.
pub fn read(path: &Path) -> Result<OnnxModel, OnnxError> {
    let fail = |problem| OnnxError::new(path, problem);
    let cannot_read = |error| fail(Problem::CannotRead(error));
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(cannot_read)?.is_file() {
        return Err(fail(Problem::NotAFile));
    }
    let file = File::open(path).map_err(cannot_read)?;
    let length = file.metadata().map_err(cannot_read)?.len();
    from_source(BufReader::with_capacity(BUFFER_BYTES, file), length, path)
}

/// Reads a model's description from the bytes of its file, which are not kept. `path` says where
/// external data would be, and is what errors name.
///
/// # Errors
///
/// Fails as [`read`] does.
pub fn parse(bytes: Bytes, path: &Path) -> Result<OnnxModel, OnnxError> {
    let length = bytes.len() as u64;
    from_source(Cursor::new(bytes), length, path)
}

fn from_source<R: BufRead + Seek>(
    source: R,
    length: u64,
    path: &Path,
) -> Result<OnnxModel, OnnxError> {
    let model = if length == 0 {
        Err(Problem::Empty)
    } else if length > MAX_FILE_BYTES {
        Err(Problem::TooLarge { bytes: length, limit: MAX_FILE_BYTES })
    } else {
        proto::model(&mut WireReader::new(source, length))
            .and_then(|raw| check::model(raw, path, length))
    };
    model.map_err(|problem| OnnxError::new(path, problem))
}
