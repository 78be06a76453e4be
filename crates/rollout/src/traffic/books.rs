//! Where the world is kept: a state store, or this process's memory where there is none.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use outhaul_state::{Record, StateError, Store};

/// What a call to the books comes to.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StateError>> + Send + 'a>>;

/// What traffic needs of a state store.
pub(crate) trait Books: Send + Sync {
    /// Returns the value under a key.
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, Option<String>>;

    /// Keeps a value under a key.
    fn put<'a>(&'a self, record: &'a Record) -> Answer<'a, ()>;

    /// Writes all records if the first one's key still has the value `expected`.
    fn exchange<'a>(
        &'a self,
        record: &'a Record,
        expected: Option<&'a str>,
        others: &'a [Record],
    ) -> Answer<'a, bool>;

    /// Returns all keys of a space with their values.
    fn list<'a>(&'a self, space: &'a str) -> Answer<'a, Vec<(String, String)>>;

    /// Returns the last keys of a space with their values, the last one first.
    fn list_last<'a>(
        &'a self,
        space: &'a str,
        before: Option<&'a str>,
        limit: u32,
    ) -> Answer<'a, Vec<(String, String)>>;

    /// Removes a key.
    fn delete<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, bool>;
}

impl Books for Store {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(Store::get(self, space, key))
    }

    fn put<'a>(&'a self, record: &'a Record) -> Answer<'a, ()> {
        Box::pin(Store::put(self, &record.space, &record.key, &record.value))
    }

    fn exchange<'a>(
        &'a self,
        record: &'a Record,
        expected: Option<&'a str>,
        others: &'a [Record],
    ) -> Answer<'a, bool> {
        Box::pin(Store::exchange(self, record, expected, others))
    }

    fn list<'a>(&'a self, space: &'a str) -> Answer<'a, Vec<(String, String)>> {
        Box::pin(Store::list(self, space))
    }

    fn list_last<'a>(
        &'a self,
        space: &'a str,
        before: Option<&'a str>,
        limit: u32,
    ) -> Answer<'a, Vec<(String, String)>> {
        Box::pin(Store::list_last(self, space, before, limit))
    }

    fn delete<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, bool> {
        Box::pin(Store::delete(self, space, key))
    }
}

/// Records that memory holds; beyond it the journal's oldest go.
const MEMORY_LIMIT: usize = 10_000;

/// Books that end with the process.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<(String, String), String>>);

impl Memory {
    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<(String, String), String>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer<'a, T: Send + 'a>(&self, value: T) -> Answer<'a, T> {
        Box::pin(std::future::ready(Ok(value)))
    }

    fn of(&self, space: &str) -> Vec<(String, String)> {
        self.with(|records| {
            let of_space = records.iter().filter(|((other, _), _)| other == space);
            of_space.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        })
    }
}

impl Books for Memory {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, Option<String>> {
        let key = (space.to_owned(), key.to_owned());
        self.answer(self.with(|records| records.get(&key).cloned()))
    }

    fn put<'a>(&'a self, record: &'a Record) -> Answer<'a, ()> {
        let Record { space, key, value } = record.clone();
        self.with(|records| records.insert((space, key), value));
        self.answer(())
    }

    fn exchange<'a>(
        &'a self,
        record: &'a Record,
        expected: Option<&'a str>,
        others: &'a [Record],
    ) -> Answer<'a, bool> {
        let done = self.with(|records| {
            let key = (record.space.clone(), record.key.clone());
            let is_ours = records.get(&key).map(String::as_str) == expected;
            for Record { space, key, value } in std::iter::once(record).chain(others) {
                if is_ours {
                    records.insert((space.clone(), key.clone()), value.clone());
                }
            }
            let is_journal = |(space, _): &&(String, String)| space == crate::journal::SPACE;
            let surplus = records.len().saturating_sub(MEMORY_LIMIT);
            let oldest: Vec<_> = records.keys().filter(is_journal).take(surplus).cloned().collect();
            oldest.iter().for_each(|key| drop(records.remove(key)));
            is_ours
        });
        self.answer(done)
    }

    fn list<'a>(&'a self, space: &'a str) -> Answer<'a, Vec<(String, String)>> {
        self.answer(self.of(space))
    }

    fn list_last<'a>(
        &'a self,
        space: &'a str,
        before: Option<&'a str>,
        limit: u32,
    ) -> Answer<'a, Vec<(String, String)>> {
        let from = (space.to_owned(), String::new());
        let end = match before {
            Some(before) => (space.to_owned(), before.to_owned()),
            // The space that would come next.
            None => (format!("{space}\0"), String::new()),
        };
        let last = self.with(|records| {
            let last = records.range(from..end).rev().take(limit as usize);
            last.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        });
        self.answer(last)
    }

    fn delete<'a>(&'a self, space: &'a str, key: &'a str) -> Answer<'a, bool> {
        let key = (space.to_owned(), key.to_owned());
        self.answer(self.with(|records| records.remove(&key).is_some()))
    }
}
