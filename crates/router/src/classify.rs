//! The classification extension: the highest elements of each row, as text.

use std::cmp::Ordering;

use outhaul_types::{Classification, DataType, Element, Shape, Strings, Tensor};

/// Returns the `count` highest elements of each row as `BYTES [batch, count]` of `value:index`,
/// highest first, as Triton's classification extension writes them; `value:index:label` where the
/// columns are `labels`. A tensor of one dimension is
/// one row and gives `[count]`. NaN ranks below every number; equal values rank by index.
pub(crate) fn top_classes(
    tensor: &Tensor,
    classification: Classification,
    labels: Option<&[String]>,
) -> Result<Tensor, String> {
    let Some(&columns) = tensor.shape().last() else {
        return Err("it is a scalar".to_owned());
    };
    let count = classification.count.min(columns);
    let texts = match tensor.data_type() {
        DataType::Fp32 => highest(tensor, count, |value: f32| format!("{value:.6}")),
        DataType::Fp64 => highest(tensor, count, |value: f64| format!("{value:.6}")),
        DataType::Fp16 => {
            highest(tensor, count, |value: half::f16| format!("{:.6}", value.to_f32()))
        }
        DataType::Bf16 => {
            highest(tensor, count, |value: half::bf16| format!("{:.6}", value.to_f32()))
        }
        DataType::Uint8 => highest(tensor, count, |value: u8| value.to_string()),
        DataType::Uint16 => highest(tensor, count, |value: u16| value.to_string()),
        DataType::Uint32 => highest(tensor, count, |value: u32| value.to_string()),
        DataType::Uint64 => highest(tensor, count, |value: u64| value.to_string()),
        DataType::Int8 => highest(tensor, count, |value: i8| value.to_string()),
        DataType::Int16 => highest(tensor, count, |value: i16| value.to_string()),
        DataType::Int32 => highest(tensor, count, |value: i32| value.to_string()),
        DataType::Int64 => highest(tensor, count, |value: i64| value.to_string()),
        DataType::Bool | DataType::Bytes => None,
    };
    let mut texts = texts.ok_or_else(|| format!("{} elements have no rank", tensor.data_type()))?;
    if let Some(labels) = labels.filter(|labels| labels.len() == columns) {
        for text in &mut texts {
            let index = text.rsplit(':').next().and_then(|index| index.parse::<usize>().ok());
            if let Some(label) = index.and_then(|index| labels.get(index)) {
                text.push(':');
                text.push_str(label);
            }
        }
    }
    let mut dimensions = tensor.shape().to_vec();
    if let Some(last) = dimensions.last_mut() {
        *last = count;
    }
    let strings: Strings = texts.iter().collect();
    Tensor::from_strings(Shape::new(dimensions), strings).map_err(|error| error.to_string())
}

/// Writes the `count` highest elements of each row, which ends with the last dimension; `None`
/// where the tensor is of another type.
fn highest<T: Element + PartialOrd>(
    tensor: &Tensor,
    count: usize,
    write: impl Fn(T) -> String,
) -> Option<Vec<String>> {
    let elements = tensor.elements_of::<T>()?;
    let columns = tensor.shape().last().copied().unwrap_or(1);
    let is_nan = |value: T| value.partial_cmp(&value).is_none();
    let mut texts = Vec::new();
    for row in elements.chunks(columns.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&left, &right| {
            let (left, right) = (row[left], row[right]);
            let by_value = right.partial_cmp(&left).unwrap_or(Ordering::Equal);
            is_nan(left).cmp(&is_nan(right)).then(by_value)
        });
        texts.extend(order[..count].iter().map(|&index| format!("{}:{index}", write(row[index]))));
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order(classes: &Tensor) -> Vec<String> {
        let strings = classes.as_strings().unwrap().iter();
        strings.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    fn texts(tensor: &Tensor, count: usize) -> Vec<String> {
        in_order(&top_classes(tensor, Classification { count }, None).unwrap())
    }

    #[test]
    fn the_highest_come_first_in_each_row() {
        let tensor = Tensor::from_vec([2, 3], vec![0.25_f32, 0.5, 0.25, f32::NAN, -1.0, -2.0]);
        let classes = top_classes(&tensor.unwrap(), Classification { count: 2 }, None).unwrap();
        assert_eq!(classes.shape(), &Shape::from([2, 2]));
        assert_eq!(in_order(&classes), ["0.500000:1", "0.250000:0", "-1.000000:1", "-2.000000:2"]);
    }

    #[test]
    fn labels_follow_the_index() {
        let labels = ["no".to_owned(), "yes: surely".to_owned()];
        let tensor = Tensor::from_vec([1, 2], vec![0.25_f32, 0.75]).unwrap();
        let classes = |labels: &[String]| {
            in_order(&top_classes(&tensor, Classification { count: 2 }, Some(labels)).unwrap())
        };
        assert_eq!(classes(&labels), ["0.750000:1:yes: surely", "0.250000:0:no"]);
        assert_eq!(
            classes(&labels[..1]),
            ["0.750000:1", "0.250000:0"],
            "these are of something else"
        );
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let tensor = Tensor::from_vec([3], vec![i64::MAX - 1, i64::MAX, -7]).unwrap();
        assert_eq!(texts(&tensor, 9), ["9223372036854775807:1", "9223372036854775806:0", "-7:2"]);
    }

    #[test]
    fn equal_values_rank_by_index_and_nan_below_all() {
        let infinity = f64::INFINITY;
        let tensor = Tensor::from_vec([5], vec![f64::NAN, -infinity, -0.0, 0.0, infinity]);
        let expected = ["inf:4", "-0.000000:2", "0.000000:3", "-inf:1", "NaN:0"];
        assert_eq!(texts(&tensor.unwrap(), 5), expected);
    }

    #[test]
    fn what_has_no_rank_is_refused() {
        let count = Classification { count: 1 };
        let scalar = Tensor::from_vec(Shape::new([]), vec![1_f32]).unwrap();
        assert!(top_classes(&scalar, count, None).is_err());
        let truths = Tensor::from_bools([1], [true]).unwrap();
        assert!(top_classes(&truths, count, None).is_err());
        let empty = Tensor::from_vec([0, 3], Vec::<f32>::new()).unwrap();
        assert_eq!(top_classes(&empty, count, None).unwrap().shape(), &Shape::from([0, 1]));
    }
}
