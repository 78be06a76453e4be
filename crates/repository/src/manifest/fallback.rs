//! What is done when the model gives no answer: `[fallback]`.
//!
//! Whether the default answer fits the model is known once the model's file is read, and is the router's
//! business.

use std::collections::BTreeMap;
use std::time::Duration;

use outhaul_types::{
    DefaultValue, Destination, FallbackCause, FallbackSpec, ModelManifest, Name, Parameter,
};

use super::rules::duration_within;
use super::write::{Toml, key, list, string};
use crate::declared::Faults;
use crate::{Declarations, Rule, Value};

const LONGEST_ATTEMPT: Duration = Duration::from_secs(24 * 60 * 60);

const KEYS: [&str; 4] = ["fallback.to", "fallback.default", "fallback.on", "fallback.after"];

pub(super) fn take(declared: &mut Declarations, manifest: &mut ModelManifest) {
    let Some(first) = KEYS.into_iter().find(|key| declared.line(key).is_some()) else { return };
    let leads_somewhere = KEYS[..2].iter().any(|key| declared.line(key).is_some());
    if !leads_somewhere {
        declared.take(first, |_| {
            let remedy = "name a model in fallback.to, or give values in fallback.default";
            Err::<(), _>(Rule::new("says nothing without what to fall back to", remedy))
        });
    }
    let to = declared.take_nested("fallback.to", |value, faults| {
        let rule = Rule::new("must be a list of models", "write as in [\"reviews-small\"]");
        faults.items(value, rule, |_, item, faults| faults.check(item, destination))
    });
    let default = declared.take_nested("fallback.default", |value, faults| {
        let rule = Rule::new("must be a table", "write as in { label = \"neutral\" }");
        faults.named(value, rule, |name, value, faults| {
            Some((Name::from(name), self::value(value, faults)?))
        })
    });
    let on = declared.take_nested("fallback.on", |value, faults| {
        let rule = Rule::new("must be a list of causes", "write as in [\"error\", \"deadline\"]");
        faults.items(value, rule, |_, item, faults| faults.check(item, cause))
    });
    let after = declared
        .take("fallback.after", |value| duration_within(value, LONGEST_ATTEMPT, "24h", "200ms"));
    manifest.fallback = Some(FallbackSpec {
        to: to.unwrap_or_default(),
        default: default.unwrap_or_default().into_iter().collect(),
        on: on.unwrap_or_default(),
        after,
    });
    if let Some(FallbackSpec { to, default, .. }) = &manifest.fallback
        && to.is_empty()
        && default.is_empty()
    {
        // An empty list is no fallback; anything else that is empty here is a problem already.
        manifest.fallback = None;
    }
}

fn destination(value: &Value) -> Result<Destination, Rule> {
    value.text().unwrap_or_default().parse().map_err(|_| {
        Rule::new(
            "must name a model",
            "write NAME, NAME@VERSION, NAME@LABEL, or the URL http://HOST/v2/models/NAME",
        )
    })
}

fn cause(value: &Value) -> Result<FallbackCause, Rule> {
    let text = value.text().unwrap_or_default();
    FallbackCause::ALL.into_iter().find(|cause| cause.as_str() == text).ok_or_else(|| {
        let words = FallbackCause::ALL.map(|cause| format!("\"{}\"", cause.as_str()));
        let must = format!("must be one of {}", words.join(", "));
        match crate::nearest(text, FallbackCause::ALL.map(FallbackCause::as_str)) {
            Some(nearest) => Rule::new(must, format!("did you mean \"{nearest}\"?")),
            None => Rule::new(must, "leave fallback.on out for all of them"),
        }
    })
}

