//! What comes out exact, what does not, and the reasons that users read.

use std::path::Path;

use super::RowIndependence;
use crate::testing::{field, graph, int, model, node, read_text};

fn independence(text: &str, opset: i64) -> RowIndependence {
    read_text(text, opset).unwrap_or_else(|error| panic!("{error}\n{text}")).row_independence()
}

struct Exact(&'static str, i64, &'static str);

fn all_exact(cases: &[Exact]) {
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|Exact(name, opset, text)| match independence(text, *opset) {
            RowIndependence::Exact => None,
            other => Some(format!("{name}: {other:?}")),
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Name, opset, model, and a part of the reason.
struct Not(&'static str, i64, &'static str, &'static str);

fn none_exact(cases: &[Not]) {
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|Not(name, opset, text, expected)| match independence(text, *opset) {
            RowIndependence::Mixed { reason, .. } if reason.contains(expected) => None,
            other => Some(format!("{name}: {other:?}")),
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn elementwise_operators_keep_rows_apart() {
    all_exact(&[
        Exact("unary", 17, "in x [n,4]\n out y [n,4]\n y = Relu(x)"),
        Exact("row vector", 17, "in x [n,4]\n out y [n,4]\n const w f[4]\n y = Add(x, w)"),
        Exact("one row", 17, "in x [n,4]\n out y [n,4]\n const w f[1,4]\n y = Mul(w, x)"),
        Exact("scalar", 17, "in x [n,4]\n out y [n,4]\n const w f[]\n y = Div(x, w)"),
        Exact("two inputs", 17, "in a [n,4]\n in b [n,1]\n out y [n,4]\n y = Sub(a, b)"),
        Exact("nameless", 17, "in a [?,4]\n in b [?,4]\n out y [?,4]\n y = Max(a, b, a)"),
        Exact("clip", 17, "in x [n,4]\n out y [n,4]\n const w f[]\n y = Clip(x, w, w)"),
        Exact("cast", 17, "in x [n,4]\n out y i[n,4]\n y = Cast(x) to=7"),
        Exact("dropout", 17, "in x [n,4]\n out y [n,4]\n y = Dropout(x)"),
        Exact(
            "dropout told not to train",
            17,
            "in x [n,4]\n out y [n,4]\n const r f[]\n const t b[] = 0\n y = Dropout(x, r, t)",
        ),
        Exact(
            "rows behind another axis",
            17,
            "in x [n,4]\n out y [n,4]\n const w f[2,1,1]\n h = Add(x, w)\n y = ReduceMax(h) keepdims=0 axes=[0]",
        ),
        Exact("dead code", 17, "in x [n,4]\n out y [n,4]\n z = NonZero(x)\n y = Relu(x)"),
        Exact(
            "optional input",
            17,
            "in x [n,3]\n in b [3]\n out y [n,3]\n const b f[3]\n y = Add(x, b)",
        ),
    ]);
    let against = "sets the rows against a dimension that is not theirs";
    none_exact(&[
        Not("column", 17, "in x [n,4]\n out y [n,4]\n const w f[3,1]\n y = Add(x, w)", against),
        Not("square", 17, "in x [n]\n in z [n,3]\n out y [n,3]\n y = Add(x, z)", "theirs"),
        Not(
            "unknown size",
            17,
            "in x [n,4]\n in s [n,k]\n out y [n,4]\n const o f[9,4]\n const z i[1] = 0\n l = Shape(s) start=1 end=2\n p = Slice(o, z, l, z)\n y = Add(x, p)",
            against,
        ),
        Not(
            "training",
            17,
            "in x [n,4]\n out y [n,4]\n const r f[]\n const t b[] = 1\n y = Dropout(x, r, t)",
            "training",
        ),
        Not(
            "old broadcast",
            6,
            "in x [n,4]\n out y [n,4]\n const w f[4]\n y = Add(x, w) broadcast=1 axis=1",
            "before 7",
        ),
        Not(
            "random",
            17,
            "in x [n,4]\n out y [n,4]\n r = RandomNormalLike(x)\n y = Add(x, r)",
            "random",
        ),
        Not(
            "foreign",
            17,
            "in x [n,4]\n out y [n,4]\n y = com.example.Frobnicate(x)",
            "com.example",
        ),
        Not("unknown", 17, "in x [n,4]\n out y [n,4]\n y = Frobnicate(x)", "not known"),
    ]);
}

#[test]
fn axes_decide() {
    all_exact(&[
        Exact("softmax", 17, "in x [n,4]\n out y [n,4]\n y = Softmax(x)"),
        Exact("old softmax", 11, "in x [n,4]\n out y [n,4]\n y = Softmax(x)"),
        Exact(
            "mean of places",
            17,
            "in x [n,4,5]\n out y [n]\n y = ReduceMean(x) axes=[1,-1] keepdims=0",
        ),
        Exact(
            "sum by input",
            17,
            "in x [n,4]\n out y [n,1]\n const a i[1] = -1\n y = ReduceSum(x, a)",
        ),
        Exact("argmax", 17, "in x [n,4]\n out y i[n]\n y = ArgMax(x) axis=1 keepdims=0"),
        Exact(
            "top k",
            17,
            "in x [n,4]\n out v [n,2]\n out i i[n,2]\n const k i[1] = 2\n v,i = TopK(x, k)",
        ),
        Exact("cumsum", 17, "in x [n,4]\n out y [n,4]\n const a i[] = 1\n y = CumSum(x, a)"),
        Exact(
            "layer norm",
            17,
            "in x [n,s,8]\n out y [n,s,8]\n const w f[8]\n y = LayerNormalization(x, w, w) axis=-1",
        ),
        Exact(
            "slice",
            17,
            "in x [n,9]\n out y [n,3]\n const a i[1] = 0\n const b i[1] = 3\n const c i[1] = 1\n y = Slice(x, a, b, c)",
        ),
        Exact(
            "slice all",
            17,
            "in x [n,9]\n out y [n,9]\n const a i[1] = 0\n const b i[1] = 9223372036854775807\n y = Slice(x, a, b, a)",
        ),
        Exact("split", 17, "in x [n,9]\n out y [n,3]\n y,b,c = Split(x) axis=1"),
        Exact(
            "columns",
            17,
            "in x [n,9]\n out y [n,2]\n const i i[2] = 8,0\n y = Gather(x, i) axis=1",
        ),
        Exact("concat", 17, "in x [n,2]\n in z [n,k]\n out y [n,?]\n y = Concat(x, z, x) axis=1"),
        Exact("pad", 17, "in x [n,2]\n out y [n,4]\n const p i[4] = 0,1,0,1\n y = Pad(x, p)"),
        Exact(
            "one hot",
            17,
            "in x i[n]\n out y [n,5]\n const d i[] = 5\n const v f[2]\n y = OneHot(x, d, v)",
        ),
        Exact(
            "to and fro",
            17,
            "in x [n,s,8]\n out y [n,s,8]\n t = Transpose(x) perm=[1,0,2]\n r = Relu(t)\n y = Transpose(r) perm=[1,0,2]",
        ),
    ]);
    none_exact(&[
        Not("softmax", 17, "in x [n,4]\n out y [n,4]\n y = Softmax(x) axis=0", "axis 0"),
        Not("old softmax", 11, "in x [n,4]\n out y [n,4]\n y = Softmax(x) axis=0", "axis 0"),
        Not(
            "mean of rows",
            17,
            "in x [n,4]\n out y [n,4]\n m = ReduceMean(x) axes=[0]\n y = Sub(x, m)",
            "reduces over axis 0",
        ),
        Not(
            "mean of all",
            17,
            "in x [n,4]\n out y [n,4]\n m = ReduceMean(x)\n y = Sub(x, m)",
            "reduces over axis 0",
        ),
        Not(
            "unknown axes",
            17,
            "in x [n,4]\n in a i[n]\n out y [n,4]\n m = ReduceSum(x, a)\n y = Sub(x, m)",
            "from the rows",
        ),
        Not("argmax", 17, "in x [n,4]\n out y i[n]\n y = ArgMax(x)", "axis 0"),
        Not(
            "top k",
            17,
            "in x [n,4]\n out y [n,4]\n const k i[1] = 2\n y,i = TopK(x, k) axis=0",
            "sorts along axis 0",
        ),
        Not(
            "cumsum",
            17,
            "in x [n,4]\n out y [n,4]\n const a i[] = 0\n y = CumSum(x, a)",
            "runs along axis 0",
        ),
        Not(
            "layer norm",
            17,
            "in x [n,8]\n out y [n,8]\n const w f[8]\n y = LayerNormalization(x, w, w) axis=0",
            "axis 0",
        ),
        Not(
            "slice",
            17,
            "in x [n,9]\n out y [?,9]\n const a i[1] = 0\n const b i[1] = 3\n y = Slice(x, a, b, a)",
            "cuts axis 0",
        ),
        Not(
            "gather",
            17,
            "in x [n,9]\n out y [?,9]\n const i i[2] = 0,1\n y = Gather(x, i)",
            "axis 0",
        ),
        Not(
            "gather by rows",
            17,
            "in x [n,9]\n in i i[n]\n out y [n,9]\n y = Gather(x, i) axis=1",
            "for each row",
        ),
        Not(
            "concat",
            17,
            "in x [n,2]\n out y [?,2]\n y = Concat(x, x) axis=0",
            "joins along axis 0",
        ),
        Not(
            "concat constant",
            17,
            "in x [n,2]\n out y [n,4]\n const w f[1,2]\n y = Concat(x, w) axis=1",
            "with what are none",
        ),
        Not("split", 17, "in x [n,2]\n out y [?,2]\n y,z = Split(x) axis=0", "parts axis 0"),
        Not(
            "pad",
            17,
            "in x [n,2]\n out y [?,2]\n const p i[4] = 1,0,0,0\n y = Pad(x, p)",
            "border to axis 0",
        ),
        Not("non zero", 17, "in x [n]\n out y i[?,?]\n y = NonZero(x)", "all rows together"),
        Not("unique", 17, "in x [n]\n out y [?]\n y = Unique(x)", "all rows together"),
        Not("squeeze all", 17, "in x [n,1]\n out y [n]\n y = Squeeze(x)", "for one row"),
        Not(
            "scale",
            17,
            "in x [n,4]\n out y [n,4]\n a,s,z = DynamicQuantizeLinear(x)\n y = DequantizeLinear(a, s, z)",
            "one scale over the whole batch",
        ),
    ]);
}

#[test]
fn products_keep_rows_apart_unless_they_sum_them() {
    all_exact(&[
        Exact("matmul", 17, "in x [n,4]\n out y [n,3]\n const w f[4,3]\n y = MatMul(x, w)"),
        Exact("vector", 17, "in x [n,4]\n out y [n]\n const w f[4]\n y = MatMul(x, w)"),
        Exact(
            "attention",
            17,
            "in q [n,h,s,8]\n in k [n,h,8,t]\n out y [n,h,s,t]\n y = MatMul(q, k)",
        ),
        Exact(
            "gemm",
            17,
            "in x [n,4]\n out y [n,3]\n const w f[3,4]\n const c f[3]\n y = Gemm(x, w, c) transB=1",
        ),
        Exact(
            "einsum",
            17,
            "in q [n,h,s,8]\n in k [n,h,t,8]\n out y [n,h,s,t]\n y = Einsum(q, k) equation=\"bhid,bhjd->bhij\"",
        ),
        Exact(
            "weights left",
            17,
            "in x [n,4,5]\n out y [n,3,5]\n const w f[3,4]\n y = MatMul(w, x)",
        ),
    ]);
    none_exact(&[
        Not(
            "gram",
            17,
            "in x [n,4]\n out y [?,?]\n t = Transpose(x)\n y = MatMul(x, t)",
            "pairs rows",
        ),
        Not(
            "covariance",
            17,
            "in x [n,4]\n out y [?,4]\n t = Transpose(x)\n y = MatMul(t, x)",
            "sums over the rows",
        ),
        Not("gemm", 17, "in x [n,4]\n out y [?,4]\n y = Gemm(x, x) transA=1", "sums over the rows"),
        Not(
            "gemm bias",
            17,
            "in x [n,4]\n out y [n,3]\n const w f[4,3]\n const c f[2,3]\n y = Gemm(x, w, c)",
            "theirs",
        ),
        Not(
            "einsum",
            17,
            "in x [n,4]\n out y [?,?]\n y = Einsum(x, x) equation=\"ij,kj->ik\"",
            "pairs rows",
        ),
        Not(
            "einsum sum",
            17,
            "in x [n,4]\n out y [?]\n y = Einsum(x) equation=\"ij->j\"",
            "sums over the rows",
        ),
    ]);
}

#[test]
fn reshapes_keep_rows_where_sizes_say_so() {
    all_exact(&[
        Exact(
            "fixed",
            17,
            "in x [n,6]\n out y [n,2,3]\n const s i[3] = -1,2,3\n y = Reshape(x, s)",
        ),
        Exact(
            "copied",
            17,
            "in x [n,s,6]\n out y [n,s,2,3]\n const s i[4] = 0,0,2,3\n y = Reshape(x, s)",
        ),
        Exact(
            "flat and back",
            17,
            "in x [n,4,6]\n out y [n,4,6]\n const s i[2] = -1,6\n const t i[3] = -1,4,6\n h = Reshape(x, s)\n y = Reshape(h, t)",
        ),
        Exact("flatten", 17, "in x [n,4,6]\n out y [n,24]\n y = Flatten(x)"),
        Exact(
            "from shape",
            17,
            "in x [n,s,8]\n out y [n,?]\n const z i[] = 0\n const a i[1] = 0\n const m i[1] = -1\n d = Shape(x)\n b = Gather(d, z)\n c = Unsqueeze(b, a)\n t = Concat(c, m) axis=0\n y = Reshape(x, t)",
        ),
        Exact(
            "heads in the batch",
            17,
            "in x [n,s,8]\n out y [n,s,8]\n const d i[4] = 0,0,2,4\n a = Reshape(x, d)\n b = Transpose(a) perm=[0,2,1,3]\n sh = Shape(x)\n const i0 i[1] = 0\n const i1 i[1] = 1\n const two i[1] = 2\n const four i[1] = 4\n bn = Gather(sh, i0)\n sq = Gather(sh, i1)\n nh = Mul(bn, two)\n t = Concat(nh, sq, four) axis=0\n c = Reshape(b, t)\n u = Concat(bn, two, sq, four) axis=0\n e = Reshape(c, u)\n f = Transpose(e) perm=[0,2,1,3]\n const v i[3] = 0,0,8\n y = Reshape(f, v)",
        ),
        Exact(
            "sequence first, heads in the batch",
            17,
            "in x [n,s,8]\n out y [n,s,8]\n p = Transpose(x) perm=[1,0,2]\n sh = Shape(p)\n const i0 i[1] = 0\n const i1 i[1] = 1\n const two i[1] = 2\n const four i[1] = 4\n const eight i[1] = 8\n s = Gather(sh, i0)\n bn = Gather(sh, i1)\n nh = Mul(bn, two)\n t = Concat(s, nh, four) axis=0\n a = Reshape(p, t)\n b = Transpose(a) perm=[1,0,2]\n c = Transpose(b) perm=[1,0,2]\n u = Concat(s, bn, eight) axis=0\n d = Reshape(c, u)\n y = Transpose(d) perm=[1,0,2]",
        ),
        Exact(
            "expanded mask",
            17,
            "in m i[n,s]\n out y [n,1,s,s]\n const a i[2] = 1,2\n sh = Shape(m)\n const i0 i[] = 0\n const i1 i[] = 1\n const ax i[1] = 0\n const one i[1] = 1\n b = Gather(sh, i0)\n s = Gather(sh, i1)\n bu = Unsqueeze(b, ax)\n su = Unsqueeze(s, ax)\n t = Concat(bu, one, su, su) axis=0\n const four i[1] = 4\n ones = ConstantOfShape(four)\n const neg i[4] = -1,-1,-1,-1\n eq = Equal(t, neg)\n w = Where(eq, neg, t)\n u = Unsqueeze(m, a)\n e = Expand(u, w)\n y = Cast(e) to=1",
        ),
        Exact(
            "positions",
            17,
            "in x i[n,s]\n out y [n,s,8]\n const w f[99,8]\n const p f[64,8]\n sh = Shape(x)\n const i1 i[] = 1\n const z i[] = 0\n const o i[] = 1\n s = Gather(sh, i1)\n r = Range(z, s, o)\n const a i[1] = 0\n ru = Unsqueeze(r, a)\n pe = Gather(p, ru)\n e = Gather(w, x)\n y = Add(e, pe)",
        ),
        Exact(
            "class token",
            17,
            "in x [n,s,8]\n out y [n,?,8]\n const c f[1,1,8]\n const m i[1] = -1\n sh = Shape(x) start=0 end=1\n t = Concat(sh, m, m) axis=0\n const three i[1] = 3\n const mm i[] = -1\n k = ConstantOfShape(three)\n ki = Cast(k) to=7\n const one3 i[3] = 1,1,1\n ones = Add(ki, one3)\n const neg i[3] = -1,-1,-1\n eq = Equal(t, neg)\n w = Where(eq, ones, t)\n e = Expand(c, w)\n y = Concat(e, x) axis=1",
        ),
    ]);
    none_exact(&[
        Not(
            "mixes",
            17,
            "in x [n,3]\n out y [?,2]\n const s i[2] = -1,2\n y = Reshape(x, s)",
            "may join parts of rows",
        ),
        Not(
            "unknown multiple",
            17,
            "in x [n,k]\n out y [?,2]\n const s i[2] = -1,2\n y = Reshape(x, s)",
            "may join parts of rows",
        ),
        Not(
            "rows to the back",
            17,
            "in x [n,4]\n out y [?,?]\n const s i[2] = 4,-1\n y = Reshape(x, s)",
            "moves elements between rows",
        ),
        Not(
            "rows flattened after others",
            17,
            "in x [n,4]\n out y [?]\n t = Transpose(x)\n const s i[1] = -1\n y = Reshape(t, s)",
            "moves elements between rows",
        ),
        Not(
            "row numbers",
            17,
            "in x [n,4]\n out y [n,4]\n sh = Shape(x)\n const i0 i[] = 0\n const o i[] = 1\n b = Gather(sh, i0)\n r = Range(i0, b, o)\n f = Cast(r) to=1\n const a i[1] = 1\n u = Unsqueeze(f, a)\n y = Add(x, u)",
            "numbers the rows",
        ),
        Not(
            "row count as a value",
            17,
            "in x [n,4]\n out y [n,4]\n sh = Shape(x) start=0 end=1\n f = Cast(sh) to=1\n y = Div(x, f)",
            "number of rows",
        ),
        Not(
            "one more than the rows",
            17,
            "in x [n,4]\n out y [?,4]\n sh = Shape(x) start=0 end=1\n const one i[1] = 1\n s = Add(sh, one)\n const w f[1,4]\n const four i[1] = 4\n t = Concat(s, four) axis=0\n y = Expand(w, t)",
            "number of rows",
        ),
        Not(
            "tiled",
            17,
            "in x [n,4]\n out y [?,4]\n const r i[2] = 2,1\n y = Tile(x, r)",
            "repeats axis 0",
        ),
    ]);
}

#[test]
fn images_sequences_and_tables() {
    all_exact(&[
        Exact(
            "cnn",
            17,
            "in x [n,1,8,8]\n out y [n,10]\n const w f[4,1,3,3]\n const s f[4]\n c = Conv(x, w, s) kernel_shape=[3,3] pads=[1,1,1,1]\n b = BatchNormalization(c, s, s, s, s)\n r = Relu(b)\n p = MaxPool(r) kernel_shape=[2,2] strides=[2,2]\n const v i[2] = -1,64\n f = Reshape(p, v)\n const g f[64,10]\n y = Gemm(f, g)",
        ),
        Exact(
            "global pool",
            17,
            "in x [n,3,h,w]\n out y [n,3]\n const k f[3,3,3,3]\n c = Conv(x, k)\n p = GlobalAveragePool(c)\n y = Flatten(p)",
        ),
        Exact(
            "resize",
            17,
            "in x [n,3,8,8]\n out y [n,3,16,16]\n const s f[4] = 1,1,2,2\n y = Resize(x, , s) mode=\"nearest\"",
        ),
        Exact(
            "resize to size",
            17,
            "in x [n,3,8,8]\n out y [n,3,16,16]\n sh = Shape(x) start=0 end=2\n const s i[2] = 16,16\n t = Concat(sh, s) axis=0\n y = Resize(x, , , t) mode=\"nearest\"",
        ),
        Exact(
            "lstm",
            17,
            "in x [n,s,4]\n out y [n,1,8]\n const w f[1,32,4]\n const r f[1,32,8]\n t = Transpose(x) perm=[1,0,2]\n a,h,c = LSTM(t, w, r) hidden_size=8\n y = Transpose(h) perm=[1,0,2]",
        ),
        Exact(
            "linear classifier",
            3,
            "in x [n,4]\n out l i[n]\n out y [n,3]\n s = ai.onnx.ml.Scaler(x)\n l,p = ai.onnx.ml.LinearClassifier(s) classlabels_ints=[0,1,2]\n y = ai.onnx.ml.Normalizer(p)",
        ),
        Exact(
            "trees",
            17,
            "in x [n,4]\n out l i[n]\n out y [n,2]\n l,p = ai.onnx.ml.TreeEnsembleClassifier(x)\n y = Cast(p) to=1",
        ),
        Exact(
            "columns",
            17,
            "in x [n,4]\n out y [n,6]\n const i i[2] = 0,3\n a = ai.onnx.ml.ArrayFeatureExtractor(x, i)\n e = ai.onnx.ml.OneHotEncoder(a) cats_int64s=[1,2,3]\n const s i[2] = -1,6\n y = Reshape(e, s)",
        ),
        Exact(
            "attention",
            24,
            "in q [n,h,s,8]\n in k [n,h,t,8]\n in m [n,1,s,t]\n out y [n,h,s,8]\n y = Attention(q, k, k, m)",
        ),
        Exact(
            "attention mask",
            24,
            "in q [n,h,s,8]\n in k [n,h,t,8]\n out y [n,h,s,8]\n const m f[4,4]\n y = Attention(q, k, k, m)",
        ),
        Exact(
            "fused",
            17,
            "in x [n,s,8]\n out y [n,s,8]\n const b f[8]\n g = com.microsoft.BiasGelu(x, b)\n y = com.microsoft.SkipLayerNormalization(g, x, b, b)",
        ),
    ]);
    none_exact(&[
        Not(
            "batch norm",
            17,
            "in x [n,3,8]\n out y [n,3,8]\n const s f[3]\n y,m,v = BatchNormalization(x, s, s, s, s) training_mode=1",
            "training",
        ),
        Not(
            "old batch norm",
            9,
            "in x [n,3,8]\n out y [n,3,8]\n const s f[3]\n y,m,v,a,b = BatchNormalization(x, s, s, s, s)",
            "training",
        ),
        Not(
            "pool indices",
            17,
            "in x [n,3,8,8]\n out y i[n,3,4,4]\n p,y = MaxPool(x) kernel_shape=[2,2] strides=[2,2]",
            "counted through all rows",
        ),
        Not(
            "rows as channels",
            17,
            "in x [n,3,8,8]\n out y [?,n,8,8]\n const k f[3,3,1,1]\n t = Transpose(x) perm=[1,0,2,3]\n y = Conv(t, k)",
            "axis 1",
        ),
        Not(
            "rows as sequence",
            17,
            "in x [n,3,4]\n out y [n,1,3,8]\n const w f[1,32,4]\n const r f[1,32,8]\n y = LSTM(x, w, r) hidden_size=8",
            "axis 0",
        ),
        Not(
            "resize rows",
            17,
            "in x [n,3]\n out y [?,3]\n const s f[2] = 2,1\n y = Resize(x, , s)",
            "scales axis 0",
        ),
        Not(
            "table of one dimension",
            17,
            "in x [n]\n out y [n]\n y = ai.onnx.ml.Normalizer(x)",
            "none",
        ),
        Not(
            "mask by rank",
            24,
            "in q [n,h,s,8]\n in m [n,s,t]\n out y [n,h,s,8]\n y = Attention(q, q, q, m)",
            "first axis is not that of the rows",
        ),
        Not(
            "dynamic product",
            17,
            "in x [n,4]\n out y [n,3]\n const w f[4,3]\n const s f[]\n y = com.microsoft.DynamicQuantizeMatMul(x, w, s)",
            "one scale",
        ),
    ]);
}

#[test]
fn models_without_rows_are_told_apart() {
    struct Case(&'static str, &'static str);
    let cases = [
        Case("in x []\n out y []\n y = Relu(x)", "output 'y' is a scalar"),
        Case("in x [2,3]\n out y [n,3]\n y = Relu(x)", "input 'x' has exactly 2"),
        Case("in x [n,3]\n out y []\n y = ReduceSum(x) keepdims=0", "output 'y' is a scalar"),
        Case("in x [n,3]\n out y [1,3]\n y = ReduceSum(x)", "output 'y' has exactly 1"),
        Case("in a [n,3]\n in b [m,3]\n out y [n,3]\n y = Add(a, b)", "'n' and 'm'"),
        Case("in x [n,n]\n out y [n,n]\n y = Relu(x)", "in a second place"),
        Case("in x [n,3]\n out y [k,n]\n y = Transpose(x)", "along axis 1"),
        Case("in x [n,3]\n out y [k]\n const s i[1] = -1\n y = Reshape(x, s)", "more than one row"),
        Case("in x [n,3]\n out y i[k]\n y = Shape(x)", "does not consist of rows"),
        Case("in x [n,3]\n out y [k]\n y = Concat() axis=0", "does not consist of rows"),
        Case(
            "in x [n,3]\n out y [k]\n const w i[1] = 4611686018427387904\n y = Split(w, w)",
            "does not consist of rows",
        ),
        Case("in w [n]\n out y [k]\n const w f[2]\n y = Relu(w)", "takes no inputs"),
    ];
    for Case(text, expected) in cases {
        match independence(text, 17) {
            RowIndependence::NoBatch { reason } => {
                assert!(reason.contains(expected), "{reason}\n{text}");
            }
            other => panic!("{other:?}\n{text}"),
        }
    }
}

#[test]
fn the_node_is_named() {
    let independence =
        independence("in x [n,4]\n out y [n,4]\n m = ReduceMean(x) axes=[0]\n y = Sub(x, m)", 17);
    assert_eq!(
        independence,
        RowIndependence::Mixed {
            node: "m".to_owned(),
            operator: "ReduceMean".to_owned(),
            reason: "reduces over axis 0, which holds the rows".to_owned(),
        }
    );
}

/// Branches in branches as deep as the reader goes, in functions that call functions as deep as is
/// followed: on the stack of an ordinary thread, such as models are loaded on.
#[test]
fn the_deepest_nesting_fits_the_stack() {
    let branch = |name: &str, nodes: &[u8]| {
        let graph = [nodes.to_vec(), field(12, field(1, "y"))].concat();
        field(5, [field(1, name), field(6, graph), int(20, 5)].concat())
    };
    let nested = |innermost: &str| {
        let mut inner = node(innermost);
        for _ in 0..30 {
            let yes = branch("then_branch", &field(1, &inner));
            let no = branch("else_branch", &field(1, node("y = Relu(x)")));
            inner = [field(1, "c"), field(2, "y"), field(4, "If"), yes, no].concat();
        }
        inner
    };
    let condition = node("c = Constant() value_int=1");
    let functions = (0..20).map(|index| {
        let body = nested(&format!("y = com.example.F{}(x)", index + 1));
        let parts = [
            field(1, format!("F{index}")),
            field(10, "com.example"),
            [field(4, "x"), field(5, "y")].concat(),
            [field(7, &condition), field(7, body)].concat(),
            field(9, [field(1, ""), int(2, 17)].concat()),
            field(9, [field(1, "com.example"), int(2, 17)].concat()),
        ];
        field(25, parts.concat())
    });
    let main = [graph("in x [n,4]\n out y [n,4]"), field(1, &condition)].concat();
    let main = [main, field(1, nested("y = com.example.F0(x)"))].concat();
    let file: Vec<u8> = model(&main, 17).into_iter().chain(functions.flatten()).collect();
    let model = crate::parse(file.into(), Path::new("test.onnx")).unwrap();
    match model.row_independence() {
        RowIndependence::Mixed { reason, .. } => {
            assert!(reason.contains("more branches and functions than are followed"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
