//! The protobuf wire format, read from a file without holding it.
//!
//! Invariant: a length from the file is checked against the message around it before anything is
//! allocated or skipped, so what is allocated is bounded by what the file holds. Payloads that
//! nobody asks for are seeked over. Nesting and the number of parts have limits.
//!
//! (`prost` would build every message from one buffer of the whole file, weights included, with an
//! amplification of a hundred for hostile files; here a reader decides field by field.)

use std::io::{self, BufRead, Seek};

use crate::error::Problem;
use crate::graph::List;

/// Messages inside messages. A subgraph takes three, so branches may nest 33 deep.
const MAX_DEPTH: usize = 100;
/// Messages and texts in a file. The largest exports known have a tenth of this.
const MAX_PARTS: usize = 4_000_000;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload {
    Varint(u64),
    Fixed64,
    Fixed32(u32),
    /// Bytes from here to this offset.
    Bytes {
        end: u64,
    },
}

/// One field of a message: its number and payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) payload: Payload,
}

/// Reads fields one after the other.
pub(crate) struct WireReader<R> {
    source: R,
    position: u64,
    length: u64,
    /// Where the innermost open message ends.
    end: u64,
    message: &'static str,
    depth: usize,
    parts: usize,
}

pub(crate) type Result<T> = std::result::Result<T, Problem>;

impl<R: BufRead + Seek> WireReader<R> {
    /// Starts at the beginning of a file of `length` bytes.
    pub(crate) fn new(source: R, length: u64) -> Self {
        WireReader {
            source,
            position: 0,
            length,
            end: length,
            message: "the file",
            depth: 0,
            parts: 0,
        }
    }

    /// Reads the fields of the outermost message.
    pub(crate) fn top(
        &mut self,
        message: &'static str,
        each: impl FnMut(&mut Self, Field) -> Result<()>,
    ) -> Result<()> {
        self.fields(self.length, message, each)
    }

    /// Reads the fields of the message that `field` holds.
    pub(crate) fn message(
        &mut self,
        field: Field,
        message: &'static str,
        each: impl FnMut(&mut Self, Field) -> Result<()>,
    ) -> Result<()> {
        let Payload::Bytes { end } = field.payload else {
            return Err(self.wrong_wire_type(field));
        };
        self.fields(end, message, each)
    }

    /// Calls `each` for every field up to `end`, and skips what `each` left of a payload.
    fn fields(
        &mut self,
        end: u64,
        message: &'static str,
        mut each: impl FnMut(&mut Self, Field) -> Result<()>,
    ) -> Result<()> {
        self.count_part(message)?;
        let at = self.position;
        if self.depth == MAX_DEPTH {
            return Err(Problem::TooDeep { message, at, limit: MAX_DEPTH });
        }
        let outer = (self.end, self.message);
        (self.end, self.message) = (end, message);
        self.depth += 1;
        while self.position < end {
            let field = self.field()?;
            let after = match field.payload {
                Payload::Bytes { end } => end,
                _ => self.position,
            };
            each(self, field)?;
            self.skip_to(after)?;
        }
        self.depth -= 1;
        (self.end, self.message) = outer;
        Ok(())
    }

