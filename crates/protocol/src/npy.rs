//! One tensor as a file of NumPy (formats 1.0, 2.0 and 3.0), both ways.
//!
//! Numbers and booleans in little-endian order are taken; they share the body and are not copied.
//! Objects, records, texts and big-endian numbers are refused by name, and so are arrays in Fortran
//! order, where the order matters. BF16, which NumPy has no type for, is written as FP32.
//!
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use bytes::{BufMut, Bytes};
use half::bf16;
use outhaul_types::{DataType, Shape, Tensor, TensorData};

use crate::error::excerpt;
use crate::{DecodeLimits, ProtocolError};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read. NumPy's own limit is 10,000 bytes.
const LONGEST_HEADER: usize = 10_000;

/// Data start at a multiple of this.
const ALIGNMENT: usize = 64;

/// Reads a file.
///
/// # Errors
///
/// Fails where the bytes are no such file, end early or late, or hold what no tensor can.
pub fn decode(file: &Bytes, limits: &DecodeLimits) -> Result<Tensor, ProtocolError> {
    let (header, data) = part(file)?;
    let Header { descr, fortran_order, shape } = Header::parse(header)?;
    let data_type = data_type(&descr)?;
    if shape.len() > limits.max_rank {
        return Err(malformed(format!("it has more than {} dimensions", limits.max_rank)));
    }
    if data.len() > limits.max_tensor_bytes {
        return Err(malformed(format!("it holds more than {} bytes", limits.max_tensor_bytes)));
    }
    let long = shape.iter().filter(|&&size| size > 1).count();
    if fortran_order && long > 1 {
        let problem = "it is in Fortran order: send numpy.ascontiguousarray of it";
        return Err(malformed(problem.to_owned()));
    }
    let shape = Shape::new(shape);
    Tensor::from_bytes(data_type, shape, data).map_err(|error| malformed(error.to_string()))
}

