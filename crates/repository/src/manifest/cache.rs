//! Whether and where answers are kept: `[cache]`.
//!
//! The section alone turns it on: every key of it has a default.

use std::time::Duration;

use outhaul_types::{CacheSpec, CacheStore, ModelManifest};

use super::rules::duration_within;
use super::write::{Toml, string};
use crate::declared::Fields;
use crate::{Declarations, Rule, Value};

const LEAST: usize = 1 << 20;

const LONGEST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const STORES: [(&str, CacheStore); 3] =
    [("memory", CacheStore::Memory), ("redis", CacheStore::Redis), ("both", CacheStore::Both)];

pub(super) fn take(declared: &mut Declarations, manifest: &mut ModelManifest) {
    manifest.cache = declared.take_nested("cache", |value, faults| {
        let fields = Fields::open(value, &["capacity", "ttl", "store"], faults)?;
        let usual = CacheSpec::default();
        Some(CacheSpec {
            capacity: fields.take("capacity", faults, capacity).unwrap_or(usual.capacity),
            ttl: fields
                .take("ttl", faults, |value| duration_within(value, LONGEST_TTL, "365days", "10m")),
            store: fields.take("store", faults, store).unwrap_or(usual.store),
        })
    });
}

fn capacity(value: &Value) -> Result<u64, Rule> {
    value.size().filter(|size| *size >= LEAST).map(|size| size as u64).ok_or_else(|| {
        Rule::new("must be a size of at least 1MiB", "write a number of bytes or one as 64MiB")
    })
}

fn store(value: &Value) -> Result<CacheStore, Rule> {
    let text = value.text().unwrap_or_default();
    if let Some((_, store)) = STORES.iter().find(|(name, _)| *name == text) {
        return Ok(*store);
    }
    let must = "must be \"memory\", \"redis\" or \"both\"";
    Err(match crate::nearest(text, STORES.map(|(name, _)| name)) {
        Some(nearest) => Rule::new(must, format!("did you mean \"{nearest}\"?")),
        None => Rule::new(must, "leave it out for \"memory\""),
    })
}

pub(super) fn write(text: &mut Toml, cache: Option<&CacheSpec>) {
    let Some(CacheSpec { capacity, ttl, store }) = cache else { return };
    let section = &mut text.section("[cache]");
    // Written in any case, so that there is a section.
    section.entry("capacity", size(*capacity));
    section.given("ttl", ttl.map(|ttl| string(&humantime::format_duration(ttl).to_string())));
    if let Some((name, _)) =
        STORES.iter().find(|(_, of)| of == store).filter(|_| *store != CacheStore::default())
    {
        section.entry("store", string(name));
    }
}

/// Writes a size in the largest unit that holds it exactly.
fn size(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(unit, shift)| format!("\"{}{unit}\"", bytes >> shift))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::tests::read;
    use super::*;
    use crate::write_manifest;

    #[test]
    fn it_is_read_and_written_alike() {
        let text = "[cache]\ncapacity = \"256MiB\"\nttl = \"10m\"\nstore = \"both\"\n";
        let manifest = read(text).unwrap();
        let spec = CacheSpec {
            capacity: 256 << 20,
            ttl: Some(Duration::from_secs(600)),
            store: CacheStore::Both,
        };
        assert_eq!(manifest.cache, Some(spec));
        assert_eq!(write_manifest(&manifest), text);
        assert_eq!(read("").unwrap().cache, None);
        for usual in ["[cache]", "cache = {}", "[cache]\ncapacity = '64 MiB'\nstore = 'memory'"] {
            let manifest = read(usual).unwrap();
            assert_eq!(manifest.cache, Some(CacheSpec::default()), "{usual}");
            assert_eq!(write_manifest(&manifest), "[cache]\ncapacity = \"64MiB\"\n");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_with_its_path() {
        struct Case(&'static str, &'static str);
        for Case(text, expected) in [
            Case("cache = true", "cache = true: must be a table"),
            Case("cache.capacity = 0", "cache.capacity = 0: must be a size of at least 1MiB"),
            Case("cache.capacity = '1000KiB'", "must be a size of at least 1MiB"),
            Case("cache.capacity = 'much'", "write a number of bytes or one as 64MiB"),
            Case("cache.ttl = '0s'", "cache.ttl = \"0s\": must be a duration above zero"),
            Case("cache.ttl = 10", "as in \"10m\""),
            Case("cache.store = 'reds'", "did you mean \"redis\"?"),
            Case("cache.store = 7", "leave it out for \"memory\""),
            Case("cache.size = '1GiB'", "cache.size"),
        ] {
            let problems = read(text).expect_err(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].to_string().contains(expected), "{text}: {}", problems[0]);
        }
    }

    /// Random caches, for the round trip of whole manifests.
    pub(in crate::manifest) fn caches() -> impl Strategy<Value = Option<CacheSpec>> {
        let ttl = of((1..=86_400_000_u64).prop_map(Duration::from_millis));
        let capacity = prop_oneof![1_u64 << 20..1 << 40, (0_u32..12).prop_map(|by| 1 << (20 + by))];
        let spec = (capacity, ttl, select(STORES.to_vec()))
            .prop_map(|(capacity, ttl, (_, store))| CacheSpec { capacity, ttl, store });
        of(spec)
    }
}
