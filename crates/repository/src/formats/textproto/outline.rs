//! Where each field of a text-format file stands, and which fields no schema knows.
//!
//! The parser proper stops at its first mistake and keeps no positions. This walk goes first: it
//! follows brackets and names, finds every unknown field in one go, and remembers the line of every
//! known one. It checks no values.
//!
//! Invariant: nothing recurses, and a text that [`outline`] lets pass is not nested deeper than
//! [`DEEPEST`]. The parser recurses, and a file can make it go deeper than any schema by naming
//! messages of other types.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// No schema here goes deeper than eight.
const DEEPEST: usize = 32;

/// Unknown fields beyond this are not told one by one.
const MOST_UNKNOWN: usize = 50;

/// What a walk has found.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// The line of each field, by its path: `input[0].dims`, `parameters[NAME].string_value`.
    pub(super) lines: BTreeMap<String, usize>,
    /// Fields that the schema does not have.
    pub(super) unknown: Vec<Unknown>,
    /// Where lists of messages begin that no colon stands before. It may be left out there, and the
    /// parser does not know that.
    pub(super) bare_lists: Vec<usize>,
    /// Where the brackets and names stopped making sense: the offset behind the token.
    pub(super) broken: Option<usize>,
    /// Where it is nested too deep.
    pub(super) too_deep: Option<usize>,
}

/// A field that the schema does not have.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) path: String,
    pub(super) offset: usize,
    /// The message that it stands in; `None` where it names a message of another type.
    pub(super) parent: Option<MessageDescriptor>,
}

/// Tells lines and columns, counted from 1.
pub(super) struct Positions<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Positions<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(offset, _)| offset + 1)).collect();
        Positions { text, starts }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    pub(super) fn column(&self, offset: usize) -> usize {
        let start = self.starts.get(self.line(offset) - 1).copied().unwrap_or_default();
        1 + self.text.get(start..offset).map_or(0, |line| line.chars().count())
    }
}

/// Walks through a text.
pub(super) fn outline(text: &str, schema: &MessageDescriptor) -> Outline {
    let root = Frame::Message(Open {
        schema: Some(schema.clone()),
        path: String::new(),
        map: None,
        close: b'\0',
    });
    let mut walk = Walk {
        tokens: Tokens { text, at: 0 },
        positions: Positions::of(text),
        frames: vec![root],
        counts: HashMap::new(),
        found: Outline::default(),
    };
    match walk.run() {
        Ok(()) => {}
        Err(Stop::Broken) => walk.found.broken = Some(walk.tokens.at),
        Err(Stop::TooDeep) => walk.found.too_deep = Some(walk.tokens.at),
    }
    walk.found
}

enum Stop {
    Broken,
    TooDeep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    /// A name or a number.
    Word(&'t str),
    /// What stands between quotes.
    Quoted(&'t str),
    Mark(u8),
}

struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Tokens<'t> {
    /// Returns the next token and where it starts.
    fn next(&mut self) -> Option<(Token<'t>, usize)> {
        self.skip_blank();
        let start = self.at;
        let first = *self.text.as_bytes().get(start)?;
        let token = match first {
            b'"' | b'\'' => self.quoted(first),
            b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => Token::Word(self.word()),
            _ => {
                // A broken text may be cut behind this token, so it ends with its character.
                self.at += self.text[start..].chars().next().map_or(1, char::len_utf8);
                Token::Mark(first)
            }
        };
        Some((token, start))
    }

    fn peek(&mut self) -> Option<Token<'t>> {
        let before = self.at;
        let token = self.next();
        self.at = before;
        token.map(|(token, _)| token)
    }

    fn skip_blank(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => self.at += 1,
                b'#' => {
                    let rest = &bytes[self.at..];
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    self.at += end.unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) -> &'t str {
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            let signs_exponent = matches!(byte, b'+' | b'-') && bytes[start].is_ascii_digit() && {
                matches!(bytes[self.at - 1], b'e' | b'E') && !bytes[start..].starts_with(b"0x")
            };
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || signs_exponent) {
                break;
            }
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// A text ends with its line: without a closing quote it is a mark, which no value is.
    fn quoted(&mut self, quote: u8) -> Token<'t> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        let start = self.at;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'\\' if bytes.get(self.at + 1).is_some_and(u8::is_ascii) => self.at += 2,
                b'\n' => break,
                byte if *byte == quote => {
                    self.at += 1;
                    return Token::Quoted(&self.text[start..self.at - 1]);
                }
                _ => self.at += 1,
            }
        }
        Token::Mark(quote)
    }
}

enum Frame {
    Message(Open),
    /// Values between `[` and `]`.
    List(Slot),
}

/// A message whose fields are being read.
struct Open {
    /// `None` inside of an unknown field, where everything is unknown.
    schema: Option<MessageDescriptor>,
    path: String,
    /// The path of the map, where this is one of its entries.
    map: Option<String>,
    close: u8,
}

/// A field that waits for its value.
#[derive(Clone)]
struct Slot {
    field: Option<FieldDescriptor>,
    path: String,
}

struct Walk<'t> {
    tokens: Tokens<'t>,
    positions: Positions<'t>,
    frames: Vec<Frame>,
    /// How many messages each repeated field has had, by its path.
    counts: HashMap<String, usize>,
    found: Outline,
}

