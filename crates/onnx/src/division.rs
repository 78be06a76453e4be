//! Finds the integer divisions that end the process in an engine that leaves them to the processor.
//!
//! The quotient of the least INT32 or INT64 and -1 has no place in its type, and x86 answers the
//! division with a signal. A server that runs such an engine must not let a request choose both
//! operands.
//!
//! Invariant: [`check`] passes a model only where every `Div` and `Mod` provably never meets that
//! pair, whatever the inputs are. It follows the element type of every value and the integers that
//! it may hold, through subgraphs and through the file's own functions; what it cannot follow may
//! hold anything. It relies on the types that the file declares between nodes, so an engine that
//! uses it must check those, as ONNX Runtime does when it loads a model.

mod fact;
mod operators;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::graph::{Function, Graph, Initializer, Node};
use crate::model::OnnxModel;
use crate::rows::with_attributes;
use fact::Fact;

/// Functions may call functions, and the stack of an ordinary thread holds this many.
const MAX_DEPTH: usize = 48;
/// Functions that call functions twice each would otherwise take time without end.
const MAX_NODES: usize = 2_000_000;

/// Checks every division; the error names the node and says what may happen.
pub(crate) fn check(model: &OnnxModel) -> Result<(), String> {
    let mut divides = false;
    model.each_node(|node| divides |= is_division(node));
    if !divides {
        return Ok(());
    }
    let mut walk = Walk { model, depth: 0, nodes: 0 };
    walk.graph(&model.graph, None, Vec::new()).map(drop)
}

/// Returns whether a node divides integers where it is given any. With `fmod` a remainder is
/// computed as one of floats.
fn is_division(node: &Node) -> bool {
    match (node.domain.as_str(), node.op_type.as_str()) {
        ("", "Div") => true,
        ("", "Mod") => node.int("fmod").unwrap_or(0) == 0,
        _ => false,
    }
}

/// What is known of the values that a graph sees.
#[derive(Default)]
struct Scope<'a> {
    facts: HashMap<&'a str, Fact>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name).or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

/// Types by the name of the value, as a graph declares them.
type Declared<'a> = HashMap<&'a str, Fact>;

struct Walk<'a> {
    model: &'a OnnxModel,
    depth: usize,
    nodes: usize,
}

