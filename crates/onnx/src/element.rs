//! The element types of ONNX, most of which have a counterpart on the wire.

use std::fmt;

use outhaul_types::DataType;

/// An element type as ONNX numbers it (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ElementType(i32);

/// Number, name, bits of one element (0 for strings), type on the wire.
type Row = (i32, &'static str, u8, Option<DataType>);

const TABLE: &[Row] = &[
    (0, "UNDEFINED", 0, None),
    (1, "FLOAT", 32, Some(DataType::Fp32)),
    (2, "UINT8", 8, Some(DataType::Uint8)),
    (3, "INT8", 8, Some(DataType::Int8)),
    (4, "UINT16", 16, Some(DataType::Uint16)),
    (5, "INT16", 16, Some(DataType::Int16)),
    (6, "INT32", 32, Some(DataType::Int32)),
    (7, "INT64", 64, Some(DataType::Int64)),
    (8, "STRING", 0, Some(DataType::Bytes)),
    (9, "BOOL", 8, Some(DataType::Bool)),
    (10, "FLOAT16", 16, Some(DataType::Fp16)),
    (11, "DOUBLE", 64, Some(DataType::Fp64)),
    (12, "UINT32", 32, Some(DataType::Uint32)),
    (13, "UINT64", 64, Some(DataType::Uint64)),
    (14, "COMPLEX64", 64, None),
    (15, "COMPLEX128", 128, None),
    (16, "BFLOAT16", 16, Some(DataType::Bf16)),
    (17, "FLOAT8E4M3FN", 8, None),
    (18, "FLOAT8E4M3FNUZ", 8, None),
    (19, "FLOAT8E5M2", 8, None),
    (20, "FLOAT8E5M2FNUZ", 8, None),
    (21, "UINT4", 4, None),
    (22, "INT4", 4, None),
    (23, "FLOAT4E2M1", 4, None),
    (24, "FLOAT8E8M0", 8, None),
    (25, "UINT2", 2, None),
    (26, "INT2", 2, None),
];

#[allow(missing_docs, reason = "the names say it")]
impl ElementType {
    pub const UNDEFINED: ElementType = ElementType(0);
    pub const FLOAT: ElementType = ElementType(1);
    pub const INT32: ElementType = ElementType(6);
    pub const INT64: ElementType = ElementType(7);
    pub const STRING: ElementType = ElementType(8);
    pub const BOOL: ElementType = ElementType(9);
    pub const DOUBLE: ElementType = ElementType(11);
    pub const UINT32: ElementType = ElementType(12);
    pub const UINT64: ElementType = ElementType(13);
    pub const COMPLEX64: ElementType = ElementType(14);
    pub const COMPLEX128: ElementType = ElementType(15);
}

impl ElementType {
    /// Takes a number from a file; [`ElementType::is_known`] says whether it means anything.
    pub const fn from_number(number: i32) -> Self {
        ElementType(number)
    }

    /// Returns ONNX's number.
    pub const fn number(self) -> i32 {
        self.0
    }

    fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.0 == self.0)
    }

    /// Returns whether this is a type that ONNX defines, `UNDEFINED` not being one.
    pub fn is_known(self) -> bool {
        self != ElementType::UNDEFINED && self.row().is_some()
    }

    /// Returns the type on the wire, or `None` where no wire contract carries it.
    pub fn data_type(self) -> Option<DataType> {
        self.row().and_then(|row| row.3)
    }

    /// Returns the size of one element in bits; `None` for strings and unknown types.
    pub fn bits(self) -> Option<u8> {
        self.row().map(|row| row.2).filter(|&bits| bits > 0)
    }

    /// Returns the bytes that `elements` of this type take, packed as ONNX packs types of less than
    /// a byte; `None` for strings, unknown types and sizes beyond 64 bits.
    pub fn packed_bytes(self, elements: u64) -> Option<u64> {
        let bits = elements.checked_mul(u64::from(self.bits()?))?;
        Some(bits.div_ceil(8))
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.1),
            None => write!(f, "element type {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_the_right_types() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(usize::try_from(row.0), Ok(index), "{}", row.1);
            if let Some(size) = row.3.and_then(DataType::size) {
                assert_eq!(usize::from(row.2), size * 8, "{}", row.1);
            }
        }
        assert_eq!(ElementType::from_number(22).packed_bytes(3), Some(2), "INT4 is packed");
        assert_eq!(ElementType::DOUBLE.packed_bytes(u64::MAX), None);
        assert!(!ElementType::from_number(99).is_known() && !ElementType::UNDEFINED.is_known());
        assert_eq!(ElementType::from_number(99).to_string(), "element type 99");
    }
}
