//! Brings one object's content here, pinned to what was listed.
//!
//! Invariant: what arrives has the size that was listed, and its tag, or else its time, where the
//! store gives one; a tag is sent along as a condition, so that the store itself refuses other
//! content. The digest is taken of the bytes that are written.

use std::io::Write;
use std::time::SystemTime;

use futures_util::StreamExt;
use object_store::{Error, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::objects::Object;

/// Why content did not arrive.
#[derive(Debug)]
pub(super) enum Broken {
    /// The store refused or failed.
    Store(Error),
    /// What arrived is not what was listed.
    Changed,
    /// The body ended early.
    Short { arrived: u64 },
    /// It could not be written.
    Disk(std::io::Error),
}

/// Asks for an object's content as it was when it was listed.
pub(super) async fn get(store: &dyn ObjectStore, object: &Object) -> Result<GetResult, Broken> {
    // A weak tag never meets a condition, by the rules of HTTP; it is compared below.
    let tag = object.tag.clone().filter(|tag| !tag.starts_with("W/"));
    let options = GetOptions { if_match: tag, ..Default::default() };
    let mut result = store.get_opts(&object.location, options).await;
    if matches!(result, Err(Error::Precondition { .. })) {
        // Listings of some stores write a tag differently than their answers, and only the latter
        // meets the condition.
        let now = store.head(&object.location).await.map_err(Broken::Store)?;
        if !is_same(object, &now) {
            return Err(Broken::Changed);
        }
        let options = GetOptions { if_match: now.e_tag, ..Default::default() };
        result = store.get_opts(&object.location, options).await;
    }
    match result {
        Ok(result) if is_same(object, &result.meta) => Ok(result),
        Ok(_) => Err(Broken::Changed),
        Err(error) => Err(Broken::Store(error)),
    }
}

fn is_same(object: &Object, now: &ObjectMeta) -> bool {
    let bare = |tag: &str| tag.trim_start_matches("W/").trim_matches('"').to_owned();
    let is_unchanged = match (&object.tag, &now.e_tag) {
        (Some(listed), Some(now)) => bare(listed) == bare(now),
        // All that is left, where listing and answer both tell it.
        (None, _) => [SystemTime::UNIX_EPOCH, object.changed].contains(&now.last_modified.into()),
        (Some(_), None) => true,
    };
    now.size == object.bytes && is_unchanged
}

/// Writes an object's content to `sink` and returns its digest.
pub(super) async fn receive(
    store: &dyn ObjectStore,
    object: &Object,
    sink: &mut impl Write,
) -> Result<[u8; 32], Broken> {
    let mut body = get(store, object).await?.into_stream();
    let mut digest = Sha256::new();
    let mut arrived = 0;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(Broken::Store)?;
        arrived += piece.len() as u64;
        // Nobody fills this disk by sending on and on.
        if arrived > object.bytes {
            return Err(Broken::Changed);
        }
        digest.update(&piece);
        sink.write_all(&piece).map_err(Broken::Disk)?;
    }
    if arrived < object.bytes {
        return Err(Broken::Short { arrived });
    }
    Ok(digest.finalize().into())
}