impl Walk<'_> {
    /// Follows all nodes of a graph and returns what is known of its outputs. `inputs` are what the
    /// caller knows of a body's arguments.
    fn graph(
        &mut self,
        graph: &Graph,
        outer: Option<&Scope>,
        inputs: Vec<Fact>,
    ) -> Result<Vec<Fact>, String> {
        let mut scope = Scope { outer, ..Scope::default() };
        for (index, input) in graph.inputs.iter().enumerate() {
            let given = inputs.get(index).filter(|fact| fact.data_type.is_some()).cloned();
            let fact = given.unwrap_or_else(|| Fact::declared(input.value_type.as_ref()));
            scope.facts.insert(&input.name, fact);
        }
        // One that has an input's name is that input's default, which a request may replace; before
        // the fourth version of the format every constant had to be an input too.
        let replaceable = self.model.ir_version >= 4 || outer.is_some();
        let is_default = |tensor: &&Initializer| {
            replaceable && graph.inputs.iter().any(|input| input.name == tensor.name)
        };
        for tensor in graph.initializers.iter().filter(|tensor| !is_default(tensor)) {
            scope.facts.insert(&tensor.name, Fact::constant(tensor));
        }
        let told = graph.value_info.iter().chain(&graph.outputs);
        let declared = told
            .map(|value| (value.name.as_str(), Fact::declared(value.value_type.as_ref())))
            .collect();
        self.nodes(&graph.nodes, &declared, &mut scope)?;
        let outputs = graph.outputs.iter();
        Ok(outputs.map(|output| made(&output.name, &scope)).collect())
    }

    fn nodes<'g>(
        &mut self,
        nodes: &'g [Node],
        declared: &Declared,
        scope: &mut Scope<'g>,
    ) -> Result<(), String> {
        for node in nodes {
            self.nodes += 1;
            if self.nodes > MAX_NODES || self.depth > MAX_DEPTH {
                let node = node.describe();
                return Err(format!("{node}: in more or deeper functions than are followed"));
            }
            let mut facts = self.node(node, declared, scope)?.into_iter();
            for name in &node.outputs {
                let fact = facts.next().filter(|fact| fact.data_type.is_some());
                let fact = fact.or_else(|| declared.get(name.as_str()).cloned());
                scope.facts.insert(name, fact.unwrap_or_else(Fact::unknown));
            }
        }
        Ok(())
    }

    /// Follows one node and returns what is known of its outputs, the first ones at least.
    fn node(
        &mut self,
        node: &Node,
        declared: &Declared,
        scope: &Scope,
    ) -> Result<Vec<Fact>, String> {
        let inputs: Vec<Option<&Fact>> = node.inputs.iter().map(|name| scope.get(name)).collect();
        if is_division(node) {
            let told = node.outputs.first().and_then(|name| declared.get(name.as_str()));
            divides_safely(node, &inputs, told)?;
        }
        if let Some(function) = self.model.function_of(node) {
            let outputs = self.function(function, node, &inputs)?;
            // Whether a function may stand in for an operator of ONNX is the engine's to say.
            return Ok(if node.domain.is_empty() { Vec::new() } else { outputs });
        }
        match (node.domain.as_str(), node.op_type.as_str()) {
            ("", "If") => self.branches(node, scope),
            ("", "Loop") => self.body(node, &inputs, scope),
            _ => {
                for graph in node.subgraphs() {
                    self.inner(graph, scope, Vec::new())?;
                }
                Ok(operators::conclude(node, &inputs))
            }
        }
    }

    fn inner(
        &mut self,
        graph: &Graph,
        scope: &Scope,
        inputs: Vec<Fact>,
    ) -> Result<Vec<Fact>, String> {
        self.depth += 1;
        let outputs = self.graph(graph, Some(scope), inputs);
        self.depth -= 1;
        outputs
    }

    /// Follows a call of one of the file's own functions.
    fn function(
        &mut self,
        function: &Function,
        node: &Node,
        inputs: &[Option<&Fact>],
    ) -> Result<Vec<Fact>, String> {
        if self.depth >= MAX_DEPTH {
            let node = node.describe();
            return Err(format!("{node}: it calls more functions in each other than are followed"));
        }
        let body = with_attributes(&function.nodes, node, function);
        let mut scope = Scope::default();
        for (name, fact) in function.inputs.iter().zip(inputs) {
            if let Some(fact) = fact {
                scope.facts.insert(name, (*fact).clone());
            }
        }
        self.depth += 1;
        let followed = self.nodes(&body, &Declared::new(), &mut scope);
        self.depth -= 1;
        followed?;
        Ok(function.outputs.iter().map(|name| made(name, &scope)).collect())
    }

    /// Both branches of an `If`.
    fn branches(&mut self, node: &Node, scope: &Scope) -> Result<Vec<Fact>, String> {
        let mut either: Option<Vec<Fact>> = None;
        for branch in node.subgraphs() {
            let outputs = self.inner(branch, scope, Vec::new())?;
            either = Some(match either {
                None => outputs,
                Some(other) => other.iter().zip(&outputs).map(|(one, two)| one.or(two)).collect(),
            });
        }
        Ok(either.unwrap_or_default())
    }

    /// The body of a `Loop`. What goes round keeps its type and may become any value of it.
    fn body(
        &mut self,
        node: &Node,
        inputs: &[Option<&Fact>],
        scope: &Scope,
    ) -> Result<Vec<Fact>, String> {
        let carried: Vec<Fact> = inputs
            .iter()
            .skip(2)
            .map(|fact| Fact::any(fact.and_then(|fact| fact.data_type)))
            .collect();
        let mut outputs = Vec::new();
        for body in node.subgraphs() {
            let first = [Fact::extent(), Fact::boolean()];
            let arguments = first.into_iter().chain(carried.iter().cloned()).collect();
            // The first is the condition, which stays inside.
            let made = self.inner(body, scope, arguments)?.into_iter().skip(1);
            outputs = made.map(|fact| Fact::any(fact.data_type)).collect();
        }
        Ok(outputs)
    }
}

fn made(name: &str, scope: &Scope) -> Fact {
    scope.get(name).cloned().unwrap_or_else(Fact::unknown)
}

/// Fails where a division may be given the pair that has no quotient. `told` is the declared type
/// of its result, which both operands share.
fn divides_safely(
    node: &Node,
    inputs: &[Option<&Fact>],
    told: Option<&Fact>,
) -> Result<(), String> {
    let operand = |index: usize| inputs.get(index).copied().flatten();
    let types = [operand(0), operand(1), told];
    let data_type = types.into_iter().flatten().find_map(|fact| fact.data_type);
    let by_minus_one = operand(1).is_none_or(|divisor| divisor.minus_one);
    let least = operand(0).is_none_or(|dividend| dividend.may_be_least(data_type));
    if !(by_minus_one && least && fact::is_divided_by_the_processor(data_type)) {
        return Ok(());
    }
    let node = node.describe();
    Err(match data_type {
        Some(data_type) => format!(
            "{node}: a request may make it divide the least {data_type} by -1, which has no result \
             and would end the process"
        ),
        None => format!(
            "{node}: the file does not tell the type of its operands, and were they integers, a \
             request could make it divide the least one by -1, which would end the process"
        ),
    })
}