impl<'t> Walk<'t> {
    fn run(&mut self) -> Result<(), Stop> {
        while let Some((token, start)) = self.tokens.next() {
            match self.frames.last() {
                None => return Err(Stop::Broken),
                Some(Frame::List(slot)) => {
                    let slot = slot.clone();
                    match token {
                        Token::Mark(b']') => drop(self.frames.pop()),
                        Token::Mark(b',') => {}
                        Token::Mark(b'[') => return Err(Stop::Broken),
                        token => self.value(token, start, slot)?,
                    }
                }
                Some(Frame::Message(open)) => match token {
                    Token::Word(name) => self.field(name, start)?,
                    Token::Mark(b'[') => self.other_type(start)?,
                    Token::Mark(b',' | b';') => {}
                    Token::Mark(mark) if mark == open.close => drop(self.frames.pop()),
                    _ => return Err(Stop::Broken),
                },
            }
        }
        Ok(())
    }

    /// A field by its name, and its value.
    fn field(&mut self, name: &str, start: usize) -> Result<(), Stop> {
        let Some(Frame::Message(open)) = self.frames.last() else { return Err(Stop::Broken) };
        let field = open.schema.as_ref().and_then(|schema| schema.get_field_by_name(name));
        let is_key = open.map.is_some() && name == "key";
        let path = match (&open.map, open.path.as_str()) {
            (Some(_), path) => path.to_owned(),
            (None, "") => name.to_owned(),
            (None, path) => format!("{path}.{name}"),
        };
        if let (Some(schema), None) = (&open.schema, &field) {
            if self.found.unknown.len() < MOST_UNKNOWN {
                let parent = Some(schema.clone());
                self.found.unknown.push(Unknown { path: brief(&path), offset: start, parent });
            }
        } else if field.is_some() && !is_key {
            self.remember(&path, start);
        }
        let has_colon = self.tokens.peek() == Some(Token::Mark(b':'));
        let (token, start) = self.after_colon()?;
        let holds_messages =
            field.as_ref().is_some_and(|field| field.kind().as_message().is_some());
        if token == Token::Mark(b'[') && holds_messages && !has_colon {
            self.found.bare_lists.push(start);
        }
        if is_key && let Token::Word(key) | Token::Quoted(key) = token {
            self.enter_key(key, start);
        }
        self.value(token, start, Slot { field, path })
    }

    /// The entry of a map goes by its key from here on.
    fn enter_key(&mut self, key: &str, start: usize) {
        if let Some(Frame::Message(open)) = self.frames.last_mut()
            && let Some(map) = &open.map
        {
            open.path = format!("{map}[{}]", brief(key));
            let path = open.path.clone();
            self.remember(&path, start);
        }
    }

    /// `[domain/type.Name] { ... }` holds a message of another type, `[name]` an extension.
    fn other_type(&mut self, start: usize) -> Result<(), Stop> {
        let Some(Frame::Message(open)) = self.frames.last() else { return Err(Stop::Broken) };
        let (path, known) = (open.path.clone(), open.schema.is_some());
        loop {
            match self.tokens.next() {
                Some((Token::Mark(b']'), _)) => break,
                Some((Token::Word(_) | Token::Mark(b'/'), _)) => {}
                _ => return Err(Stop::Broken),
            }
        }
        if known && self.found.unknown.len() < MOST_UNKNOWN {
            let name = brief(&self.tokens.text[start..self.tokens.at]);
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            self.found.unknown.push(Unknown { path, offset: start, parent: None });
        }
        let (token, start) = self.after_colon()?;
        self.value(token, start, Slot { field: None, path: String::new() })
    }

    fn after_colon(&mut self) -> Result<(Token<'t>, usize), Stop> {
        if self.tokens.peek() == Some(Token::Mark(b':')) {
            self.tokens.next();
        }
        self.tokens.next().ok_or(Stop::Broken)
    }

    fn value(&mut self, token: Token<'t>, start: usize, slot: Slot) -> Result<(), Stop> {
        match token {
            Token::Mark(b'{') => self.open(b'}', start, slot),
            Token::Mark(b'<') => self.open(b'>', start, slot),
            Token::Mark(b'[') => self.push(Frame::List(slot)),
            Token::Mark(b'-') => match self.tokens.next() {
                Some((Token::Word(_), _)) => Ok(()),
                _ => Err(Stop::Broken),
            },
            Token::Word(_) => Ok(()),
            Token::Quoted(_) => {
                // Texts beside each other are one.
                while let Some(Token::Quoted(_)) = self.tokens.peek() {
                    self.tokens.next();
                }
                Ok(())
            }
            Token::Mark(_) => Err(Stop::Broken),
        }
    }

    fn open(&mut self, close: u8, start: usize, slot: Slot) -> Result<(), Stop> {
        let Slot { field, mut path } = slot;
        let schema = field.as_ref().and_then(|field| match field.kind() {
            Kind::Message(message) => Some(message),
            _ => None,
        });
        let repeats = field.as_ref().is_some_and(|field| field.is_list() || field.is_map());
        let map = field.filter(FieldDescriptor::is_map).map(|_| path.clone());
        if repeats {
            let count = self.counts.entry(path.clone()).or_default();
            // Until its key is known, an entry of a map has a name that nothing asks for.
            let mark = if map.is_some() { "#" } else { "" };
            path = format!("{path}[{mark}{count}]");
            *count += 1;
            self.remember(&path.clone(), start);
        }
        self.push(Frame::Message(Open { schema, path, map, close }))
    }

    fn push(&mut self, frame: Frame) -> Result<(), Stop> {
        if self.frames.len() > DEEPEST {
            return Err(Stop::TooDeep);
        }
        self.frames.push(frame);
        Ok(())
    }

    fn remember(&mut self, path: &str, offset: usize) {
        let line = self.positions.line(offset);
        self.found.lines.entry(path.to_owned()).or_insert(line);
    }
}

/// Cuts what no sound file holds.
pub(super) fn brief(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
