//! Values in values: tables and lists that a key holds, each part checked, every fault collected.
//!
//! Invariant: a fault names the whole path of what is wrong, such as `warmup[0].rows`.

use super::{Rule, Value, nearest};

/// What is wrong inside the value of one key.
pub(crate) struct Faults {
    path: String,
    found: Vec<(String, Option<String>, Rule)>,
}

impl Faults {
    pub(super) fn of(key: &str) -> Self {
        Faults { path: key.to_owned(), found: Vec::new() }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (String, Option<String>, Rule)> {
        self.found.into_iter()
    }

    /// Returns how many there are so far.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Adds that `value`, which is the one at hand, breaks a rule.
    pub(crate) fn add(&mut self, value: &Value, rule: Rule) {
        let value = Some(value.to_string());
        self.found.push((self.path.clone(), value, rule));
    }

    /// Returns what was converted, or adds the rule that the value at hand breaks.
    pub(crate) fn check<T>(
        &mut self,
        value: &Value,
        convert: impl FnOnce(&Value) -> Result<T, Rule>,
    ) -> Option<T> {
        convert(value).map_err(|rule| self.add(value, rule)).ok()
    }

    /// Does something one level below, such as `.rows` or `[0]`.
    pub(crate) fn within<T>(&mut self, step: &str, act: impl FnOnce(&mut Faults) -> T) -> T {
        let outer = self.path.len();
        self.path.push_str(step);
        let done = act(self);
        self.path.truncate(outer);
        done
    }

    /// Converts each item of a list. `None` where the value is no list.
    pub(crate) fn items<T>(
        &mut self,
        value: &Value,
        rule: Rule,
        mut convert: impl FnMut(usize, &Value, &mut Faults) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = value else {
            self.add(value, rule);
            return None;
        };
        let each = items.iter().enumerate().filter_map(|(index, item)| {
            self.within(&format!("[{index}]"), |faults| convert(index, item, faults))
        });
        Some(each.collect())
    }

    /// Converts each entry of a table whose names the user chooses. `None` where the value is no
    /// table.
    pub(crate) fn named<T>(
        &mut self,
        value: &Value,
        rule: Rule,
        mut convert: impl FnMut(&str, &Value, &mut Faults) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::Table(entries) = value else {
            self.add(value, rule);
            return None;
        };
        let each = entries.iter().filter_map(|(name, entry)| {
            self.within(&format!(".{name}"), |faults| convert(name, entry, faults))
        });
        Some(each.collect())
    }
}

/// A table whose names are known.
pub(crate) struct Fields<'v>(&'v [(String, Value)]);

impl<'v> Fields<'v> {
    /// Opens a table that may hold `names`. What is unknown is a fault, and so is another value.
    pub(crate) fn open(value: &'v Value, names: &[&str], faults: &mut Faults) -> Option<Self> {
        let Value::Table(entries) = value else {
            let remedy = format!("write one of {} in braces", names.join(", "));
            faults.add(value, Rule::new("must be a table", remedy));
            return None;
        };
        for (name, entry) in entries.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
            let remedy = match nearest(name, names.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("the keys are {}", names.join(", ")),
            };
            let rule = Rule::new("unknown key", remedy);
            faults.within(&format!(".{name}"), |faults| faults.add(entry, rule));
        }
        Some(Fields(entries))
    }

    /// Whether a field is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn get(&self, name: &str) -> Option<&'v Value> {
        self.0.iter().find(|(entry, _)| entry == name).map(|(_, value)| value)
    }

    /// Takes a field through `convert`. `None` where it is not there, or breaks a rule.
    pub(crate) fn take<T>(
        &self,
        name: &str,
        faults: &mut Faults,
        convert: impl FnOnce(&Value) -> Result<T, Rule>,
    ) -> Option<T> {
        self.nested(name, faults, |value, faults| faults.check(value, convert))
    }

    /// As [`Fields::take`], for a field that holds values in values.
    pub(crate) fn nested<T>(
        &self,
        name: &str,
        faults: &mut Faults,
        convert: impl FnOnce(&Value, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        faults.within(&format!(".{name}"), |faults| convert(value, faults))
    }
}
