"""Edits of converted ONNX graphs, so that callers get plain tensors whose first dimension is the batch.

Invariant: an edit changes names, declared shapes and the order of axes, or leaves something out; never a number.
"""

from onnx import TensorProto, helper

# What the first dimension of every input and output is called.
BATCH = "batch"

# Knows every operator that is added here.
OLDEST_OPSET = 15


def tidy(model):
    """Turns maps and sequences into tensors, and removes inputs that nothing reads."""
    graph = model.graph
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        _replace_output(graph, node, [node.input[0]], [node.output[0]])
    for node in [node for node in graph.node if node.op_type == "SequenceConstruct"]:
        if node.output[0] in output_names(model):
            names = [f"{node.output[0]}_{index}" for index in range(len(node.input))]
            _replace_output(graph, node, list(node.input), names)
    _gather_constants(graph)
    read = {name for node in graph.node for name in node.input}
    for unread in [value for value in graph.input if value.name not in read]:
        graph.input.remove(unread)
    _drop_initial_inputs(graph)
    if not any(entry.domain == "" for entry in model.opset_import):
        # A graph of trees alone needs it once nodes are added.
        model.opset_import.append(helper.make_opsetid("", OLDEST_OPSET))
    # Converters write who they are; that is nothing of the model's.
    model.doc_string = graph.doc_string = ""


def input_names(model):
    """Returns the names of what callers send."""
    return [value.name for value in model.graph.input]


def output_names(model):
    """Returns the names of what callers get."""
    return [value.name for value in model.graph.output]


def is_tensor(model, output):
    """Returns whether an output is a tensor."""
    (value,) = [value for value in model.graph.output if value.name == output]
    return value.type.WhichOneof("value") == "tensor_type"


def drop_output(model, output):
    """Removes an output, and the nodes that only it needs."""
    graph = model.graph
    (value,) = [value for value in graph.output if value.name == output]
    graph.output.remove(value)
    while True:
        read = {name for node in graph.node for name in node.input} | set(output_names(model))
        idle = [node for node in graph.node if not any(name in read for name in node.output)]
        if not idle:
            return
        for node in idle:
            graph.node.remove(node)


def rename(model, old, new):
    """Gives a tensor another name wherever it is written or read."""
    if old != new:
        taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
        if new in taken:
            _rename_in(model.graph, new, f"{new}_inner")
        _rename_in(model.graph, old, new)


def rows_first(model, output):
    """Swaps the two first axes of an output, `[label, batch, class]` as trees of several labels give it."""
    inner = _move_inside(model, output)
    model.graph.node.append(helper.make_node("Transpose", [inner], [output], perm=[1, 0, 2]))


def one_column(model, output, column):
    """Leaves one column of an output, `[batch, 2]`, which becomes `[batch]`."""
    inner, index = _move_inside(model, output), f"{output}_column"
    model.graph.initializer.append(helper.make_tensor(index, TensorProto.INT64, [], [column]))
    model.graph.node.append(helper.make_node("Gather", [inner, index], [output], axis=1))


def label_from_probabilities(model, classes):
    """Makes the label the first class of highest probability.

    Trees decide between two classes by their sum, where ONNX Runtime takes one half instead of zero as the border as soon
    as all leaves are positive; the probabilities are right all the same.
    """
    drop_output(model, "label")
    _rename_in(model.graph, "label", "label_of_trees")
    texts = any(isinstance(name, str) for name in classes)
    data_type = TensorProto.STRING if texts else TensorProto.INT64
    values = [str(name).encode() for name in classes] if texts else [int(name) for name in classes]
    model.graph.initializer.append(helper.make_tensor("label_classes", data_type, [len(values)], values))
    highest = helper.make_node("ArgMax", ["probabilities"], ["label_index"], axis=1, keepdims=0)
    model.graph.node.extend([highest, helper.make_node("Gather", ["label_classes", "label_index"], ["label"], axis=0)])
    model.graph.output.insert(0, helper.make_tensor_value_info("label", data_type, [None]))


def _move_inside(model, output):
    """Frees an output's name for a node that is to be appended; its shape is declared later."""
    (value,) = [value for value in model.graph.output if value.name == output]
    kept = helper.make_tensor_value_info(output, value.type.tensor_type.elem_type, None)
    inner = f"{output}_before"
    _rename_in(model.graph, output, inner)
    value.CopyFrom(kept)
    return inner


def declare_shapes(model, shapes):
    """Declares the inner shapes that outputs were seen to have, and the batch as a size that may vary."""
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if len(dimensions) > 0:
            dimensions[0].dim_param = BATCH
    for value in model.graph.output:
        tensor = value.type.tensor_type
        del tensor.shape.dim[:]
        tensor.shape.dim.add().dim_param = BATCH
        for size in shapes[value.name][1:]:
            tensor.shape.dim.add().dim_value = size
    del model.graph.value_info[:]


def _replace_output(graph, node, inner, names):
    """Takes away a node that wraps tensors, and gives the tensors out instead, by these names."""
    (value,) = [value for value in graph.output if value.name == node.output[0]]
    place = list(graph.output).index(value)
    graph.output.remove(value)
    graph.node.remove(node)
    for offset, (old, new) in enumerate(zip(inner, names, strict=True)):
        _rename_in(graph, old, new)
        graph.output.insert(place + offset, helper.make_tensor_value_info(new, TensorProto.FLOAT, [None, None]))


def _gather_constants(graph):
    """Looks classes up with Gather in place of ArrayFeatureExtractor, which Outhaul does not run several requests through."""
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = []
    for node in graph.node:
        constant = constants.get(node.input[0]) if node.op_type == "ArrayFeatureExtractor" else None
        if constant is None or len(constant.dims) > 2 or len(constant.dims) == 2 and constant.dims[0] != 1:
            nodes.append(node)
            continue
        table, flat, whole = (f"{node.output[0]}_{part}" for part in ("table", "flat", "whole"))
        copy = graph.initializer.add()
        copy.CopyFrom(constant)
        copy.name = table
        copy.dims[:] = [1, *constant.dims[-1:]]
        graph.initializer.append(helper.make_tensor(whole, TensorProto.INT64, [1], [-1]))
        nodes.append(helper.make_node("Reshape", [node.input[1], whole], [flat]))
        nodes.append(helper.make_node("Gather", [table, flat], list(node.output), axis=1))
    del graph.node[:]
    graph.node.extend(nodes)


def _rename_in(graph, old, new):
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename_in(inner, old, new)
    for value in (*graph.input, *graph.output, *graph.initializer):
        if value.name == old:
            value.name = new


def _drop_initial_inputs(graph):
    """Old converters list constants among the inputs, where callers could replace them."""
    constants = {constant.name for constant in graph.initializer}
    for value in [value for value in graph.input if value.name in constants]:
        graph.input.remove(value)


def tree_thresholds(model):
    """Returns the thresholds of trees that read an input as it is: pairs of feature and value."""
    direct = set(input_names(model))
    pairs = set()
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in direct:
            direct.add(node.output[0])
        if node.op_type.startswith("TreeEnsemble") and node.input[0] in direct:
            found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            modes = found.get("nodes_modes", [])
            triples = zip(found.get("nodes_featureids", []), found.get("nodes_values", []), modes, strict=False)
            pairs.update((feature, value) for feature, value, mode in triples if mode != b"LEAF")
    return sorted(pairs)
