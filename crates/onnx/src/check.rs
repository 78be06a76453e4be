//! From what a file says to a model that is sound: names, order, weights, inputs and outputs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::path::Path;

use outhaul_types::{ModelSignature, TensorSpec};

use crate::error::{Problem, Side};
use crate::graph::{Graph, Node, ValueInfo, ValueType};
use crate::model::OnnxModel;
use crate::proto::RawModel;

type Result<T> = std::result::Result<T, Problem>;

/// Checks a model and puts its nodes into order.
pub(crate) fn model(raw: RawModel, path: &Path, file_bytes: u64) -> Result<OnnxModel> {
    let RawModel { ir_version, producer_name, producer_version, opsets, metadata, .. } = raw;
    let (mut graph, mut functions) = (raw.graph.ok_or(Problem::NoGraph)?, raw.functions);
    if graph.nodes.is_empty() && graph.outputs.is_empty() {
        return Err(Problem::NoGraph);
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));

    let signature = signature(&graph)?;
    nothing_is_free(resolve_graph(&mut graph)?)?;
    let mut called = HashSet::new();
    for function in &mut functions {
        let key = (function.domain.clone(), function.name.clone(), function.overload.clone());
        let name = key.1.clone();
        if !called.insert(key) {
            return Err(Problem::DuplicateName { what: "function", name });
        }
        let inputs = function.inputs.iter().map(String::as_str);
        let free = resolve(&mut function.nodes, inputs, &[], &function.outputs)?;
        nothing_is_free(free)?;
    }
    let producer = [producer_name, producer_version].join(" ").trim().to_owned();
    let path = path.to_owned();
    let model = OnnxModel {
        path,
        signature,
        ir_version,
        opsets,
        producer,
        metadata,
        file_bytes,
        graph,
        functions,
    };
    external_data(&model, folder)?;
    Ok(model)
}

/// Values that a graph needs and does not make, each with a node that needs it.
type Free = BTreeMap<String, String>;

fn nothing_is_free(free: Free) -> Result<()> {
    match free.into_iter().next() {
        Some((value, user)) => Err(Problem::UndefinedValue { user, value }),
        None => Ok(()),
    }
}

fn resolve_graph(graph: &mut Graph) -> Result<Free> {
    for (what, infos) in [("input", &graph.inputs), ("output", &graph.outputs)] {
        unique(what, infos.iter().map(|info| info.name.as_str()))?;
    }
    unique("initializer", graph.initializers.iter().map(|tensor| tensor.name.as_str()))?;
    let inputs = graph.inputs.iter().map(|info| info.name.as_str());
    let initializers: Vec<&str> =
        graph.initializers.iter().map(|tensor| tensor.name.as_str()).collect();
    let outputs: Vec<String> = graph.outputs.iter().map(|info| info.name.clone()).collect();
    resolve(&mut graph.nodes, inputs, &initializers, &outputs)
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Problem::DuplicateName { what, name: name.to_owned() });
        }
    }
    Ok(())
}

/// Puts `nodes` into an order in which they can run, fills in what their subgraphs capture, and
/// returns what has to come from outside. The reader bounds how deep this recurses.
fn resolve<'a>(
    nodes: &mut Vec<Node>,
    inputs: impl Iterator<Item = &'a str>,
    initializers: &[&'a str],
    outputs: &[String],
) -> Result<Free> {
    for node in nodes.iter_mut() {
        let mut captures = BTreeSet::new();
        for attribute in &mut node.attributes {
            for graph in attribute.value.graphs_mut() {
                captures.extend(resolve_graph(graph)?.into_keys());
            }
        }
        node.captures = captures.into_iter().collect();
    }

    // What makes each value: a node, or (`None`) the graph's surroundings.
    let mut makers: HashMap<&str, Option<usize>> = HashMap::new();
    makers.extend(inputs.chain(initializers.iter().copied()).map(|name| (name, None)));
    for (index, node) in nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            if makers.insert(name, Some(index)).is_some() {
                return Err(Problem::DuplicateName { what: "value", name: name.clone() });
            }
        }
    }

    let mut free = Free::new();
    let mut waiting = vec![0_usize; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for name in needs(node) {
            match makers.get(name) {
                Some(Some(maker)) => {
                    users[*maker].push(index);
                    waiting[index] += 1;
                }
                Some(None) => {}
                None => {
                    free.entry(name.to_owned()).or_insert_with(|| node.describe());
                }
            }
        }
    }
    for name in outputs {
        if !makers.contains_key(name.as_str()) {
            free.entry(name.clone()).or_insert_with(|| "an output".to_owned());
        }
    }
    let order = order(nodes, &users, waiting)?;
    if !order.is_sorted() {
        let mut taken: Vec<Option<Node>> = std::mem::take(nodes).into_iter().map(Some).collect();
        nodes.extend(order.into_iter().filter_map(|index| taken[index].take()));
    }
    Ok(free)
}

