//! Protobuf's text format, which Triton and TensorFlow Serving write their declarations in.
//!
//! A file becomes a [`Document`]: the message that it says, and the line of each of its fields.
//! [`decided`] holds every field that is set against a table of [`Decision`]s, so that what nobody
//! reads is told and not dropped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use miette::Diagnostic;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};

use crate::declared::{nearest, read_bounded};
use crate::{Problem, Severity};

use outline::{Outline, Positions, Unknown, brief, outline};

mod outline;

/// A file may break one rule a thousand times over.
const MOST_PROBLEMS: usize = 100;

static SCHEMAS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/formats.bin")).as_slice())
        .expect("the build script has written a descriptor set")
});

/// What a field that is set leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// It is read, and means something here.
    Taken,
    /// It has no effect, and no answer and no limit depends on it: why, and what to do.
    Warn(&'static str, &'static str),
    /// Serving the model without it would be wrong: why, and what to do.
    Refuse(&'static str, &'static str),
}

/// A field's path without numbers and keys, such as `input.reshape.shape`, and what it leads to. A
/// message's decision holds for all that is in it, unless it is [`Decision::Taken`]; a message
/// without one is told by its fields.
pub(super) type Row = (&'static str, Decision);

/// Returns the schema of a message.
pub(super) fn schema(message: &str) -> MessageDescriptor {
    SCHEMAS.get_message_by_name(message).expect("callers name messages of the committed schemas")
}

/// A file that its schema's parser has read.
pub(super) struct Document {
    place: String,
    message: DynamicMessage,
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// Reads a file as one message.
    ///
    /// # Errors
    ///
    /// Fails with every unknown field, or with the first mistake that the parser meets.
    pub(super) fn read(path: &Path, schema: &MessageDescriptor) -> Result<Self, Vec<Problem>> {
        match read_bounded(path) {
            Ok(text) => Document::parse(path, &text, schema),
            Err(rule) => {
                let remedy = "put a text of at most 1 MiB here that can be read";
                Err(vec![Problem::of_place(path.display(), rule.must, remedy)])
            }
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// As [`Document::read`].
    pub(super) fn parse(
        path: &Path,
        text: &str,
        schema: &MessageDescriptor,
    ) -> Result<Self, Vec<Problem>> {
        let place = path.display().to_string();
        // Some editors mark a text as UTF-8.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let positions = Positions::of(text);
        let mistake = |offset: usize, rule: &str| Problem {
            line: Some(positions.line(offset)),
            ..Problem::of_place(
                &place,
                format!("not protobuf text at column {}: {rule}", positions.column(offset)),
                "correct the text at this place",
            )
        };
        let Outline { lines, unknown, bare_lists, broken, too_deep } = outline(text, schema);
        if let Some(offset) = too_deep {
            return Err(vec![mistake(offset, "messages are nested too deep")]);
        }
        let mut problems: Vec<Problem> =
            unknown.iter().map(|field| unknown_field(field, &place, &positions)).collect();
        if !problems.is_empty() && broken.is_none() {
            return Err(problems);
        }
        // Where the walk has stopped, its word on the depth ends too: the parser gets no more than
        // what it has seen.
        let seen = &text[..broken.unwrap_or(text.len())];
        let colons = Colons::before(&bare_lists, seen);
        match DynamicMessage::parse_text_format(schema.clone(), &colons.text) {
            Ok(_) if broken.is_some() => {
                problems.push(mistake(seen.len().saturating_sub(1), "unexpected character"));
                Err(problems)
            }
            Ok(message) => Ok(Document { place, message, lines }),
            Err(error) => {
                let span = error.labels().and_then(|mut labels| labels.next());
                let offset = span.map_or(seen.len(), |span| colons.offset_without(span.offset()));
                // An unknown field is told already, in better words.
                let line = positions.line(offset);
                if !problems.iter().any(|problem| problem.line == Some(line)) {
                    problems.push(mistake(offset, &error.to_string()));
                }
                Err(problems)
            }
        }
    }

    /// The whole of it.
    pub(super) fn root(&self) -> Section<'_> {
        Section { document: self, message: &self.message, path: String::new() }
    }

    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn problem(&self, path: &str, value: Option<String>, rule: &str, remedy: &str) -> Problem {
        Problem {
            line: self.line(path),
            key: Some(path.to_owned()),
            value,
            ..Problem::of_place(&self.place, rule, remedy)
        }
    }
}

/// A text with colons added, and the way back to offsets without them.
struct Colons {
    text: String,
    /// Where they are, ascending.
    added: Vec<usize>,
}

impl Colons {
    fn before(offsets: &[usize], text: &str) -> Self {
        let mut colons = Colons { text: String::with_capacity(text.len()), added: Vec::new() };
        let mut copied = 0;
        for &offset in offsets.iter().filter(|offset| **offset < text.len()) {
            colons.text.push_str(&text[copied..offset]);
            colons.added.push(colons.text.len());
            colons.text.push(':');
            copied = offset;
        }
        colons.text.push_str(&text[copied..]);
        colons
    }

    fn offset_without(&self, offset: usize) -> usize {
        offset - self.added.partition_point(|added| *added < offset)
    }
}

fn unknown_field(field: &Unknown, place: &str, positions: &Positions<'_>) -> Problem {
    let (rule, remedy) = match &field.parent {
        None => ("messages of other types mean nothing here", "remove it".to_owned()),
        Some(parent) => {
            let names: Vec<String> = parent.fields().map(|field| field.name().to_owned()).collect();
            let name = field.path.rsplit('.').next().unwrap_or(&field.path);
            let remedy = match nearest(name, names.iter().map(String::as_str)) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("the fields of {} are {}", parent.name(), names.join(", ")),
            };
            ("unknown field", remedy)
        }
    };
    Problem {
        line: Some(positions.line(field.offset)),
        key: Some(field.path.clone()),
        ..Problem::of_place(place, rule, remedy)
    }
}

/// One message of a document, and where it stands.
#[derive(Clone)]
pub(super) struct Section<'d> {
    document: &'d Document,
    message: &'d DynamicMessage,
    path: String,
}

