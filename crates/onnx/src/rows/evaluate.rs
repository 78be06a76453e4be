//! Walks a graph and gives every value what is known of it.

use std::collections::HashMap;
use std::rc::Rc;

use super::call::{Call, Made};
use super::numbers::{MAX_TERMS, Numbers};
use super::size::{Size, Symbols};
use super::table;
use super::value::{Cause, Dims, Reason, Result, Value};
use crate::graph::{Attribute, AttributeValue, Function, Graph, Initializer, Node, Values};
use crate::model::{OnnxModel, Opset};

/// Functions may call functions, and branches hold branches; nothing real goes deeper, and the stack
/// of an ordinary thread holds this much in a debug build.
const MAX_DEPTH: usize = 48;
/// Functions that call functions twice each would otherwise take time without end.
const MAX_NODES: usize = 2_000_000;

/// The values of a graph, with those around it.
#[derive(Default)]
pub(super) struct Scope<'a> {
    values: HashMap<&'a str, Value>,
    floats: HashMap<&'a str, Vec<f32>>,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub(super) fn define(&mut self, name: &'a str, value: Value) {
        self.values.insert(name, value);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

/// Applies transfer functions in the order of the nodes.
pub(super) struct Evaluator<'a> {
    model: &'a OnnxModel,
    symbols: &'a mut Symbols,
    opsets: &'a [Opset],
    /// Whether a function of the file draws random numbers; callers are not told apart.
    random_functions: bool,
    depth: usize,
    nodes: usize,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(model: &'a OnnxModel, symbols: &'a mut Symbols) -> Self {
        let mut bodies = model.functions.iter().flat_map(|function| &function.nodes);
        let random_functions = bodies.any(draws_random_numbers);
        let opsets = &model.opsets;
        Evaluator { model, symbols, opsets, random_functions, depth: 0, nodes: 0 }
    }

    /// Gives every value of `graph` a place in `scope`, which holds its inputs.
    pub(super) fn graph<'g>(&mut self, graph: &'g Graph, scope: &mut Scope<'g>) {
        for tensor in &graph.initializers {
            scope.define(&tensor.name, constant(tensor));
            if let Some(Values::Floats(floats)) = &tensor.values {
                scope.floats.insert(&tensor.name, floats.clone());
            }
        }
        self.nodes(&graph.nodes, scope);
    }

    fn nodes<'g>(&mut self, nodes: &'g [Node], scope: &mut Scope<'g>) {
        for node in nodes {
            if node.op_type == "Constant"
                && let Some(floats) = constant_floats(node)
                && let Some(name) = node.outputs.first()
            {
                scope.floats.insert(name, floats);
            }
            let made = self.node(node, scope);
            let outputs = node.outputs.iter().enumerate();
            for (index, name) in outputs.filter(|(_, name)| !name.is_empty()) {
                let value = made.get(index).cloned().unwrap_or_else(|| {
                    mixed(node, "makes an output that is not known to keep rows apart".to_owned())
                });
                scope.define(name, value);
            }
        }
    }

    fn node(&mut self, node: &Node, scope: &Scope<'_>) -> Made {
        let everywhere = |value: Value| vec![value; node.outputs.len()];
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            let value = (!name.is_empty()).then(|| scope.get(name)).flatten();
            if let Some(value @ Value::Mixed(_)) = value {
                return everywhere(value.clone());
            }
            inputs.push(value.cloned());
        }
        let mut captures_are_same = true;
        for name in &node.captures {
            match scope.get(name) {
                Some(value @ Value::Mixed(_)) => return everywhere(value.clone()),
                Some(value) => captures_are_same &= value.is_batch_free(),
                None => {}
            }
        }
        let all_same = captures_are_same && inputs.iter().flatten().all(Value::is_batch_free);
        match self.transfer(node, inputs, scope) {
            Ok(made) => made,
            // What takes no rows and no chance makes none.
            Err(_) if all_same && self.is_repeatable(node) => everywhere(Value::Same(None)),
            Err(reason) => everywhere(mixed(node, reason)),
        }
    }

    fn transfer(
        &mut self,
        node: &Node,
        inputs: Vec<Option<Value>>,
        scope: &Scope<'_>,
    ) -> Result<Made> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err("comes after more nodes than are followed".to_owned());
        }
        if self.depth > MAX_DEPTH {
            return Err("lies in more branches and functions than are followed".to_owned());
        }
        if let Some(function) = self.model.function_of(node) {
            return self.function(function, node, inputs);
        }
        if draws_random_numbers(node) {
            return Err("draws random numbers".to_owned());
        }
        if node.op_type == "If" && node.domain.is_empty() {
            return self.branches(node, &inputs, scope);
        }
        let imported = self.opsets.iter().find(|opset| opset.domain == node.domain);
        let opset = imported.map(|opset| opset.version).ok_or_else(|| {
            "is of an operator set whose version the file does not tell".to_owned()
        })?;
        let mut call = Call { node, inputs, opset, symbols: self.symbols, floats: &scope.floats };
        table::transfer(&mut call)
    }

    /// Returns whether a node that was not followed gives the same result for the same inputs.
    fn is_repeatable(&self, node: &Node) -> bool {
        let mut inside = node.subgraphs().flat_map(|graph| &graph.nodes);
        let calls_function = self.model.function_of(node).is_some();
        table::is_repeatable(node)
            && !(calls_function && self.random_functions)
            && inside.all(|node| self.is_repeatable(node))
    }

    /// Follows a call of one of the file's own functions.
    fn function(
        &mut self,
        function: &'a Function,
        node: &Node,
        inputs: Vec<Option<Value>>,
    ) -> Result<Made> {
        let body = with_attributes(&function.nodes, node, function);
        let mut scope = Scope::default();
        for (name, value) in function.inputs.iter().zip(inputs) {
            if let Some(value) = value {
                scope.define(name, value);
            }
        }
        let outer_opsets = std::mem::replace(&mut self.opsets, &function.opsets);
        self.depth += 1;
        self.nodes(&body, &mut scope);
        self.depth -= 1;
        self.opsets = outer_opsets;
        let missing = || "calls a function that does not make its output".to_owned();
        function.outputs.iter().map(|name| scope.get(name).cloned().ok_or_else(missing)).collect()
    }

    /// Follows the branch that is taken, or both where the choice is the same for all requests.
    fn branches(
        &mut self,
        node: &Node,
        inputs: &[Option<Value>],
        scope: &Scope<'_>,
    ) -> Result<Made> {
        let condition = inputs.first().and_then(Option::as_ref);
        let branch = |name: &str| match node.attribute(name) {
            Some(AttributeValue::Graph(graph)) => Ok(graph),
            _ => Err("lacks a branch".to_owned()),
        };
        let known = match condition {
            Some(Value::Numbers(numbers)) => {
                numbers.single().and_then(Option::as_ref).and_then(Size::number)
            }
            _ => None,
        };
        match known {
            Some(0) => Ok(self.branch(branch("else_branch")?, scope)),
            Some(_) => Ok(self.branch(branch("then_branch")?, scope)),
            None if condition.is_some_and(Value::is_batch_free) => {
                let yes = self.branch(branch("then_branch")?, scope);
                let no = self.branch(branch("else_branch")?, scope);
                yes.iter().zip(&no).map(|(yes, no)| self.either(yes, no)).collect()
            }
            None => Err("chooses one branch for all rows, by what is in them".to_owned()),
        }
    }

    fn branch(&mut self, graph: &Graph, outer: &Scope<'_>) -> Made {
        let mut scope = Scope { outer: Some(outer), ..Scope::default() };
        self.depth += 1;
        self.graph(graph, &mut scope);
        self.depth -= 1;
        let outputs = graph.outputs.iter();
        outputs.map(|info| scope.get(&info.name).cloned().unwrap_or(Value::Same(None))).collect()
    }

    /// Returns what is known of a value that is one or the other.
    fn either(&mut self, yes: &Value, no: &Value) -> Result<Value> {
        match (yes, no) {
            (Value::Mixed(_), _) => Ok(yes.clone()),
            (_, Value::Mixed(_)) => Ok(no.clone()),
            _ if yes.is_batch_free() && no.is_batch_free() => {
                let (yes, no) = (yes.dims(), no.dims());
                Ok(Value::Same(if yes == no { yes } else { None }))
            }
            (Value::Rows(yes), Value::Rows(no))
                if yes.axis() == no.axis()
                    && yes.size() == no.size()
                    && yes.dims().len() == no.dims().len() =>
            {
                let dims: Dims = yes
                    .dims()
                    .iter()
                    .zip(no.dims())
                    .map(|(yes, no)| if yes == no { yes.clone() } else { self.symbols.dimension() })
                    .collect();
                Value::of(dims)
            }
            _ => Err("has branches that treat rows differently".to_owned()),
        }
    }
}

