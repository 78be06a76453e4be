//! The operators of `ai.onnx.ml`, which take tables: `[rows, column]`.
//!
//! With one dimension most of them take it for the columns of a single row, so such rows are not
//! followed.

use super::call::{Call, Made, one, several};
use super::linear::rows_first;
use super::size::Size;
use super::value::{Dims, Result, over_rows};
use crate::graph::AttributeValue;

pub(super) fn transfer(call: &mut Call<'_>) -> Result<Made> {
    match call.node.op_type.as_str() {
        "LinearClassifier" | "TreeEnsembleClassifier" | "SVMClassifier" => classifier(call),
        "LinearRegressor" | "TreeEnsembleRegressor" | "TreeEnsemble" | "SVMRegressor" => {
            regressor(call)
        }
        "Scaler" | "Imputer" | "Normalizer" => {
            let dims = table(call)?;
            one(dims)
        }
        "Binarizer" | "LabelEncoder" | "CategoryMapper" => {
            call.only_constants_from(1)?;
            one(call.dims(0)?)
        }
        "OneHotEncoder" => one_hot_encoder(call),
        "ArrayFeatureExtractor" => array_feature_extractor(call),
        "FeatureVectorizer" => feature_vectorizer(call),
        "ZipMap" | "DictVectorizer" | "CastMap" => {
            Err("works with maps, which are not followed".to_owned())
        }
        _ => Err("is not known to keep rows apart".to_owned()),
    }
}

/// Returns the dimensions of the table.
fn table(call: &Call<'_>) -> Result<Dims> {
    call.only_constants_from(1)?;
    rows_first(call, 0)?;
    let dims = call.dims(0)?;
    if call.has_rows() && dims.len() != 2 {
        return Err("takes a table of rows and columns, and this is none".to_owned());
    }
    Ok(dims)
}

/// A label for each row, and a score for each row and class.
fn classifier(call: &mut Call<'_>) -> Result<Made> {
    let dims = table(call)?;
    let row = dims.first().ok_or("takes a scalar")?.clone();
    let classes = ["classlabels_ints", "classlabels_int64s", "classlabels_strings"]
        .iter()
        .find_map(|name| call.node.attribute(name).and_then(count))
        .unwrap_or_else(|| call.dimension());
    several([Dims::from_iter([row.clone()]), Dims::from_iter([row, classes])])
}

fn count(value: &AttributeValue) -> Option<Size> {
    let count = match value {
        AttributeValue::Ints(list) => list.count(),
        AttributeValue::Strings(list) => list.count(),
        AttributeValue::Floats(list) => list.count(),
        _ => 0,
    };
    i64::try_from(count).ok().filter(|&count| count > 0).map(Size::known)
}

/// One or more numbers for each row.
fn regressor(call: &mut Call<'_>) -> Result<Made> {
    let dims = table(call)?;
    let row = dims.first().ok_or("takes a scalar")?.clone();
    let targets = match call.node.op_type.as_str() {
        "LinearRegressor" => Some(call.node.int("targets").unwrap_or(1)),
        "SVMRegressor" => Some(1),
        _ => call.node.int("n_targets"),
    };
    let targets = targets.map_or_else(|| call.dimension(), Size::known);
    one(Dims::from_iter([row, targets]))
}

/// One more axis, as long as there are categories.
fn one_hot_encoder(call: &mut Call<'_>) -> Result<Made> {
    let mut dims = call.dims(0)?;
    let categories = ["cats_int64s", "cats_strings"]
        .iter()
        .find_map(|name| call.node.attribute(name).and_then(count))
        .unwrap_or_else(|| call.dimension());
    dims.push(categories);
    one(dims)
}

/// Picks columns.
fn array_feature_extractor(call: &mut Call<'_>) -> Result<Made> {
    call.only_constants(&[1])?;
    let mut dims = call.dims(0)?;
    let last = dims.len().checked_sub(1).ok_or("takes a scalar")?;
    if !dims[last].is_batch_free() {
        return Err(over_rows("picks entries of", last));
    }
    if last == 0 {
        dims.insert(0, Size::known(1));
    }
    let picked = call.value(1)?.dims().and_then(|dims| Size::product(&dims));
    let columns = picked.unwrap_or_else(|| call.dimension());
    let last = dims.len() - 1;
    dims[last] = columns;
    one(dims)
}

/// Joins tables side by side, as floats.
fn feature_vectorizer(call: &mut Call<'_>) -> Result<Made> {
    let mut row = None;
    for index in 0..call.inputs.len() {
        rows_first(call, index)?;
        let dims = call.dims(index)?;
        if dims.len() != 2 {
            return Err("takes a table of rows and columns, and this is none".to_owned());
        }
        if row.get_or_insert_with(|| dims[0].clone()) != &dims[0] {
            return Err("joins rows with what are none".to_owned());
        }
    }
    let row = row.ok_or("takes nothing")?;
    let columns = match call.node.ints("inputdimensions") {
        Some(widths) => Size::known(widths.iter().copied().fold(0, i64::saturating_add)),
        None => call.dimension(),
    };
    one(Dims::from_iter([row, columns]))
}

/// Counts the n-grams of each row (an operator of ONNX's own domain).
pub(super) fn tf_idf(call: &mut Call<'_>) -> Result<Made> {
    let dims = table(call)?;
    let row = dims.first().ok_or("takes a scalar")?.clone();
    let columns = call.dimension();
    one(Dims::from_iter([row, columns]))
}