fn value(value: &Value, faults: &mut Faults) -> Option<DefaultValue> {
    let one = |parameter| Some(DefaultValue::One(parameter));
    match value {
        Value::Text(text) => one(Parameter::String(text.clone())),
        Value::Whole(number) => one(Parameter::Int(*number)),
        Value::Fraction(number) if number.is_finite() => one(Parameter::Float(*number)),
        Value::Boolean(truth) => one(Parameter::Bool(*truth)),
        Value::List(items) if !items.is_empty() => {
            let each = items.iter().enumerate().map(|(index, item)| {
                faults.within(&format!("[{index}]"), |faults| self::value(item, faults))
            });
            // All are looked at, for the faults of each.
            let each: Vec<Option<DefaultValue>> = each.collect();
            each.into_iter().collect::<Option<_>>().map(DefaultValue::Many)
        }
        Value::Fraction(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => {
            let must = "must be a text, a finite number, true or false, or a list of these";
            faults.add(value, Rule::new(must, "write the value that each row shall have"));
            None
        }
    }
}

pub(super) fn write(text: &mut Toml, fallback: Option<&FallbackSpec>) {
    let Some(FallbackSpec { to, default, on, after }) = fallback else { return };
    let section = &mut text.section("[fallback]");
    if !to.is_empty() {
        section.entry("to", list(to.iter().map(|to| string(&to.to_string()))));
    }
    if !on.is_empty() {
        section.entry("on", list(on.iter().map(|cause| string(cause.as_str()))));
    }
    section.given("after", after.map(|of| string(&humantime::format_duration(of).to_string())));
    write_default(text, default);
}

fn write_default(text: &mut Toml, default: &BTreeMap<Name, DefaultValue>) {
    let section = &mut text.section("[fallback.default]");
    for (output, value) in default {
        section.entry(&key(output), written(value));
    }
}

fn written(value: &DefaultValue) -> String {
    match value {
        DefaultValue::One(Parameter::Bool(truth)) => truth.to_string(),
        DefaultValue::One(Parameter::Int(number)) => number.to_string(),
        DefaultValue::One(Parameter::Float(number)) => format!("{number:?}"),
        DefaultValue::One(Parameter::String(text)) => string(text),
        DefaultValue::Many(values) => list(values.iter().map(written)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::tests::{read, tensor_name};
    use super::*;
    use crate::write_manifest;

    #[test]
    fn it_is_read_and_written_alike() {
        let text = "[fallback]\n\
            to = [\"small\", \"reviews@1\", \"http://host:1/v2/models/reviews\"]\n\
            on = [\"error\", \"open_circuit\"]\n\
            after = \"200ms\"\n\
            \n\
            [fallback.default]\n\
            \"a b\" = [[1, 2], [3, 4]]\n\
            label = \"neutral\"\n\
            score = 0.5\n\
            sure = false\n";
        let manifest = read(text).unwrap();
        let fallback = manifest.fallback.clone().unwrap();
        assert_eq!((fallback.to.len(), fallback.default.len()), (3, 4));
        assert_eq!(fallback.after, Some(Duration::from_millis(200)));
        assert!(!fallback.covers(FallbackCause::Deadline));
        let label = DefaultValue::One(Parameter::String("neutral".to_owned()));
        assert_eq!(fallback.default.get("label"), Some(&label));
        assert_eq!(write_manifest(&manifest), text);
        assert_eq!(read("fallback.to = []").unwrap().fallback, None);
        assert_eq!(read("").unwrap().fallback, None);
    }

    #[test]
    fn what_breaks_a_rule_is_told_with_its_path() {
        struct Case(&'static str, &'static str);
        for Case(text, expected) in [
            Case("fallback = 3", "fallback = 3: must be a section"),
            Case("fallback.to = 'a'", "must be a list of models"),
            Case("fallback.to = ['a', 'b c']", "fallback.to[1] = \"b c\": must name a model"),
            Case("fallback.to = [7]", "fallback.to[0] = 7: must name a model"),
            Case("fallback = { to = ['a'], on = ['dealine'] }", "did you mean \"deadline\"?"),
            Case("fallback = { to = ['a'], after = '0s' }", "must be a duration above zero"),
            Case("fallback.after = '1s'", "fallback.after = \"1s\": says nothing without what"),
            Case("fallback.default = 3", "must be a table; write as in { label"),
            Case("fallback.default.y = []", "fallback.default.y = []: must be a text"),
            Case("fallback.default.y = [1, nan]", "fallback.default.y[1] = NaN: must be a text"),
            Case("fallback.default.y = { a = 1 }", "fallback.default.y = { a = 1 }: must be a"),
            Case("fallback.too = ['a']", "unknown key; did you mean fallback.to?"),
        ] {
            let problems = read(text).expect_err(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].to_string().contains(expected), "{text}: {}", problems[0]);
        }
    }

    fn values() -> impl Strategy<Value = DefaultValue> {
        let one = prop_oneof![
            any::<bool>().prop_map(Parameter::Bool),
            any::<i64>().prop_map(Parameter::Int),
            prop::num::f64::NORMAL.prop_map(Parameter::Float),
            "[ -~\\nä]{0,4}".prop_map(Parameter::String),
        ];
        one.prop_map(DefaultValue::One)
            .prop_recursive(2, 8, 3, |inner| vec(inner, 1..4).prop_map(DefaultValue::Many))
    }

    /// Random fallbacks, for the round trip of whole manifests.
    pub(in crate::manifest) fn fallbacks() -> BoxedStrategy<Option<FallbackSpec>> {
        let destinations = ["small", "reviews@1", "reviews@stable", "http://h:1/v2/models/m"];
        let to = subsequence(destinations.to_vec(), 0..=4)
            .prop_map(|to| to.into_iter().map(|to| to.parse().unwrap()).collect::<Vec<_>>());
        let default = btree_map(tensor_name().prop_map(Name::from), values(), 0..3);
        let on = vec(select(FallbackCause::ALL.to_vec()), 0..3);
        let after = of((1..=86_400_000_u64).prop_map(Duration::from_millis));
        let spec = (to, default, on, after)
            .prop_map(|(to, default, on, after)| FallbackSpec { to, default, on, after })
            .prop_filter("it leads nowhere", |spec| {
                !(spec.to.is_empty() && spec.default.is_empty())
            });
        // Manifests have so many parts that their trees outgrow a test's stack.
        of(spec).boxed()
    }
}
