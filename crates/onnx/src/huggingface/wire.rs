//! Protocol Buffers on their way out: the few kinds of fields that an ONNX file needs.

/// Adds a field that holds bytes, text or a message.
pub(super) fn bytes_field(out: &mut Vec<u8>, number: u64, contents: &[u8]) {
    length_field(out, number, contents.len() as u64);
    out.extend_from_slice(contents);
}

/// Adds the head of a field whose contents follow elsewhere.
pub(super) fn length_field(out: &mut Vec<u8>, number: u64, length: u64) {
    varint(out, number << 3 | 2);
    varint(out, length);
}

/// Adds a field that holds an integer.
pub(super) fn int_field(out: &mut Vec<u8>, number: u64, value: i64) {
    varint(out, number << 3);
    varint(out, value.cast_unsigned());
}

/// Adds a field that holds an FP32 number.
pub(super) fn float_field(out: &mut Vec<u8>, number: u64, value: f32) {
    varint(out, number << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
