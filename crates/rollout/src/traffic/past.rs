//! The journal as the books hold it: read backwards, and kept from growing for ever.

use super::{Talk, Traffic, TrafficError};
use crate::journal;
use crate::plan::Entry;

/// How many pages one call reads: a rare route must not cost a look at everything that was ever written.
const PAGES: usize = 20;

/// How many entries are removed at a time.
const STEP: u32 = 100;

impl Traffic {
    /// Returns the last entries of the journal, the newest first: of one route, or of all. It looks at the
    /// newest 4,000 entries and no further, so that of a route which has not changed for long it may return
    /// fewer than there are, or none.
    ///
    /// # Errors
    ///
    /// Fails where the store is away.
    pub async fn journal(
        &self,
        route: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>, TrafficError> {
        let is_asked_for = |entry: &Entry| route.is_none_or(|route| entry.route.as_str() == route);
        // What is in effect here and not written yet is the newest.
        let pending: Vec<Entry> =
            self.state().pending.iter().rev().flat_map(|pending| pending.entries.clone()).collect();
        let mut entries: Vec<Entry> = pending.into_iter().filter(is_asked_for).collect();
        let mut before: Option<String> = None;
        for _ in 0..PAGES {
            if entries.len() >= limit {
                break;
            }
            let page = self.page(before.as_deref(), journal::PAGE).await?;
            let Some((oldest, _)) = page.last() else { break };
            before = Some(oldest.clone());
            entries.extend(
                page.iter().filter_map(|(_, entry)| journal::read(entry)).filter(is_asked_for),
            );
        }
        entries.truncate(limit);
        Ok(entries)
    }

    /// Removes some of what is beyond the newest entries that are kept.
    pub(super) async fn trim_journal(&self, talk: &mut Talk) -> Result<(), TrafficError> {
        let generation = self.world().generation;
        let is_recent = |trimmed: u64| generation.saturating_sub(trimmed) < u64::from(STEP);
        if talk.trimmed.is_some_and(is_recent) {
            return Ok(());
        }
        let surplus = self.surplus().await?;
        for key in &surplus {
            self.ask("trim the journal", self.books.delete(journal::SPACE, key)).await?;
        }
        // Where less than a step was left, a look is not worth it before as much has been written.
        talk.trimmed = (surplus.len() < STEP as usize).then_some(generation);
        Ok(())
    }

    /// Returns keys of entries beyond those that are kept.
    async fn surplus(&self) -> Result<Vec<String>, TrafficError> {
        let mut left = self.config.journal;
        let mut before: Option<String> = None;
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(journal::PAGE);
            let page = self.page(before.as_deref(), limit).await?;
            let Some((oldest, _)) = page.last() else { return Ok(Vec::new()) };
            before = Some(oldest.clone());
            left = left.saturating_sub(page.len());
        }
        let beyond = self.page(before.as_deref(), STEP).await?;
        Ok(beyond.into_iter().map(|(key, _)| key).collect())
    }

    async fn page(
        &self,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, String)>, TrafficError> {
        self.ask("read the journal", self.books.list_last(journal::SPACE, before, limit)).await
    }
}
