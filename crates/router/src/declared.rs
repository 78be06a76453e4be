//! What is declared of a model's inputs and outputs, over what its file says.
//!
//! Callers see the outer signature: the file's, with the declared shapes in place. The model sees the
//! inner one, the file's. Where the two shapes of a tensor differ (`reshape`), it changes its shape on
//! the way, never its elements: nothing is copied.
//!
//! Invariant: a declaration that no request or no answer could ever meet is an error before the
//! version starts; what only some requests can meet is refused when such a request comes, by name.
//!
//! Batching works on inner shapes. It stays as exact as it is, since a shape is changed for each
//! request alone, before requests are joined and after they are parted. It is off where one request's
//! inputs could come out with different numbers of rows: see [`Declared::unbatched`].

use std::fmt;

use outhaul_types::{
    BoundInputs, Classify, DataType, ErrorKind, ModelManifest, ModelSignature, Name, Shape,
    ShapePattern, Tensor, TensorDeclaration, TensorSpec, Tensors,
};

/// A model's signature as callers see it, and how to get from it to the file's and back.
#[derive(Clone, Debug)]
pub struct Declared {
    /// What callers see; requests are bound to it. Names, types and order are the file's.
    pub outer: ModelSignature,
    /// The changes of shape between callers and the model.
    pub reshapes: Reshapes,
    /// Why requests must not be run together, where `reshape` is the reason.
    pub unbatched: Option<String>,
}

/// The changes of shape between callers and a model; none where nothing is declared.
#[derive(Clone, Debug, Default)]
pub struct Reshapes {
    /// One for each input of the signature; empty where no input changes.
    inputs: Vec<Option<Change>>,
    /// One for each output of the signature; empty where no output is declared.
    outputs: Vec<Option<Change>>,
}

/// An input or an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What a request sends.
    Input,
    /// What an answer holds.
    Output,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Input => "input",
            Side::Output => "output",
        })
    }
}

/// Why a declaration cannot hold for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DeclaredError {
    #[error("{side} '{name}' is declared, but the model's file has {expected}")]
    Unknown { side: Side, name: Name, expected: String },
    #[error("{side} '{name}' is declared twice")]
    Twice { side: Side, name: Name },
    #[error("{side} '{name}' is declared as {declared}, but is {file} in the model's file")]
    WrongType { side: Side, name: Name, declared: DataType, file: DataType },
    #[error(
        "{side} '{name}' is declared with {key} {declared}, which never fits {file}, its shape in the model's file"
    )]
    NeverFits {
        side: Side,
        name: Name,
        key: &'static str,
        declared: ShapePattern,
        file: ShapePattern,
    },
    #[error("{side} '{name}' is declared with a reshape {reshape} and no shape")]
    ReshapeAlone { side: Side, name: Name, reshape: ShapePattern },
    #[error(
        "{side} '{name}' is declared with shape {shape} and reshape {reshape}, which never have as many elements"
    )]
    CountsDiffer { side: Side, name: Name, shape: ShapePattern, reshape: ShapePattern },
    #[error(
        "{side} '{name}' is declared with shape {shape} and reshape {reshape}, which leave open what becomes of which size"
    )]
    OpenSizes { side: Side, name: Name, shape: ShapePattern, reshape: ShapePattern },
}

impl Classify for DeclaredError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Why a tensor cannot take the shape that it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReshapeError {
    /// The request's shape is one of those that cannot be given to the model.
    #[error("input '{name}' of shape {shape} cannot be given to the model as {expected}")]
    Input {
        /// The input.
        name: Name,
        /// What the request holds.
        shape: Shape,
        /// What the model is given.
        expected: ShapePattern,
    },
    /// The model gave something else than is declared.
    #[error("the model gave output '{name}' of shape {shape}, which is declared as {expected}")]
    Output {
        /// The output.
        name: Name,
        /// What the model gave.
        shape: Shape,
        /// What is declared.
        expected: ShapePattern,
    },
}

impl Classify for ReshapeError {
    fn kind(&self) -> ErrorKind {
        match self {
            ReshapeError::Input { .. } => ErrorKind::InvalidInput,
            ReshapeError::Output { .. } => ErrorKind::EngineFailed,
        }
    }
}

impl Declared {
    /// Puts what a manifest declares over what the model's file says (`inner`). A declared size that
    /// is open where the file fixes it is fixed.
    ///
    /// # Errors
    ///
    /// Fails with the first declaration that cannot hold.
    pub fn apply(inner: &ModelSignature, manifest: &ModelManifest) -> Result<Self, DeclaredError> {
        let mut outer = inner.clone();
        let inputs = apply_side(Side::Input, &mut outer.inputs, &manifest.inputs)?;
        let outputs = apply_side(Side::Output, &mut outer.outputs, &manifest.outputs)?;
        let unbatched = unbatched(&outer.inputs, &inputs);
        Ok(Declared { outer, reshapes: Reshapes { inputs, outputs }, unbatched })
    }
}

