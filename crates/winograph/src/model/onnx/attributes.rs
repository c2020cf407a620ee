//! The attributes of operators and what they hold. Others, and values of another type, are errors: a misspelt attribute that
//! is not read would change nothing, and an integer of a node that holds a float is 0.

use super::proto::{AttributeProto, NodeProto};

/// Attributes that operators have or had, `name:type`, in the schemas of ONNX 1.19.1 of all versions of opsets; sorted. Those
/// of ONNX Runtime are among them. Operators without any are left out. Many say nothing that matters here (`consumed_inputs`)
/// or that later versions have as an input.
#[rustfmt::skip]
const KNOWN: &[(&str, &str)] = &[
    ("Abs", "consumed_inputs:ints"),
    ("Add", "axis:int broadcast:int consumed_inputs:ints"),
    ("Affine", "alpha:float beta:float"),
    ("AffineGrid", "align_corners:int"),
    ("And", "axis:int broadcast:int"),
    ("ArgMax", "axis:int keepdims:int select_last_index:int"),
    ("ArgMin", "axis:int keepdims:int select_last_index:int"),
    (
        "Attention",
        "is_causal:int kv_num_heads:int q_num_heads:int qk_matmul_output_mode:int scale:float softcap:float \
         softmax_precision:int",
    ),
    (
        "AveragePool",
        "auto_pad:string ceil_mode:int count_include_pad:int dilations:ints kernel_shape:ints pads:ints \
         strides:ints",
    ),
    (
        "BatchNormalization",
        "consumed_inputs:ints epsilon:float is_test:int momentum:float spatial:int training_mode:int",
    ),
    ("BitShift", "direction:string"),
    ("BlackmanWindow", "output_datatype:int periodic:int"),
    ("Cast", "round_mode:string saturate:int to:int|string"),
    ("CastLike", "round_mode:string saturate:int"),
    ("Ceil", "consumed_inputs:ints"),
    ("Celu", "alpha:float"),
    ("CenterCropPad", "axes:ints"),
    ("Clip", "consumed_inputs:ints max:float min:float"),
    ("Col2Im", "dilations:ints pads:ints strides:ints"),
    ("Compress", "axis:int"),
    ("Concat", "axis:int"),
    ("ConcatFromSequence", "axis:int new_axis:int"),
    (
        "Constant",
        "sparse_value:sparse value:tensor value_float:float value_floats:floats value_int:int value_ints:ints \
         value_string:string value_strings:strings",
    ),
    ("ConstantOfShape", "value:tensor"),
    ("Conv", "auto_pad:string dilations:ints group:int kernel_shape:ints pads:ints strides:ints"),
    ("ConvInteger", "auto_pad:string dilations:ints group:int kernel_shape:ints pads:ints strides:ints"),
    (
        "ConvTranspose",
        "auto_pad:string dilations:ints group:int kernel_shape:ints output_padding:ints output_shape:ints \
         pads:ints strides:ints",
    ),
    ("CumProd", "exclusive:int reverse:int"),
    ("CumSum", "exclusive:int reverse:int"),
    ("DepthToSpace", "blocksize:int mode:string"),
    ("DequantizeLinear", "axis:int block_size:int output_dtype:int"),
    ("Div", "axis:int broadcast:int consumed_inputs:ints"),
    ("Dropout", "consumed_inputs:ints is_test:int ratio:float seed:int"),
    ("Einsum", "equation:string"),
    ("Elu", "alpha:float consumed_inputs:ints"),
    ("Equal", "axis:int broadcast:int"),
    ("Exp", "consumed_inputs:ints"),
    ("EyeLike", "dtype:int k:int"),
    ("Flatten", "axis:int"),
    ("Floor", "consumed_inputs:ints"),
    (
        "GRU",
        "activation_alpha:floats activation_beta:floats activations:strings clip:float direction:string \
         hidden_size:int layout:int linear_before_reset:int output_sequence:int",
    ),
    ("Gather", "axis:int"),
    ("GatherElements", "axis:int"),
    ("GatherND", "batch_dims:int"),
    ("Gelu", "approximate:string"),
    ("Gemm", "alpha:float beta:float broadcast:int transA:int transB:int"),
    ("GlobalLpPool", "p:float|int"),
    ("Gradient", "xs:strings y:string zs:strings"),
    ("Greater", "axis:int broadcast:int"),
    ("GridSample", "align_corners:int mode:string padding_mode:string"),
    ("GroupNormalization", "epsilon:float num_groups:int stash_type:int"),
    ("HammingWindow", "output_datatype:int periodic:int"),
    ("HannWindow", "output_datatype:int periodic:int"),
    ("HardSigmoid", "alpha:float beta:float consumed_inputs:ints"),
    ("Hardmax", "axis:int"),
    ("If", "else_branch:graph then_branch:graph"),
    ("InstanceNormalization", "consumed_inputs:ints epsilon:float"),
    ("IsInf", "detect_negative:int detect_positive:int"),
    ("LRN", "alpha:float beta:float bias:float size:int"),
    (
        "LSTM",
        "activation_alpha:floats activation_beta:floats activations:strings clip:float direction:string \
         hidden_size:int input_forget:int layout:int output_sequence:int",
    ),
    ("LayerNormalization", "axis:int epsilon:float stash_type:int"),
    ("LeakyRelu", "alpha:float consumed_inputs:ints"),
    ("Less", "axis:int broadcast:int"),
    ("Log", "consumed_inputs:ints"),
    ("LogSoftmax", "axis:int"),
    ("Loop", "body:graph"),
    ("LpNormalization", "axis:int p:int"),
    ("LpPool", "auto_pad:string ceil_mode:int dilations:ints kernel_shape:ints p:float|int pads:ints strides:ints"),
    ("Max", "consumed_inputs:ints"),
    (
        "MaxPool",
        "auto_pad:string ceil_mode:int dilations:ints kernel_shape:ints pads:ints storage_order:int strides:ints",
    ),
    ("MaxUnpool", "kernel_shape:ints pads:ints strides:ints"),
    ("Mean", "consumed_inputs:ints"),
    ("MeanVarianceNormalization", "axes:ints"),
    ("MelWeightMatrix", "output_datatype:int"),
    ("Min", "consumed_inputs:ints"),
    ("Mod", "fmod:int"),
    ("Mul", "axis:int broadcast:int consumed_inputs:ints"),
    ("Neg", "consumed_inputs:ints"),
    ("NegativeLogLikelihoodLoss", "ignore_index:int reduction:string"),
    ("NonMaxSuppression", "center_point_box:int"),
    ("OneHot", "axis:int"),
    ("Optional", "type:type"),
    ("Or", "axis:int broadcast:int"),
    ("PRelu", "consumed_inputs:ints"),
    ("Pad", "mode:string paddings:ints pads:ints value:float"),
    ("Pow", "axis:int broadcast:int"),
    ("QLinearConv", "auto_pad:string dilations:ints group:int kernel_shape:ints pads:ints strides:ints"),
    ("QuantizeLinear", "axis:int block_size:int output_dtype:int precision:int saturate:int"),
    ("RMSNormalization", "axis:int epsilon:float stash_type:int"),
    (
        "RNN",
        "activation_alpha:floats activation_beta:floats activations:strings clip:float direction:string \
         hidden_size:int layout:int output_sequence:int",
    ),
    ("Reciprocal", "consumed_inputs:ints"),
    ("ReduceL1", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceL2", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceLogSum", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceLogSumExp", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceMax", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceMean", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceMin", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceProd", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceSum", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("ReduceSumSquare", "axes:ints keepdims:int noop_with_empty_axes:int"),
    ("Relu", "consumed_inputs:ints"),
    ("Reshape", "allowzero:int consumed_inputs:ints shape:ints"),
    (
        "Resize",
        "antialias:int axes:ints coordinate_transformation_mode:string cubic_coeff_a:float exclude_outside:int \
         extrapolation_value:float keep_aspect_ratio_policy:string mode:string nearest_mode:string",
    ),
    ("ReverseSequence", "batch_axis:int time_axis:int"),
    ("RotaryEmbedding", "interleaved:int num_heads:int rotary_embedding_dim:int"),
    ("ScaledTanh", "alpha:float beta:float consumed_inputs:ints"),
    (
        "Scan",
        "body:graph directions:ints num_scan_inputs:int scan_input_axes:ints scan_input_directions:ints \
         scan_output_axes:ints scan_output_directions:ints",
    ),
    ("Scatter", "axis:int"),
    ("ScatterElements", "axis:int reduction:string"),
    ("ScatterND", "reduction:string"),
    ("Selu", "alpha:float consumed_inputs:ints gamma:float"),
    ("SequenceEmpty", "dtype:int"),
    ("SequenceMap", "body:graph"),
    ("Shape", "end:int start:int"),
    ("Shrink", "bias:float lambd:float"),
    ("Sigmoid", "consumed_inputs:ints"),
    ("SimplifiedLayerNormalization", "axis:int epsilon:float stash_type:int"),
    ("Slice", "axes:ints ends:ints starts:ints"),
    ("Softmax", "axis:int"),
    ("SoftmaxCrossEntropyLoss", "ignore_index:int reduction:string"),
    ("SpaceToDepth", "blocksize:int"),
    ("Split", "axis:int num_outputs:int split:ints"),
    ("SplitToSequence", "axis:int keepdims:int"),
    ("Sqrt", "consumed_inputs:ints"),
    ("Squeeze", "axes:ints"),
    ("Sub", "axis:int broadcast:int consumed_inputs:ints"),
    ("Sum", "consumed_inputs:ints"),
    ("Swish", "alpha:float"),
    ("Tanh", "consumed_inputs:ints"),
    ("TensorScatter", "axis:int mode:string"),
    ("ThresholdedRelu", "alpha:float"),
    ("TopK", "axis:int k:int largest:int sorted:int"),
    ("Transpose", "perm:ints"),
    ("Trilu", "upper:int"),
    ("Unique", "axis:int sorted:int"),
    ("Unsqueeze", "axes:ints"),
    ("Upsample", "height_scale:float mode:string scales:floats width_scale:float"),
    ("Xor", "axis:int broadcast:int"),
];

/// Types by their number in `AttributeProto.AttributeType`, as [`KNOWN`] calls them, and as messages do.
const TYPES: [(&str, &str); 15] = [
    ("", "nothing"),
    ("float", "a float"),
    ("int", "an integer"),
    ("string", "a string"),
    ("tensor", "a tensor"),
    ("graph", "a graph"),
    ("floats", "a list of floats"),
    ("ints", "a list of integers"),
    ("strings", "a list of strings"),
    ("tensors", "a list of tensors"),
    ("graphs", "a list of graphs"),
    ("sparse", "a sparse tensor"),
    ("sparses", "a list of sparse tensors"),
    ("type", "a type"),
    ("types", "a list of types"),
];

/// The names of `op`'s attributes with their types.
fn known(op: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let found = KNOWN.binary_search_by_key(&op, |entry| entry.0).ok().and_then(|at| KNOWN.get(at));
    found.map_or("", |entry| entry.1).split_whitespace().filter_map(|word| word.split_once(':'))
}

/// The type of a value, by its number; files of ONNX's first version do not state it, and where such a value is 0 or empty it
/// may be any: `None`.
fn type_of(a: &AttributeProto) -> Option<usize> {
    let stated = usize::try_from(a.kind).ok().filter(|&kind| kind > 0);
    let there = [a.f != 0.0, a.i != 0, !a.s.is_empty(), a.t.is_some(), a.g.is_some(), !a.floats.is_empty()];
    let there = there.into_iter().chain([!a.ints.is_empty(), !a.strings.is_empty()]).position(|there| there);
    stated.or(there.map(|at| at + 1))
}

/// A type as messages call it, and a value of it.
fn described(a: &AttributeProto, kind: usize) -> String {
    let text = |s: &[u8]| String::from_utf8_lossy(s).into_owned();
    let value = match kind {
        1 => format!("{:?}", a.f),
        2 => a.i.to_string(),
        3 => format!("{:?}", text(&a.s)),
        6 => format!("{:?}", a.floats),
        7 => format!("{:?}", a.ints),
        8 => format!("{:?}", a.strings.iter().map(|s| text(s)).collect::<Vec<_>>()),
        _ => String::new(),
    };
    let name = TYPES.get(kind).map_or("a value of an unknown type", |t| t.1);
    match value.char_indices().nth(60) {
        Some((end, _)) => format!("{}.. ({name})", &value[..end]),
        None if value.is_empty() => name.to_string(),
        None => format!("{value} ({name})"),
    }
}

/// That all attributes of a node are ones that its operator has, and hold what they should; else what is wrong.
pub(super) fn check(node: &NodeProto) -> Result<(), String> {
    for a in node.attribute.iter().filter(|a| !is_private(&a.name)) {
        let Some((_, types)) = known(&node.op_type).find(|(name, _)| *name == a.name) else {
            return Err(unknown(&a.name, &known(&node.op_type).map(|(name, _)| name).collect::<Vec<_>>()));
        };
        let expected = |kind: usize| types.split('|').any(|t| TYPES.get(kind).is_some_and(|known| known.0 == t));
        if let Some(kind) = type_of(a).filter(|&kind| !expected(kind)) {
            let named = |t: &str| TYPES.iter().find(|known| known.0 == t).map_or("", |known| known.1);
            let expected = types.split('|').map(named).collect::<Vec<_>>().join(" or ");
            return Err(format!("its attribute {:?} is {}, where {expected} is expected", a.name, described(a, kind)));
        }
    }
    Ok(())
}

/// That all attributes of a node are ones that the model's function which it calls has; else what is wrong.
pub(super) fn check_call(node: &NodeProto, names: &[&str]) -> Result<(), String> {
    let strange = node.attribute.iter().find(|a| !is_private(&a.name) && !names.contains(&a.name.as_str()));
    strange.map_or(Ok(()), |a| Err(unknown(&a.name, names)))
}

/// Whether an attribute is a tool's own note, which ONNX's checker leaves alone.
fn is_private(name: &str) -> bool {
    name.starts_with("__")
}

fn unknown(name: &str, names: &[&str]) -> String {
    match names {
        [] => format!("its attribute {name:?} is none of this operator, which has no attributes"),
        _ => format!("its attribute {name:?} is none of this operator, whose attributes are {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops;
    use super::*;

    #[test]
    fn known_attributes_are_sorted_and_of_operators_and_types_that_there_are() {
        assert!(KNOWN.windows(2).all(|w| w[0].0 < w[1].0));
        for (op, attributes) in KNOWN {
            let domain = if *op == "Gradient" { "ai.onnx.preview.training" } else { "" };
            assert!(ops::find(domain, op).is_some(), "{op}");
            assert_eq!(known(op).count(), attributes.split_whitespace().count(), "{op}");
            for (name, types) in known(op) {
                assert!(types.split('|').all(|t| TYPES.iter().any(|known| known.0 == t)), "{op} {name}");
            }
        }
    }

    #[test]
    fn values_without_a_type_are_taken_for_what_they_hold() {
        let strides = |a: AttributeProto| {
            let attribute = vec![AttributeProto { name: "strides".into(), ..a }];
            check(&NodeProto { op_type: "Conv".into(), attribute, ..NodeProto::default() })
        };
        assert!(strides(AttributeProto { ints: vec![1, 2], ..AttributeProto::default() }).is_ok());
        assert!(strides(AttributeProto::default()).is_ok());
        let told = strides(AttributeProto { f: 1.5, ..AttributeProto::default() }).unwrap_err();
        assert!(told.contains("1.5 (a float)") && told.contains("a list of integers is expected"), "{told}");
    }
}