/// Parts a file into the text of its header and its data.
fn part(file: &Bytes) -> Result<(&str, Bytes), ProtocolError> {
    let cut = || malformed("it ends within its header".to_owned());
    let Some(rest) = file.strip_prefix(MAGIC) else {
        return Err(malformed("it does not start as a file of numpy.save".to_owned()));
    };
    let [major, _, rest @ ..] = rest else { return Err(cut()) };
    let (length, rest) = match (major, rest) {
        (1, [a, b, rest @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        (1..=3, _) => return Err(cut()),
        (version, _) => return Err(malformed(format!("it is of the unknown version {version}"))),
    };
    if length > LONGEST_HEADER {
        return Err(malformed(format!("its header has more than {LONGEST_HEADER} bytes")));
    }
    let header = rest.get(..length).ok_or_else(cut)?;
    let header =
        std::str::from_utf8(header).map_err(|_| malformed("its header is not UTF-8".to_owned()))?;
    Ok((header, file.slice(file.len() - rest.len() + length..)))
}

#[cold]
fn malformed(problem: String) -> ProtocolError {
    ProtocolError::Npy { problem }
}

fn data_type(descr: &str) -> Result<DataType, ProtocolError> {
    Ok(match descr {
        "|b1" => DataType::Bool,
        "|u1" | "<u1" => DataType::Uint8,
        "<u2" => DataType::Uint16,
        "<u4" => DataType::Uint32,
        "<u8" => DataType::Uint64,
        "|i1" | "<i1" => DataType::Int8,
        "<i2" => DataType::Int16,
        "<i4" => DataType::Int32,
        "<i8" => DataType::Int64,
        "<f2" => DataType::Fp16,
        "<f4" => DataType::Fp32,
        "<f8" => DataType::Fp64,
        other => {
            let what = match other.trim_start_matches(['<', '>', '|', '=']).chars().next() {
                Some('O') => "Python objects, which are never read",
                Some('U' | 'S' | 'a') => "texts: send them as JSON or CSV",
                Some('V') => "records or raw bytes",
                Some('c') => "complex numbers",
                Some('M' | 'm') => "dates or durations",
                _ if other.starts_with('>') => "numbers in big-endian order",
                _ if other.starts_with('[') => "records",
                _ => "what no tensor can",
            };
            let descr = excerpt(other);
            return Err(malformed(format!("its type '{descr}' stands for {what}")));
        }
    })
}

/// The dictionary that a file begins with.
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, ProtocolError> {
        let mut literal = Literal { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        literal.expect("{")?;
        while !literal.take("}") {
            let key = literal.string()?;
            literal.expect(":")?;
            let twice = match key {
                "descr" => descr.replace(literal.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(literal.boolean()?).is_some(),
                "shape" => shape.replace(literal.tuple()?).is_some(),
                other => {
                    let problem = format!("its header has the unknown key '{}'", excerpt(other));
                    return Err(malformed(problem));
                }
            };
            if twice {
                return Err(malformed(format!("its header has '{key}' twice")));
            }
            if !literal.take(",") {
                literal.expect("}")?;
                break;
            }
        }
        if !literal.rest.trim().is_empty() {
            return Err(literal.unexpected());
        }
        let missing = |key: &str| malformed(format!("its header has no '{key}'"));
        Ok(Header {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// A Python literal, as far as headers use them.
struct Literal<'t> {
    rest: &'t str,
}

impl<'t> Literal<'t> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), ProtocolError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    #[cold]
    fn unexpected(&self) -> ProtocolError {
        malformed(format!("its header cannot be read at '{}'", excerpt(self.rest.trim())))
    }

    fn string(&mut self) -> Result<&'t str, ProtocolError> {
        for quote in ["'", "\""] {
            if self.take(quote) {
                let (text, rest) = self.rest.split_once(quote).ok_or_else(|| self.unexpected())?;
                self.rest = rest;
                return Ok(text);
            }
        }
        Err(self.unexpected())
    }

    /// Reads a type: a string, or the list that stands for records, which is only named.
    fn descr(&mut self) -> Result<String, ProtocolError> {
        match self.rest.trim_start().starts_with('[') {
            true => Err(malformed("its type stands for records".to_owned())),
            false => Ok(self.string()?.to_owned()),
        }
    }

    fn boolean(&mut self) -> Result<bool, ProtocolError> {
        match (self.take("True"), self.take("False")) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ => Err(self.unexpected()),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>, ProtocolError> {
        let mut sizes = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            let text = self.rest.trim_start();
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            sizes.push(text[..digits].parse().map_err(|_| self.unexpected())?);
            self.rest = &text[digits..];
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(sizes)
    }
}

/// Writes a tensor as a file of format 1.0.
///
/// # Errors
///
/// Fails for `BYTES`, which NumPy can only hold as Python objects or cut to one length.
pub fn encode(tensor: &Tensor) -> Result<Vec<u8>, ProtocolError> {
    let TensorData::Fixed(bytes) = tensor.data() else {
        let problem = "texts cannot be written: ask for JSON or CSV".to_owned();
        return Err(ProtocolError::Npy { problem });
    };
    let descr = match tensor.data_type() {
        DataType::Bool => "|b1",
        DataType::Uint8 => "|u1",
        DataType::Uint16 => "<u2",
        DataType::Uint32 => "<u4",
        DataType::Uint64 => "<u8",
        DataType::Int8 => "|i1",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::Fp16 => "<f2",
        DataType::Fp32 | DataType::Bf16 => "<f4",
        DataType::Fp64 | DataType::Bytes => "<f8",
    };
    let sizes: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    let shape = match &sizes[..] {
        [only] => format!("({only},)"),
        sizes => format!("({})", sizes.join(", ")),
    };
    let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version, length and the line feed at the end count.
    let unpadded = MAGIC.len() + 4 + dictionary.len() + 1;
    let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
    let length = dictionary.len() + padding + 1;
    let length =
        u16::try_from(length).map_err(|_| malformed("it has too many dimensions".to_owned()))?;
    let mut file = Vec::with_capacity(unpadded + padding + bytes.len());
    file.put_slice(MAGIC);
    file.put_slice(&[1, 0]);
    file.put_u16_le(length);
    file.put_slice(dictionary.as_bytes());
    file.put_bytes(b' ', padding);
    file.put_u8(b'\n');
    match tensor.elements_of::<bf16>() {
        Some(elements) => elements.iter().for_each(|value| file.put_f32_le(value.to_f32())),
        None => file.put_slice(bytes),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, header: &str, data: &[u8]) -> Bytes {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&[version, 0]);
        match version {
            1 => file.extend_from_slice(&(header.len() as u16).to_le_bytes()),
            _ => file.extend_from_slice(&(header.len() as u32).to_le_bytes()),
        }
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(data);
        file.into()
    }

    fn read(file: &Bytes) -> Result<Tensor, String> {
        decode(file, &DecodeLimits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn files_of_every_version_are_read() {
        let data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let expected = Tensor::from_vec([1, 2], vec![1.5_f32, -2.0]).unwrap();
        for version in 1..=3 {
            for header in [
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }          \n",
                "{\"shape\":(1,2),\"descr\":\"<f4\",\"fortran_order\":True}",
            ] {
                assert_eq!(read(&file(version, header, &data)), Ok(expected.clone()), "{header}");
            }
        }
        let scalar = "{'descr': '|b1', 'fortran_order': False, 'shape': ()}";
        let scalar = read(&file(1, scalar, &[1])).unwrap();
        assert_eq!((scalar.data_type(), scalar.len()), (DataType::Bool, 1));
    }

    #[test]
    fn every_type_survives_both_ways() {
        for data_type in DataType::ALL {
            let Some(size) = data_type.size() else { continue };
            let bytes: Vec<u8> = (0..6 * size).map(|index| (index % 2) as u8).collect();
            for shape in [Shape::from([6]), Shape::from([2, 3]), Shape::from([1, 2, 3])] {
                let tensor = Tensor::from_bytes(data_type, shape, bytes.clone().into()).unwrap();
                let file = Bytes::from(encode(&tensor).unwrap());
                let data = file.len() - if data_type == DataType::Bf16 { 24 } else { bytes.len() };
                assert_eq!(data % ALIGNMENT, 0, "the data of {data_type} are aligned");
                let back = read(&file).unwrap();
                match tensor.elements_of::<bf16>() {
                    None => assert_eq!(back, tensor),
                    Some(elements) => {
                        let wide: Vec<f32> = elements.iter().map(|value| value.to_f32()).collect();
                        assert_eq!(back.as_slice::<f32>().unwrap(), wide);
                    }
                }
            }
        }
    }

    #[test]
    fn hostile_files_are_refused_by_name() {
        let header = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}")
        };
        let plain = |descr: &str| file(1, &header(descr, "False", "(1,)"), &[0; 8]);
        let huge = header("'<f8'", "False", "(4294967296, 4294967296, 2)");
        let ranks = format!("({})", "1,".repeat(40));
        let twice = "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}";
        let mut long = file(2, "", b"");
        long = [&long[..8], &u32::MAX.to_le_bytes()[..], b"{"].concat().into();
        for (file, expected) in [
            (Bytes::new(), "it does not start as a file of numpy.save"),
            (Bytes::from_static(b"PK\x03\x04"), "it does not start as a file of numpy.save"),
            (Bytes::from_static(b"\x93NUMPY"), "it ends within its header"),
            (Bytes::from_static(b"\x93NUMPY\x01\x00\xff\xff{"), "its header has more than 10000"),
            (Bytes::from_static(b"\x93NUMPY\x01\x00\x09\x00{"), "it ends within its header"),
            (file(9, "", b""), "it is of the unknown version 9"),
            (long, "its header has more than 10000 bytes"),
            (plain("'|O'"), "its type '|O' stands for Python objects, which are never read"),
            (plain("'<U10'"), "its type '<U10' stands for texts"),
            (plain("'>f8'"), "its type '>f8' stands for numbers in big-endian order"),
            (plain("[('a', '<f8')]"), "its type stands for records"),
            (plain("__import__('os')"), "its header cannot be read at '__import__"),
            (
                file(1, &header("'<f8'", "False", "(2,)"), &[0; 8]),
                "shape [2] of FP64 needs 16 bytes",
            ),
            (
                file(1, &header("'<f8'", "False", "(0,)"), &[0; 8]),
                "shape [0] of FP64 needs 0 bytes",
            ),
            (file(1, &huge, &[0; 8]), "shape [4294967296,4294967296,2] has more elements"),
            (file(1, &header("'<f8'", "True", "(2, 2)"), &[0; 32]), "it is in Fortran order"),
            (file(1, &header("'<f8'", "False", &ranks), &[0; 8]), "it has more than 16 dimensions"),
            (file(1, &header("'<f8'", "False", "(-1,)"), &[0; 8]), "its header cannot be read"),
            (file(1, &header("'|b1'", "False", "(1,)"), &[2]), "BOOL element 0 is 2"),
            (file(1, twice, &[0; 8]), "its header has 'descr' twice"),
            (file(1, "{'descr': '<f8'}", &[0; 8]), "its header has no 'fortran_order'"),
        ] {
            let error = read(&file).unwrap_err();
            assert!(error.starts_with(&format!("malformed NPY: {expected}")), "{error}");
        }
        let texts = Tensor::from_strings([1], ["a"].iter().collect()).unwrap();
        assert!(encode(&texts).is_err());
    }
}