fn mixed(node: &Node, reason: Reason) -> Value {
    let made = node.outputs.iter().find(|name| !name.is_empty());
    let name =
        if node.name.is_empty() { made.cloned().unwrap_or_default() } else { node.name.clone() };
    Value::Mixed(Rc::new(Cause { node: name, operator: node.operator(), reason }))
}

/// Returns what is known of a constant tensor.
pub(super) fn constant(tensor: &Initializer) -> Value {
    let sizes: Option<Dims> =
        tensor.dims.iter().map(|&dim| i64::try_from(dim).ok().map(Size::known)).collect();
    let dims: Option<Vec<usize>> =
        tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let numbers = |terms: Vec<i64>| {
        let terms = terms.into_iter().map(|term| Some(Size::known(term))).collect();
        Numbers::new(dims.as_ref()?, terms)
    };
    let followed = match &tensor.values {
        Some(Values::Ints(values)) if values.len() <= MAX_TERMS => numbers(values.clone()),
        Some(Values::Floats(values)) => {
            whole(values).and_then(numbers).map(|numbers| numbers.with_float(true))
        }
        _ => None,
    };
    followed.map_or(Value::Same(sizes), Value::Numbers)
}

/// Returns a few floats as integers, where they are: sizes are computed with them.
fn whole(floats: &[f32]) -> Option<Vec<i64>> {
    let exact = |float: &f32| float.fract() == 0.0 && float.abs() < (1 << 24) as f32;
    #[allow(clippy::cast_possible_truncation, reason = "checked to be a small integer")]
    (floats.len() <= 8 && floats.iter().all(exact))
        .then(|| floats.iter().map(|&float| float as i64).collect())
}