impl<'d> Section<'d> {
    /// The path of a field.
    pub(super) fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Whether a path lies in this section.
    pub(super) fn contains(&self, path: Option<&str>) -> bool {
        let below = path.and_then(|path| path.strip_prefix(&self.path));
        below.is_some_and(|below| below.starts_with(['.', '[']))
    }

    /// Whether a field is written, be it with its default.
    pub(super) fn is_written(&self, field: &str) -> bool {
        self.document.lines.contains_key(&self.path_of(field))
    }

    /// Whether a field is set: written with another value than its default, or with any where it is
    /// one of a choice.
    pub(super) fn is_set(&self, field: &str) -> bool {
        self.value(field).is_some()
    }

    /// A text; empty where it is not set.
    pub(super) fn text(&self, field: &str) -> &'d str {
        self.value(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number or the number of a choice; 0 where it is not set.
    pub(super) fn number(&self, field: &str) -> i128 {
        self.value(field).and_then(whole).unwrap_or_default()
    }

    /// A truth; false where it is not set.
    pub(super) fn truth(&self, field: &str) -> bool {
        self.value(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// Numbers in order.
    pub(super) fn numbers(&self, field: &str) -> Vec<i128> {
        let values = self.value(field).and_then(Value::as_list).unwrap_or_default();
        values.iter().filter_map(whole).collect()
    }

    /// A message, where it is set.
    pub(super) fn section(&self, field: &str) -> Option<Section<'d>> {
        let message = self.value(field)?.as_message()?;
        Some(Section { document: self.document, message, path: self.path_of(field) })
    }

    /// Messages in order.
    pub(super) fn sections(&self, field: &str) -> Vec<Section<'d>> {
        let values = self.value(field).and_then(Value::as_list).unwrap_or_default();
        let messages = values.iter().filter_map(Value::as_message).enumerate();
        messages
            .map(|(index, message)| {
                let path = format!("{}[{index}]", self.path_of(field));
                Section { document: self.document, message, path }
            })
            .collect()
    }

    /// Messages by their keys, in order of the keys.
    pub(super) fn sections_by_key(&self, field: &str) -> Vec<(String, Section<'d>)> {
        let mut sections: Vec<_> = self
            .entries(field)
            .filter_map(|(key, value)| {
                let path = format!("{}[{}]", self.path_of(field), brief(&key));
                let message = value.as_message()?;
                Some((key, Section { document: self.document, message, path }))
            })
            .collect();
        sections.sort_by(|(left, _), (right, _)| left.cmp(right));
        sections
    }

    /// Texts by their keys, in order of the keys.
    pub(super) fn texts_by_key(&self, field: &str) -> Vec<(String, String)> {
        let texts = self.entries(field);
        let mut texts: Vec<_> =
            texts.filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect();
        texts.sort();
        texts
    }

    /// Numbers by their keys, in order of the keys.
    pub(super) fn numbers_by_key(&self, field: &str) -> Vec<(String, i128)> {
        let numbers = self.entries(field).filter_map(|(key, value)| Some((key, whole(value)?)));
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort();
        numbers
    }

    /// A problem with a field; with the section itself where `field` is empty.
    pub(super) fn problem(&self, field: &str, rule: &str, remedy: &str) -> Problem {
        let path = if field.is_empty() { self.path.clone() } else { self.path_of(field) };
        let descriptor = self.message.descriptor().get_field_by_name(field);
        let shown = descriptor.and_then(|descriptor| {
            let value = self.value(field)?;
            shown(value, &descriptor)
        });
        self.document.problem(&path, shown, rule, remedy)
    }

    fn value(&self, field: &str) -> Option<&'d Value> {
        debug_assert!(
            self.message.descriptor().get_field_by_name(field).is_some(),
            "{} has no field {field}",
            self.message.descriptor().full_name()
        );
        let mut fields = self.message.fields();
        fields.find(|(descriptor, _)| descriptor.name() == field).map(|(_, value)| value)
    }

