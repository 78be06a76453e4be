//! The classification extension: the highest elements of each row, as text.

use outhaul_types::{Classification, DataType, Shape, Strings, Tensor};

/// Returns the `count` highest elements of each row as `BYTES [batch, count]` of `value:index`,
/// highest first, as Triton's classification extension writes them. A tensor of one dimension is
/// one row and gives `[count]`. NaN ranks below every number; equal values rank by index.
pub(crate) fn top_classes(
    tensor: &Tensor,
    classification: Classification,
) -> Result<Tensor, String> {
    let Some(&columns) = tensor.shape().last() else {
        return Err("it is a scalar".to_owned());
    };
    let elements = as_numbers(tensor)?;
    let count = classification.count.min(columns);
    let mut texts: Vec<String> = Vec::new();
    for row in elements.chunks(columns.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        let rank = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
        order.sort_by(|&left, &right| rank(row[right]).total_cmp(&rank(row[left])));
        texts.extend(order[..count].iter().map(|&index| format!("{:.6}:{index}", row[index])));
    }
    let mut dimensions = tensor.shape().to_vec();
    if let Some(last) = dimensions.last_mut() {
        *last = count;
    }
    let strings: Strings = texts.iter().collect();
    Tensor::from_strings(Shape::new(dimensions), strings).map_err(|error| error.to_string())
}

fn as_numbers(tensor: &Tensor) -> Result<Vec<f64>, String> {
    fn widen<T: outhaul_types::Element + Into<f64>>(tensor: &Tensor) -> Option<Vec<f64>> {
        let elements = tensor.elements_of::<T>()?;
        Some(elements.iter().map(|&element| element.into()).collect())
    }
    let numbers = match tensor.data_type() {
        DataType::Fp32 => widen::<f32>(tensor),
        DataType::Fp64 => widen::<f64>(tensor),
        DataType::Fp16 => widen::<half::f16>(tensor),
        DataType::Bf16 => widen::<half::bf16>(tensor),
        DataType::Uint8 => widen::<u8>(tensor),
        DataType::Uint16 => widen::<u16>(tensor),
        DataType::Uint32 => widen::<u32>(tensor),
        DataType::Int8 => widen::<i8>(tensor),
        DataType::Int16 => widen::<i16>(tensor),
        DataType::Int32 => widen::<i32>(tensor),
        DataType::Bool | DataType::Uint64 | DataType::Int64 | DataType::Bytes => None,
    };
    numbers.ok_or_else(|| format!("{} elements have no exact rank here", tensor.data_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_come_first_in_each_row() {
        let tensor = Tensor::from_vec([2, 3], vec![0.25_f32, 0.5, 0.25, f32::NAN, -1.0, -2.0]);
        let classes = top_classes(&tensor.unwrap(), Classification { count: 2 }).unwrap();
        assert_eq!(classes.shape(), &Shape::from([2, 2]));
        let texts: Vec<_> =
            classes.as_strings().unwrap().iter().map(String::from_utf8_lossy).collect();
        assert_eq!(texts, ["0.500000:1", "0.250000:0", "-1.000000:1", "-2.000000:2"]);
    }

    #[test]
    fn what_has_no_rank_is_refused() {
        let count = Classification { count: 1 };
        let scalar = Tensor::from_vec(Shape::new([]), vec![1_f32]).unwrap();
        assert!(top_classes(&scalar, count).is_err());
        let large = Tensor::from_vec([1], vec![i64::MAX]).unwrap();
        assert!(top_classes(&large, count).is_err());
        let empty = Tensor::from_vec([0, 3], Vec::<f32>::new()).unwrap();
        assert_eq!(top_classes(&empty, count).unwrap().shape(), &Shape::from([0, 1]));
    }
}