impl Reshapes {
    /// Gives inputs that are bound to the outer signature the shapes that the model takes.
    ///
    /// # Errors
    ///
    /// Fails where an input's elements do not fill the model's shape.
    pub fn inward(&self, mut inputs: BoundInputs) -> Result<BoundInputs, ReshapeError> {
        for (tensor, change) in inputs.iter_mut().zip(&self.inputs) {
            let (Some(given), Some(change)) = (&*tensor, change) else {
                continue;
            };
            // A clone shares the elements.
            *tensor = Some(change.make(given.clone()).ok_or_else(|| ReshapeError::Input {
                name: change.name.clone(),
                shape: given.shape().clone(),
                expected: change.to.clone(),
            })?);
        }
        Ok(inputs)
    }

    /// Gives the model's outputs, all of them and in the signature's order, the declared shapes.
    ///
    /// # Errors
    ///
    /// Fails where an output is not as declared.
    pub fn outward(&self, mut outputs: Tensors) -> Result<Tensors, ReshapeError> {
        for (tensor, change) in outputs.iter_mut().zip(&self.outputs) {
            if let Some(change) = change {
                *tensor = change.make(tensor.clone()).ok_or_else(|| ReshapeError::Output {
                    name: change.name.clone(),
                    shape: tensor.shape().clone(),
                    expected: change.to.clone(),
                })?;
            }
        }
        Ok(outputs)
    }
}

/// The way of one tensor from one shape to another. Where the two are equal it is only a check.
#[derive(Clone, Debug)]
struct Change {
    name: Name,
    from: ShapePattern,
    to: ShapePattern,
}

impl Change {
    fn make(&self, tensor: Tensor) -> Option<Tensor> {
        let shape = self.target(tensor.shape())?;
        tensor.reshaped(shape).ok()
    }

    /// Returns the new shape of a tensor of shape `given`; it may call for another number of
    /// elements.
    fn target(&self, given: &Shape) -> Option<Shape> {
        if !self.from.accepts(given) {
            return None;
        }
        if self.from == self.to {
            return Some(given.clone());
        }
        let (from, to) = (sizes(&self.from), sizes(&self.to));
        let open = open(&to);
        let mut kept = from.iter().zip(given.iter()).filter(|(size, _)| size.is_none());
        let derived = match open {
            1 => {
                let fixed = product(to.iter().flatten().copied())?;
                let elements = given.elements()?;
                if fixed == 0 || elements % fixed != 0 {
                    return None;
                }
                Some(elements / fixed)
            }
            _ => None,
        };
        let new =
            to.iter().map(|size| size.or(derived).or_else(|| kept.next().map(|(_, &size)| size)));
        new.collect::<Option<Vec<usize>>>().map(Shape::new)
    }
}

/// Applies the declarations of one side to its specs, and returns the changes of shape: one for each
/// spec, or nothing where none is needed.
fn apply_side(
    side: Side,
    specs: &mut [TensorSpec],
    declarations: &[TensorDeclaration],
) -> Result<Vec<Option<Change>>, DeclaredError> {
    let mut changes = Vec::new();
    for (order, declared) in declarations.iter().enumerate() {
        let name = &declared.name;
        if declarations[..order].iter().any(|earlier| earlier.name == *name) {
            return Err(DeclaredError::Twice { side, name: name.clone() });
        }
        let Some(index) = specs.iter().position(|spec| spec.name == *name) else {
            let expected = names(specs);
            return Err(DeclaredError::Unknown { side, name: name.clone(), expected });
        };
        let change = apply_one(side, &mut specs[index], declared)?;
        if change.is_some() {
            changes.resize(specs.len(), None);
            changes[index] = change;
        }
    }
    Ok(changes)
}

/// Applies one declaration to its spec and returns the change of shape that it calls for.
fn apply_one(
    side: Side,
    spec: &mut TensorSpec,
    declared: &TensorDeclaration,
) -> Result<Option<Change>, DeclaredError> {
    let name = spec.name.clone();
    if let Some(declared) = declared.data_type.filter(|declared| *declared != spec.data_type) {
        let file = spec.data_type;
        return Err(DeclaredError::WrongType { side, name, declared, file });
    }
    let in_file = |key, declared: &ShapePattern| {
        declared.meet(&spec.shape).ok_or_else(|| {
            let (declared, file) = (declared.clone(), spec.shape.clone());
            DeclaredError::NeverFits { side, name: name.clone(), key, declared, file }
        })
    };
    match (&declared.shape, &declared.reshape) {
        (None, None) => Ok(None),
        (None, Some(reshape)) => {
            Err(DeclaredError::ReshapeAlone { side, name, reshape: reshape.clone() })
        }
        (Some(shape), None) => {
            let shape = in_file("shape", shape)?;
            let check = (side == Side::Output && shape != spec.shape).then(|| Change {
                name,
                from: shape.clone(),
                to: shape.clone(),
            });
            spec.shape = shape;
            Ok(check)
        }
        (Some(shape), Some(reshape)) => {
            let inner = in_file("reshape", reshape)?;
            let (from, to) = match side {
                Side::Input => (shape.clone(), inner),
                Side::Output => (inner, shape.clone()),
            };
            agree(&from, &to).map_err(|disagreement| {
                let (name, shape, reshape) = (name.clone(), shape.clone(), reshape.clone());
                match disagreement {
                    Disagreement::Counts => {
                        DeclaredError::CountsDiffer { side, name, shape, reshape }
                    }
                    Disagreement::OpenSizes => {
                        DeclaredError::OpenSizes { side, name, shape, reshape }
                    }
                }
            })?;
            spec.shape = shape.clone();
            Ok(Some(Change { name, from, to }))
        }
    }
}

