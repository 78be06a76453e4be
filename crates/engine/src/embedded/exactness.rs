//! Decides from a model's description whether this engine answers exactly as ONNX says.
//!
//! Invariant: a model that passes differs from ONNX Runtime in the last digits of floats at most,
//! and by one step of a quantised value whose quotient lies within such a digit of a tie. NaN and
//! infinite inputs are outside that promise: engines differ among each other there.
//!
//! `rten` holds FP32, INT32, INT8 and UINT8. INT64 becomes INT32, and so does BOOL, so the check
//! follows every value through the graph and asks how large it can get: see [`fact`]. Operators
//! known to differ are in [`oddities`], those known to agree in [`operators`].
//!
//! It runs nothing. What only a run can tell is left to the trial after loading, and the values of
//! a request are checked when they come.

mod fact;
mod oddities;
mod operators;
mod rank;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use outhaul_onnx::{ElementType, Graph, Initializer, Node, OnnxModel, Values};
use outhaul_types::DataType;
use smallvec::SmallVec;

pub(super) use fact::LARGEST;
use fact::{Fact, Magnitude};
use oddities::Surroundings;

/// The planner of `rten` recurses per node of a chain. Its first run is given a stack for this many.
const MOST_NODES: usize = 100_000;

/// Subgraphs are planned on the stack of a pool's thread.
pub(super) const MOST_NODES_OF_SUBGRAPH: usize = 2_000;

/// Tells the rank of a value of the main graph, where `rten` has inferred it.
pub(super) type RankHint<'a> = &'a dyn Fn(&str) -> Option<usize>;

/// Checks a model, before it is loaded without a hint and afterwards with one.
///
/// # Errors
///
/// Fails with what is not exact: the node and its operator, or the tensor.
pub(super) fn check(
    model: &OnnxModel,
    bytes_saturate: bool,
    hint: Option<RankHint>,
) -> Result<(), String> {
    check_signature(model)?;
    let around = Surroundings {
        opset: model.opset("").unwrap_or(0),
        bytes_saturate,
        ranks_are_final: hint.is_some(),
    };
    let walk = Walk { model, around, hint };
    walk.graph(&model.graph, None, Vec::new())?;
    Ok(())
}

/// Returns whether weights may be laid out for the processor when the model is loaded, which makes
/// small batches up to twice as fast and takes the weights' memory again. `rten` 0.27 then forgets
/// the zero point of `MatMulInteger`'s second input, where that is not 0.
pub(super) fn may_prepack(model: &OnnxModel) -> bool {
    let is_zero = |name: &str| {
        model.graph.initializers.iter().any(|tensor| {
            tensor.name == name
                && matches!(&tensor.values, Some(Values::Ints(all)) if all.iter().all(|&x| x == 0))
        })
    };
    let mut may = true;
    model.each_node(|node| {
        if node.op_type == "MatMulInteger" {
            may &= node.input(3).is_none_or(is_zero);
        }
    });
    may
}

/// Returns the INT64 constants of the main graph that were too long for their elements to be kept,
/// so that nobody has seen yet whether they fit 32 bits.
pub(super) fn unseen_constants(model: &OnnxModel) -> Vec<&str> {
    let stored = model.graph.initializers.iter().filter(|tensor| is_unseen(tensor));
    let mut names: Vec<&str> = stored.map(|tensor| tensor.name.as_str()).collect();
    for node in model.graph.nodes.iter().filter(|node| node.op_type == "Constant") {
        let unseen = node.attributes.iter().flat_map(|attribute| attribute.value.tensors());
        if unseen.into_iter().any(is_unseen) {
            names.extend(node.outputs.first().map(String::as_str));
        }
    }
    names
}

fn is_unseen(tensor: &Initializer) -> bool {
    tensor.data_type == ElementType::INT64 && tensor.values.is_none() && tensor.elements > 0
}

fn check_signature(model: &OnnxModel) -> Result<(), String> {
    for spec in &model.signature.inputs {
        if !oddities::carried(spec.data_type) {
            return Err(format!("input '{}' of {}", spec.name, spec.data_type));
        }
    }
    match model.signature.outputs.iter().find(|spec| !oddities::carried(spec.data_type)) {
        Some(spec) => Err(format!("output '{}' of {}", spec.name, spec.data_type)),
        None => Ok(()),
    }
}