    fn entries(&self, field: &str) -> impl Iterator<Item = (String, &'d Value)> + use<'d> {
        let entries = self.value(field).and_then(Value::as_map);
        entries.into_iter().flatten().map(|(key, value)| (key_text(key), value))
    }
}

/// Holds every field that is set against the table, and returns what it says of them.
pub(super) fn decided(document: &Document, rows: &[Row]) -> Vec<Problem> {
    let rows: BTreeMap<&str, Decision> = rows.iter().copied().collect();
    let mut problems = Vec::new();
    decide(&document.root(), "", &rows, &mut problems);
    problems
}

fn decide(
    section: &Section<'_>,
    pattern: &str,
    rows: &BTreeMap<&str, Decision>,
    problems: &mut Vec<Problem>,
) {
    for (field, value) in section.message.fields() {
        let name = field.name();
        let pattern =
            if pattern.is_empty() { name.to_owned() } else { format!("{pattern}.{name}") };
        if let (Kind::Enum(choices), Value::EnumNumber(number)) = (field.kind(), value)
            && choices.get_value(*number).is_none()
        {
            let names: Vec<String> =
                choices.values().map(|value| value.name().to_owned()).collect();
            let remedy = format!("write one of {}", names.join(", "));
            problems.push(section.problem(name, "no such choice", &remedy));
            continue;
        }
        match rows.get(pattern.as_str()) {
            Some(Decision::Warn(rule, remedy)) => {
                problems.push(section.problem(name, rule, remedy).warning());
                continue;
            }
            Some(Decision::Refuse(rule, remedy)) => {
                problems.push(section.problem(name, rule, remedy));
                continue;
            }
            // A test walks the schemas, so this is for a table that somebody has just changed.
            None if !matches!(inner(&field), Some(message) if message.fields().len() > 0) => {
                problems.push(section.problem(name, "this field has no meaning here", "remove it"));
                continue;
            }
            Some(Decision::Taken) | None => {}
        }
        let below = match value {
            Value::Message(_) => section.section(name).into_iter().collect(),
            Value::List(_) => section.sections(name),
            Value::Map(_) => {
                section.sections_by_key(name).into_iter().map(|entry| entry.1).collect()
            }
            _ => Vec::new(),
        };
        for section in below {
            decide(&section, &pattern, rows, problems);
        }
    }
}

/// The message that a field, its elements or its entries hold.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            entry.map_entry_value_field().kind().as_message().cloned()
        }
        kind => kind.as_message().cloned(),
    }
}

/// Puts problems in the order of the file and leaves out what nobody would read.
pub(super) fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| problem.line);
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    if more > 0
        && let Some(place) = problems.first().map(|problem| problem.place.clone())
    {
        let rest = problems.split_off(MOST_PROBLEMS);
        let worst = rest.iter().map(|problem| problem.severity).max().unwrap_or_default();
        let problem = Problem::of_place(place, format!("{more} more problems"), "mend these first");
        problems.push(if worst == Severity::Warning { problem.warning() } else { problem });
    }
    problems
}

fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::I32(number) | Value::EnumNumber(number) => Some((*number).into()),
        Value::I64(number) => Some((*number).into()),
        Value::U32(number) => Some((*number).into()),
        Value::U64(number) => Some((*number).into()),
        _ => None,
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(truth) => truth.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
    }
}

/// A value as the file has it, where it fits a line.
fn shown(value: &Value, field: &FieldDescriptor) -> Option<String> {
    let text = match (value, field.kind()) {
        (Value::EnumNumber(number), Kind::Enum(choices)) => match choices.get_value(*number) {
            Some(choice) => choice.name().to_owned(),
            None => number.to_string(),
        },
        (Value::String(text), _) => format!("{text:?}"),
        (Value::Bool(truth), _) => truth.to_string(),
        (Value::List(values), _) => {
            let numbers: Option<Vec<_>> =
                values.iter().take(20).map(|value| whole(value).map(|n| n.to_string())).collect();
            format!("[{}]", numbers?.join(", "))
        }
        (value, _) => whole(value)?.to_string(),
    };
    Some(brief(&text))
}

#[cfg(test)]
pub(super) mod tests;