fn constant_floats(node: &Node) -> Option<Vec<f32>> {
    match node.attributes.first().map(|attribute| &attribute.value)? {
        AttributeValue::Tensor(Initializer { values: Some(Values::Floats(floats)), .. }) => {
            Some(floats.clone())
        }
        AttributeValue::Floats(list) => list.complete().map(<[f32]>::to_vec),
        AttributeValue::Float(float) => Some(vec![*float]),
        _ => None,
    }
}

/// Returns whether a node or one in its subgraphs draws random numbers.
fn draws_random_numbers(node: &Node) -> bool {
    table::draws_random_numbers(node)
        || node.subgraphs().any(|graph| graph.nodes.iter().any(draws_random_numbers))
}

/// Returns the nodes of a function with the caller's attributes in place of the references to them.
pub(crate) fn with_attributes(nodes: &[Node], caller: &Node, function: &Function) -> Vec<Node> {
    let resolve = |attribute: &Attribute| {
        let value = match &attribute.value {
            AttributeValue::Reference(name) => caller
                .attribute(name)
                .or_else(|| {
                    let mut defaults = function.attribute_defaults.iter();
                    defaults.find(|default| default.name == *name).map(|default| &default.value)
                })?
                .clone(),
            AttributeValue::Graph(graph) => {
                let nodes = with_attributes(&graph.nodes, caller, function);
                AttributeValue::Graph(Graph { nodes, ..graph.clone() })
            }
            value => value.clone(),
        };
        Some(Attribute { name: attribute.name.clone(), value })
    };
    nodes
        .iter()
        .map(|node| Node {
            // A reference to something that the caller does not pass leaves the default.
            attributes: node.attributes.iter().filter_map(resolve).collect(),
            ..node.clone()
        })
        .collect()
}