/// Why two patterns are no shapes of the same elements.
enum Disagreement {
    Counts,
    OpenSizes,
}

/// Checks that a shape of one pattern gives one of the other: for some tensors at least, and in one
/// way only.
fn agree(from: &ShapePattern, to: &ShapePattern) -> Result<(), Disagreement> {
    if [from, to].contains(&&ShapePattern::AnyRank) {
        return Err(Disagreement::OpenSizes);
    }
    let (from, to) = (sizes(from), sizes(to));
    let fixed = |sizes: &[Option<usize>]| product(sizes.iter().flatten().copied());
    let (Some(given), Some(wanted)) = (fixed(&from), fixed(&to)) else {
        return Err(Disagreement::Counts);
    };
    let divides = |divisor: usize, count: usize| divisor != 0 && count.is_multiple_of(divisor);
    let counts = match (open(&from), open(&to)) {
        (0, 0) => given == wanted,
        (0, 1) => divides(wanted, given),
        (_, 0) => divides(given, wanted) || given == wanted,
        (_, 1) => wanted != 0,
        // Each open size keeps its place, so what lies between them must agree.
        _ if between(&from) == between(&to) => true,
        _ => return Err(Disagreement::OpenSizes),
    };
    if counts { Ok(()) } else { Err(Disagreement::Counts) }
}

/// Returns why batching is off: one request's inputs could have different numbers of rows.
fn unbatched(outer: &[TensorSpec], changes: &[Option<Change>]) -> Option<String> {
    let mut agreed: Option<Rows> = None;
    for (spec, change) in outer.iter().zip(changes).filter(|(spec, _)| !spec.optional) {
        let rows = rows(&spec.shape, change.as_ref());
        let reason = |change: &Change| {
            format!(
                "input '{}' is reshaped from {} to {}, which changes its rows",
                change.name, change.from, change.to
            )
        };
        match (rows, agreed) {
            (Rows::None, _) => {}
            (Rows::Other, _) => return change.as_ref().map(reason),
            (rows, None) => agreed = Some(rows),
            (rows, Some(others)) if rows == others => {}
            _ => return changes.iter().flatten().next().map(reason),
        }
    }
    None
}

/// What becomes of a request's rows in one input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// They stay the rows.
    Kept,
    /// There are always so many.
    Fixed(usize),
    /// It is a scalar.
    None,
    /// Any number.
    Other,
}

fn rows(outer: &ShapePattern, change: Option<&Change>) -> Rows {
    let (from, to) = match change {
        None => (sizes(outer), sizes(outer)),
        Some(change) => (sizes(&change.from), sizes(&change.to)),
    };
    let fixed = |sizes: &[Option<usize>]| product(sizes.iter().flatten().copied());
    match (to.first(), from.first()) {
        (None, _) if *outer == ShapePattern::AnyRank => Rows::Kept,
        (None, _) => Rows::None,
        (Some(Some(count)), _) => Rows::Fixed(*count),
        (Some(None), _) if open(&from) == 0 => match (fixed(&from), fixed(&to)) {
            (Some(given), Some(wanted)) if wanted != 0 => Rows::Fixed(given / wanted),
            _ => Rows::Other,
        },
        (Some(None), Some(None)) if change.is_none() || between(&from) == between(&to) => {
            Rows::Kept
        }
        _ => Rows::Other,
    }
}

/// The sizes of a pattern, `None` where open. A pattern of any rank has none: callers see to it.
fn sizes(pattern: &ShapePattern) -> Vec<Option<usize>> {
    match pattern {
        ShapePattern::AnyRank => Vec::new(),
        ShapePattern::Ranked(dimensions) => {
            dimensions.iter().map(outhaul_types::Dimension::size).collect()
        }
    }
}

fn open(sizes: &[Option<usize>]) -> usize {
    sizes.iter().filter(|size| size.is_none()).count()
}

/// The elements between the open sizes: `[2, -1, 3, 4]` gives 2 and 12.
fn between(sizes: &[Option<usize>]) -> Vec<Option<usize>> {
    sizes.split(Option::is_none).map(|part| product(part.iter().flatten().copied())).collect()
}

fn product(mut sizes: impl Iterator<Item = usize>) -> Option<usize> {
    sizes.try_fold(1_usize, usize::checked_mul)
}

fn names(specs: &[TensorSpec]) -> String {
    let quoted: Vec<String> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

#[cfg(test)]
mod tests;