    fn count_part(&mut self, message: &'static str) -> Result<()> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(Problem::TooManyParts { message, at: self.position, limit: MAX_PARTS });
        }
        Ok(())
    }

    fn field(&mut self) -> Result<Field> {
        let at = self.position;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|&number| (1..1 << 29).contains(&number));
        let Some(number) = number else {
            return Err(self.malformed(at, format!("{} is not a field number", key >> 3)));
        };
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => {
                self.array::<8>()?;
                Payload::Fixed64
            }
            2 => {
                let length = self.varint()?;
                let end = self.position.saturating_add(length);
                if end > self.end {
                    return Err(self.past_the_end(end));
                }
                Payload::Bytes { end }
            }
            5 => Payload::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(self.malformed(at, format!("wire type {other} is not in use"))),
        };
        Ok(Field { number, payload })
    }

    /// Returns an integer field.
    pub(crate) fn int(&self, field: Field) -> Result<i64> {
        match field.payload {
            // Negative numbers are written as their two's complement.
            Payload::Varint(value) => Ok(value.cast_signed()),
            _ => Err(self.wrong_wire_type(field)),
        }
    }

    /// Returns an integer field of 32 bits. Writers extend the sign to 64 bits; others' high bits
    /// are dropped, as protobuf does.
    pub(crate) fn int32(&self, field: Field) -> Result<i32> {
        #[allow(clippy::cast_possible_truncation, reason = "as protobuf says")]
        self.int(field).map(|value| value as i32)
    }

    /// Returns a float field.
    pub(crate) fn float(&self, field: Field) -> Result<f32> {
        match field.payload {
            Payload::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong_wire_type(field)),
        }
    }

    /// Reads the rest of a payload of bytes.
    pub(crate) fn bytes(&mut self, field: Field) -> Result<Vec<u8>> {
        // Names are parts too: a file of empty ones would otherwise take twelve times its size.
        self.count_part(self.message)?;
        let length = self.byte_length(field)?;
        // Checked against the end of the file, so an allocation is backed by bytes.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns how many bytes a payload of bytes has left.
    pub(crate) fn byte_length(&self, field: Field) -> Result<u64> {
        match field.payload {
            Payload::Bytes { end } => Ok(end - self.position),
            _ => Err(self.wrong_wire_type(field)),
        }
    }

    /// Reads text, which must be UTF-8.
    pub(crate) fn text(&mut self, field: Field) -> Result<String> {
        let at = self.position;
        String::from_utf8(self.bytes(field)?)
            .map_err(|_| self.malformed(at, format!("field {} is not UTF-8", field.number)))
    }

    /// Reads text, replacing what is not UTF-8.
    pub(crate) fn lossy_text(&mut self, field: Field) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(field)?).into_owned())
    }

    /// Reads one or more integers of a repeated field, packed or not.
    pub(crate) fn ints(&mut self, field: Field, list: &mut List<i64>) -> Result<()> {
        match field.payload {
            Payload::Varint(value) => list.push(value.cast_signed()),
            Payload::Bytes { end } => {
                let outer = std::mem::replace(&mut self.end, end);
                while self.position < end {
                    let value = self.varint()?;
                    list.push(value.cast_signed());
                }
                self.end = outer;
            }
            _ => return Err(self.wrong_wire_type(field)),
        }
        Ok(())
    }

    /// Reads one or more floats of a repeated field, packed or not.
    pub(crate) fn floats(&mut self, field: Field, list: &mut List<f32>) -> Result<()> {
        match field.payload {
            Payload::Fixed32(bits) => list.push(f32::from_bits(bits)),
            Payload::Bytes { .. } => {
                let length = self.byte_length(field)?;
                if length % 4 != 0 {
                    let reason = format!("{length} bytes are not a number of floats");
                    return Err(self.malformed(self.position, reason));
                }
                let count = length / 4;
                if list.count + count > List::<f32>::LIMIT as u64 {
                    list.count += count;
                    return Ok(());
                }
                for _ in 0..count {
                    list.push(f32::from_le_bytes(self.array()?));
                }
            }
            _ => return Err(self.wrong_wire_type(field)),
        }
        Ok(())
    }

    /// Counts one or more doubles of a repeated field, packed or not.
    pub(crate) fn count_doubles(&mut self, field: Field) -> Result<u64> {
        match field.payload {
            Payload::Fixed64 => Ok(1),
            Payload::Bytes { .. } => {
                let length = self.byte_length(field)?;
                if length % 8 != 0 {
                    let reason = format!("{length} bytes are not a number of doubles");
                    return Err(self.malformed(self.position, reason));
                }
                Ok(length / 8)
            }
            _ => Err(self.wrong_wire_type(field)),
        }
    }

    fn varint(&mut self) -> Result<u64> {
        let at = self.position;
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed(at, "a number has more than 64 bits".to_owned()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        let end = self.position.saturating_add(bytes.len() as u64);
        if end > self.end {
            return Err(self.past_the_end(end));
        }
        self.source.read_exact(bytes).map_err(|error| self.unreadable(error))?;
        self.position = end;
        Ok(())
    }

    fn skip_to(&mut self, target: u64) -> Result<()> {
        let distance = target - self.position;
        if distance > 0 {
            let distance = i64::try_from(distance).unwrap_or(i64::MAX);
            self.source.seek_relative(distance).map_err(|error| self.unreadable(error))?;
            self.position = target;
        }
        Ok(())
    }

    fn unreadable(&self, error: io::Error) -> Problem {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            // The file shrank while it was read.
            let at = self.position;
            return Problem::Truncated { message: self.message, at, end: self.end, length: at };
        }
        Problem::CannotRead(error)
    }

    fn past_the_end(&self, end: u64) -> Problem {
        let at = self.position;
        if end > self.length {
            Problem::Truncated { message: self.message, at, end, length: self.length }
        } else {
            self.malformed(
                at,
                format!("a field goes on to byte {end}, {} ends before", self.message),
            )
        }
    }

    fn wrong_wire_type(&self, field: Field) -> Problem {
        let reason = format!("field {} has the wrong wire type", field.number);
        self.malformed(self.position, reason)
    }

    pub(crate) fn malformed(&self, at: u64, reason: String) -> Problem {
        Problem::Malformed { message: self.message, at, reason }
    }
}