/// What is known of the values that a graph sees.
struct Scope<'a> {
    facts: HashMap<&'a str, Fact>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name).or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

struct Walk<'a> {
    model: &'a OnnxModel,
    around: Surroundings,
    hint: Option<RankHint<'a>>,
}

impl<'a> Walk<'a> {
    /// Follows all nodes of a graph and returns what is known of its outputs. `inputs` are the
    /// arguments of a loop's body; the main graph's are declared.
    fn graph(
        &self,
        graph: &'a Graph,
        outer: Option<&Scope>,
        inputs: Vec<Fact>,
    ) -> Result<Vec<Fact>, String> {
        let most = if outer.is_some() { MOST_NODES_OF_SUBGRAPH } else { MOST_NODES };
        if graph.nodes.len() > most {
            let count = graph.nodes.len();
            return Err(format!("a graph of {count} nodes, more than {most}"));
        }
        let mut scope = Scope { facts: HashMap::with_capacity(graph.nodes.len() * 2), outer };
        for (index, input) in graph.inputs.iter().enumerate() {
            let given = inputs.get(index).cloned();
            let fact = given.unwrap_or_else(|| Fact::declared(input.value_type.as_ref()));
            scope.facts.insert(&input.name, fact);
        }
        // One that has an input's name is that input's default, which a request may replace.
        let is_default =
            |tensor: &&Initializer| graph.inputs.iter().any(|input| input.name == tensor.name);
        for tensor in graph.initializers.iter().filter(|tensor| !is_default(tensor)) {
            scope.facts.insert(&tensor.name, stored(tensor, graph, outer.is_some())?);
        }
        let declared: HashMap<&str, Fact> = graph
            .value_info
            .iter()
            .chain(&graph.outputs)
            .map(|value| (value.name.as_str(), Fact::declared(value.value_type.as_ref())))
            .collect();
        for node in &graph.nodes {
            let facts = self.node(node, &scope)?;
            for (name, fact) in node.outputs.iter().zip(facts) {
                let fact = self.completed(name, fact, &declared, outer.is_none());
                scope.facts.insert(name, fact);
            }
        }
        graph.outputs.iter().map(|output| returned(&output.name, &scope)).collect()
    }

    /// Adds what others know of a value to what was concluded.
    fn completed(
        &self,
        name: &str,
        fact: Fact,
        declared: &HashMap<&str, Fact>,
        is_main: bool,
    ) -> Fact {
        let told = declared.get(name);
        let inferred = || self.hint.filter(|_| is_main).and_then(|hint| hint(name));
        let rank = fact.rank.or_else(|| told.and_then(|told| told.rank)).or_else(inferred);
        match (fact.data_type, told) {
            (None, Some(told)) => told.clone().ranked(rank),
            _ => fact.ranked(rank),
        }
    }

    fn node(&self, node: &'a Node, scope: &Scope) -> Result<SmallVec<[Fact; 2]>, String> {
        let refusal = |reason: String| {
            let described = node.describe();
            if reason.is_empty() { described } else { format!("{described}: {reason}") }
        };
        if self.model.function_of(node).is_some() {
            return Err(refusal("an operator that the file itself defines".to_owned()));
        }
        let inputs: SmallVec<[Option<&Fact>; 4]> =
            node.inputs.iter().map(|name| scope.get(name)).collect();
        match (node.domain.as_str(), node.op_type.as_str()) {
            ("", "If") => self.branches(node, scope),
            ("", "Loop") => self.body(node, &inputs, scope),
            _ => {
                if let Some(reason) = oddities::oddity(node, &inputs, self.around) {
                    return Err(refusal(reason));
                }
                operators::conclude(node, &inputs).map_err(refusal)
            }
        }
    }

