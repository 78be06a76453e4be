//! Lists what is below a place in a store.

use futures_util::StreamExt;
use object_store::list::PaginatedListOptions;
use object_store::path::Error as PathError;
use object_store::{Error, ObjectMeta, ObjectStoreExt};

use super::SourceError;
use super::address::Address;
use super::failure::failure;

/// More objects than this below one place are refused.
pub(super) const MOST_OBJECTS: usize = 100_000;

/// More names than this that no path can hold are refused: each costs requests to step over.
const MOST_UNNAMEABLE: usize = 100;

/// What S3 gives at most in one page.
const LARGEST_PAGE: usize = 1000;

/// The objects below a place.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) objects: Vec<ObjectMeta>,
    /// The full names of those that no path can hold, such as `a//b` or `a/../b`.
    pub(super) unnameable: Vec<String>,
}

impl Listing {
    fn add(&mut self, place: &str, objects: Vec<ObjectMeta>) -> Result<(), SourceError> {
        self.objects.extend(objects);
        if self.objects.len() > MOST_OBJECTS {
            return Err(too_many(place, MOST_OBJECTS, "objects"));
        }
        Ok(())
    }
}

fn too_many(place: &str, limit: usize, what: &str) -> SourceError {
    let reason = format!("there are more than {limit} {what}; give the URL of a folder in it");
    SourceError { place: place.to_owned(), reason, passing: false }
}

/// Asks the store.
pub(super) async fn list(address: &Address) -> Result<Listing, SourceError> {
    let fail = |error: &Error| failure(address.place.clone(), error, address.remedy);
    if address.is_file {
        let object = address.store.head(&address.path).await.map_err(|error| fail(&error))?;
        return Ok(Listing { objects: vec![object], unnameable: Vec::new() });
    }
    if address.pages.is_some() {
        return list_pages(address).await;
    }
    let mut listing = Listing::default();
    let mut objects = address.store.list(Some(&address.path)).ready_chunks(LARGEST_PAGE);
    while let Some(chunk) = objects.next().await {
        let chunk: Result<Vec<_>, Error> = chunk.into_iter().collect();
        listing.add(&address.place, chunk.map_err(|error| fail(&error))?)?;
    }
    if listing.objects.is_empty() && address.hides_absence {
        // What is there no longer and what is there empty must not be taken for one another.
        address.store.head(&address.path).await.map_err(|error| fail(&error))?;
    }
    Ok(listing)
}

/// Lists page by page. A page with a name that no path can hold fails as a whole: then smaller and
/// smaller pages are asked for until that name stands alone, and the listing goes on behind it.
async fn list_pages(address: &Address) -> Result<Listing, SourceError> {
    let Some(pages) = &address.pages else { return Ok(Listing::default()) };
    let prefix = match address.path.is_root() {
        true => None,
        false => Some(format!("{}/", address.path)),
    };
    let mut listing = Listing::default();
    let mut options = PaginatedListOptions::default();
    loop {
        let page = pages.list_paginated(prefix.as_deref(), options.clone()).await;
        let error = match page {
            Ok(page) => {
                listing.add(&address.place, page.result.objects)?;
                match page.page_token {
                    None => return Ok(listing),
                    token => options.page_token = token,
                }
                continue;
            }
            Err(error) => error,
        };
        let Some(name) = unnameable(&error) else {
            return Err(failure(address.place.clone(), &error, address.remedy));
        };
        if options.max_keys == Some(1) {
            listing.unnameable.push(name.clone());
            if listing.unnameable.len() > MOST_UNNAMEABLE {
                return Err(too_many(
                    &address.place,
                    MOST_UNNAMEABLE,
                    "objects without a usable name",
                ));
            }
            options = PaginatedListOptions { offset: Some(name), ..Default::default() };
        } else {
            options.max_keys = Some(options.max_keys.unwrap_or(LARGEST_PAGE).div_ceil(2).max(1));
        }
    }
}

fn unnameable(error: &Error) -> Option<String> {
    match error {
        Error::InvalidPath {
            source: PathError::EmptySegment { path } | PathError::BadSegment { path, .. },
        } => Some(path.clone()),
        _ => None,
    }
}