/// Returns the names of all values that a node uses, directly or in its subgraphs.
fn needs(node: &Node) -> impl Iterator<Item = &str> {
    let inputs = node.inputs.iter().filter(|name| !name.is_empty());
    inputs.chain(&node.captures).map(String::as_str)
}

/// Sorts topologically (Kahn 1962), keeping the file's order where that is one.
fn order(nodes: &[Node], users: &[Vec<usize>], mut waiting: Vec<usize>) -> Result<Vec<usize>> {
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&index| waiting[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    if order.len() == nodes.len() {
        return Ok(order);
    }
    // Every node that still waits is in a cycle or behind one; going from a waiting node to what it
    // waits for must come round.
    let stuck: HashMap<&str, usize> = (0..nodes.len())
        .filter(|&index| waiting[index] > 0)
        .flat_map(|index| nodes[index].outputs.iter().map(move |name| (name.as_str(), index)))
        .collect();
    let mut index = waiting.iter().position(|&count| count > 0).unwrap_or(0);
    let mut seen = HashSet::new();
    let mut value = "";
    while seen.insert(index) {
        let next = needs(&nodes[index]).find_map(|name| stuck.get(name).map(|&at| (name, at)));
        let Some((name, at)) = next else { break };
        (value, index) = (name, at);
    }
    Err(Problem::Cycle { node: nodes[index].describe(), value: value.to_owned() })
}

fn signature(graph: &Graph) -> Result<ModelSignature> {
    let defaults: HashSet<&str> =
        graph.initializers.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.inputs.iter().map(|info| {
        let optional = defaults.contains(info.name.as_str());
        tensor_spec(Side::Input, info, optional)
    });
    let outputs = graph.outputs.iter().map(|info| tensor_spec(Side::Output, info, false));
    Ok(ModelSignature {
        inputs: inputs.collect::<Result<_>>()?,
        outputs: outputs.collect::<Result<_>>()?,
    })
}

fn tensor_spec(side: Side, info: &ValueInfo, optional: bool) -> Result<TensorSpec> {
    let name = info.name.clone();
    if name.is_empty() {
        return Err(Problem::Unnamed { side });
    }
    let (element, shape) = match &info.value_type {
        Some(ValueType::Tensor { element, shape }) => (*element, shape.clone()),
        Some(ValueType::SparseTensor) => {
            return Err(Problem::NotATensor { side, name, what: "a sparse tensor" });
        }
        Some(ValueType::Sequence) => {
            return Err(Problem::NotATensor { side, name, what: "a sequence" });
        }
        Some(ValueType::Map) => return Err(Problem::NotATensor { side, name, what: "a map" }),
        Some(ValueType::Optional) => {
            return Err(Problem::NotATensor { side, name, what: "an optional value" });
        }
        Some(ValueType::Opaque) => {
            return Err(Problem::NotATensor { side, name, what: "an opaque value" });
        }
        None => return Err(Problem::Untyped { side, name }),
    };
    if element == crate::ElementType::UNDEFINED {
        return Err(Problem::Untyped { side, name });
    }
    if !element.is_known() {
        return Err(Problem::UnknownElement { side, name, element });
    }
    let Some(data_type) = element.data_type() else {
        return Err(Problem::UnsupportedElement { side, name, element });
    };
    Ok(TensorSpec { name: name.into(), data_type, shape, optional })
}

fn external_data(model: &OnnxModel, folder: &Path) -> Result<()> {
    let mut outcome = Ok(());
    model.each_tensor(|tensor| {
        if let (Some(external), true) = (&tensor.external, outcome.is_ok()) {
            outcome = external.check(folder, &tensor.name, tensor.bytes).map(drop);
        }
    });
    outcome
}
