//! What an answer is found by: a digest of everything that it was computed from.
//!
//! Every part is hashed behind a tag and its length, so no two lists of parts run together to the same
//! bytes. BLAKE3 leaves no two inputs that anybody can find with one digest; inputs themselves are not kept.

use std::{fmt, io};

use outhaul_types::{Tensor, TensorData};

/// The digest of what an answer was computed from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Returns the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// Sums up parts, one after the other, to a [`CacheKey`]. Their order counts.
#[derive(Clone, Debug, Default)]
pub struct KeyBuilder(blake3::Hasher);

/// What a part is. Parts of different kinds are never equal.
#[repr(u8)]
enum Tag {
    Bytes = 1,
    Number = 2,
    Fixed = 3,
    Strings = 4,
    Missing = 5,
}

impl KeyBuilder {
    /// Begins a key.
    pub fn new() -> Self {
        KeyBuilder(blake3::Hasher::new())
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.head(Tag::Bytes, bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds all that can be read, such as a file.
    ///
    /// # Errors
    ///
    /// Fails where reading does.
    pub fn content(self, content: impl io::Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(content)?;
        Ok(self.bytes(hasher.finalize().as_bytes()))
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.head(Tag::Number, number);
        self
    }

    /// Adds a tensor: its type, its shape and its elements, bit by bit.
    #[must_use]
    pub fn tensor(mut self, tensor: &Tensor) -> Self {
        let (tag, bytes) = match tensor.data() {
            TensorData::Fixed(bytes) => (Tag::Fixed, Some(bytes)),
            TensorData::Strings(_) => (Tag::Strings, None),
        };
        let data_type = tensor.data_type() as u64;
        self.head(tag, data_type << 32 | tensor.shape().len() as u64);
        for &size in tensor.shape().iter() {
            self.0.update(&(size as u64).to_le_bytes());
        }
        match (bytes, tensor.as_strings()) {
            // Type and shape say how many they are.
            (Some(bytes), _) => {
                self.0.update(bytes);
            }
            (None, strings) => {
                for string in strings.into_iter().flat_map(|strings| strings.iter()) {
                    self.0.update(&(string.len() as u64).to_le_bytes()).update(string);
                }
            }
        }
        self
    }

    /// Adds a tensor that may be left out.
    #[must_use]
    pub fn optional(mut self, tensor: Option<&Tensor>) -> Self {
        match tensor {
            Some(tensor) => self.tensor(tensor),
            None => {
                self.head(Tag::Missing, 0);
                self
            }
        }
    }

    /// Returns the key.
    pub fn finish(self) -> CacheKey {
        CacheKey(*self.0.finalize().as_bytes())
    }

    fn head(&mut self, tag: Tag, number: u64) {
        let mut head = [tag as u8; 9];
        head[1..].copy_from_slice(&number.to_le_bytes());
        self.0.update(&head);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use outhaul_types::{DataType, Shape, Strings};

    use super::*;

    #[test]
    fn each_part_changes_the_key() {
        let floats =
            |shape: &[usize], values: &[f32]| Tensor::from_vec(shape, values.to_vec()).unwrap();
        let strings = |shape: &[usize], texts: &[&str]| {
            Tensor::from_strings(shape, texts.iter().collect::<Strings>()).unwrap()
        };
        let of_type = |data_type| {
            Tensor::from_bytes(data_type, [1], bytes::Bytes::from_static(&[0; 4])).unwrap()
        };
        let new = KeyBuilder::new;
        let tensor = |tensor: Tensor| new().tensor(&tensor);
        let cases = [
            ("nothing", new()),
            ("a byte string", new().text("ab")),
            ("other bytes", new().text("ac")),
            ("cut elsewhere", new().text("a").text("b")),
            ("cut elsewhere again", new().text("").text("ab")),
            ("order", new().text("b").text("a")),
            ("a number", new().number(0)),
            ("another number", new().number(1)),
            ("a missing input", new().optional(None)),
            ("a zero", tensor(floats(&[1], &[0.0]))),
            ("a zero of another type", tensor(of_type(DataType::Int32))),
            ("of yet another type", tensor(of_type(DataType::Uint32))),
            ("the other zero", tensor(floats(&[1], &[-0.0]))),
            ("elements", tensor(floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]))),
            ("one bit", tensor(floats(&[2, 2], &[1.0, 2.0, 3.0, 4.000_000_5]))),
            ("the shape", tensor(floats(&[4], &[1.0, 2.0, 3.0, 4.0]))),
            ("the shape's order", tensor(floats(&[1, 4], &[1.0, 2.0, 3.0, 4.0]))),
            ("an empty tensor", tensor(floats(&[0, 4], &[]))),
            ("another empty tensor", tensor(floats(&[0, 5], &[]))),
            ("a scalar", tensor(Tensor::from_vec(Shape::new([]), vec![1_f32]).unwrap())),
            ("strings", tensor(strings(&[2], &["ab", "c"]))),
            ("strings cut elsewhere", tensor(strings(&[2], &["a", "bc"]))),
            ("an empty string", tensor(strings(&[2], &["", "abc"]))),
            ("the strings' shape", tensor(strings(&[2, 1], &["ab", "c"]))),
            ("a tensor and a missing one", tensor(floats(&[1], &[0.0])).optional(None)),
            ("a missing one and a tensor", new().optional(None).tensor(&floats(&[1], &[0.0]))),
        ];
        let mut seen = HashMap::new();
        for (what, key) in cases {
            let again = key.clone().finish();
            let key = key.finish();
            assert_eq!(key, again, "{what}: the same parts give the same key");
            if let Some(other) = seen.insert(key, what) {
                panic!("{what} has the key of {other}");
            }
        }
    }

    #[test]
    fn where_the_elements_lie_does_not_count() {
        let mut padded = vec![0_u8; 9];
        padded[1..5].copy_from_slice(&1.5_f32.to_le_bytes());
        padded[5..].copy_from_slice(&2.5_f32.to_le_bytes());
        let slice = bytes::Bytes::from(padded).slice(1..9);
        let slice = Tensor::from_bytes(DataType::Fp32, [2], slice).unwrap();
        let whole = Tensor::from_vec([2], vec![1.5_f32, 2.5]).unwrap();
        let key = |tensor| KeyBuilder::new().tensor(tensor).finish();
        assert_eq!(key(&slice), key(&whole));
        let both: Strings = ["x", "yz"].iter().collect();
        let both = Tensor::from_strings([2], both).unwrap();
        let one = Tensor::from_strings([1], ["yz"].iter().collect::<Strings>()).unwrap();
        assert_eq!(key(&both.slice_rows(1..2)), key(&one));
    }

    #[test]
    fn a_key_stays_what_it_was() {
        let tensor = Tensor::from_vec([2], vec![1_i64, -1]).unwrap();
        let key = KeyBuilder::new().text("iris").number(3).tensor(&tensor).optional(None).finish();
        // What is in Redis is found by it: a change of this takes another prefix there.
        assert_eq!(
            key.to_string(),
            "b902c3334c41aa3b52ddc815ee918d5bf95b09bff4306263e10b7b3dc6cf6615"
        );
    }
}