    /// Both branches of an `If`.
    fn branches(&self, node: &'a Node, scope: &Scope) -> Result<SmallVec<[Fact; 2]>, String> {
        let mut made: Option<SmallVec<[Fact; 2]>> = None;
        for branch in node.subgraphs() {
            let outputs = self.graph(branch, Some(scope), Vec::new())?;
            made = Some(match made {
                None => outputs.into(),
                Some(other) => {
                    other.into_iter().zip(&outputs).map(|(one, two)| one.or(two)).collect()
                }
            });
        }
        made.ok_or_else(|| format!("{}: without branches", node.describe()))
    }

    /// The body of a `Loop`. What goes round is taken to be anything that its type can be.
    fn body(
        &self,
        node: &'a Node,
        inputs: &operators::Inputs,
        scope: &Scope,
    ) -> Result<SmallVec<[Fact; 2]>, String> {
        let refusal = |reason: &str| format!("{}: {reason}", node.describe());
        let [body] = node.subgraphs().collect::<SmallVec<[&Graph; 2]>>()[..] else {
            return Err(refusal("without a body"));
        };
        let carried: Vec<Fact> = inputs.iter().skip(2).map(|fact| going_round(*fact)).collect();
        let iteration = Fact::of(DataType::Int64).within(Magnitude::Extent).ranked(Some(0));
        let condition = Fact { loose: true, ..Fact::of(DataType::Bool).ranked(Some(0)) };
        let count = carried.len();
        let arguments = [iteration, condition].into_iter().chain(carried.iter().cloned()).collect();
        let outputs = self.graph(body, Some(scope), arguments)?;
        let mut made: SmallVec<[Fact; 2]> = carried.into();
        for (index, fact) in outputs.into_iter().enumerate().skip(1) {
            if index > count {
                made.push(Fact { rank: fact.rank.map(|rank| rank + 1), ..fact });
            } else if fact.loose || inputs.get(index + 1).is_some_and(is_loose) {
                return Err(refusal("a BOOL that was cast from numbers goes round in it"));
            }
        }
        Ok(made)
    }
}

fn is_loose(fact: &Option<&Fact>) -> bool {
    fact.is_some_and(|fact| fact.loose)
}

fn going_round(fact: Option<&Fact>) -> Fact {
    match fact.and_then(|fact| fact.data_type) {
        Some(data_type) => Fact { rough: true, ..Fact::of(data_type) },
        None => Fact::unknown(),
    }
}

/// An initializer, whose type the engine must have.
fn stored(tensor: &Initializer, graph: &Graph, is_inner: bool) -> Result<Fact, String> {
    let refusal = |reason: String| Err(format!("constant '{}' {reason}", tensor.name));
    if tensor.sparse {
        return refusal("stored as a sparse tensor".to_owned());
    }
    if is_inner && is_unseen(tensor) {
        return refusal("of INT64, too long to check inside a subgraph".to_owned());
    }
    match operators::held(tensor.data_type) {
        Ok(_) => Ok(Fact::constant(tensor)),
        // The engine makes FP32 of it when it loads, as the cast would.
        Err(_) if is_narrowed(tensor, graph) => {
            Ok(Fact::of(DataType::Fp32).ranked(Some(tensor.dims.len())))
        }
        Err(reason) => refusal(reason),
    }
}

/// Returns whether all that happens to an FP16 or FP64 constant is a cast to FP32.
fn is_narrowed(tensor: &Initializer, graph: &Graph) -> bool {
    let wide = matches!(tensor.data_type.data_type(), Some(DataType::Fp16 | DataType::Fp64));
    let to_float = i64::from(ElementType::FLOAT.number());
    wide && graph.outputs.iter().all(|output| output.name != tensor.name)
        && graph.nodes.iter().all(|node| {
            let uses = node.inputs.contains(&tensor.name) || node.captures.contains(&tensor.name);
            !uses || (node.op_type == "Cast" && node.int("to") == Some(to_float))
        })
}

fn returned(name: &str, scope: &Scope) -> Result<Fact, String> {
    let fact = scope.get(name).cloned().unwrap_or_else(Fact::unknown);
    if fact.magnitude == Magnitude::Saturated {
        return Err(format!(
            "output '{name}', a constant that does not fit the 32 bits that this engine has"
        ));
    }
    Ok(fact)
}
