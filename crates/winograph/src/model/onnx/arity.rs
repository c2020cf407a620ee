//! How many inputs and outputs operators take and give. A node with more is an error: what nobody reads changes nothing, and
//! may have been meant for another operator, or for another version of it.

use super::proto::NodeProto;

/// Operators by what they take and give in the schemas of ONNX 1.19.1: `since:inputs>outputs` for each version of opsets from
/// which on it is different, at most so many, `*` where there is no limit; and the operators of which that is true.
#[rustfmt::skip]
const KNOWN: &[(&str, &str)] = &[
    ("10:1>1", "IsInf ThresholdedRelu"),
    ("10:2>1", "Mod ReverseSequence"),
    ("10:2>1 11:4>1", "Resize"),
    ("10:3>1", "DequantizeLinear QuantizeLinear"),
    ("10:4>1", "ConvInteger MatMulInteger"),
    ("10:5>1", "NonMaxSuppression"),
    ("10:8>1", "QLinearMatMul"),
    ("10:9>1", "QLinearConv"),
    ("11:*>1", "SequenceConstruct"),
    ("11:0>1", "SequenceEmpty"),
    ("11:1>1", "ConcatFromSequence Det Round SequenceLength"),
    ("11:1>3", "DynamicQuantizeLinear"),
    ("11:1>4", "Unique"),
    ("11:2>1", "BitShift CumSum GatherElements GatherND SequenceAt SequenceErase SplitToSequence"),
    ("11:3>1", "Range ScatterElements ScatterND SequenceInsert"),
    ("12:*>1", "Einsum"),
    ("12:1>1", "Celu"),
    ("12:2>1", "GreaterOrEqual LessOrEqual"),
    ("12:3>1", "NegativeLogLikelihoodLoss"),
    ("12:3>2", "SoftmaxCrossEntropyLoss"),
    ("14:1>1", "HardSwish"),
    ("14:2>1", "Trilu"),
    ("15:1>1", "Optional OptionalGetElement OptionalHasElement"),
    ("15:2>1", "CastLike"),
    ("16:2>1", "GridSample"),
    ("17:*>*", "SequenceMap"),
    ("17:1>1", "BlackmanWindow HammingWindow HannWindow"),
    ("17:3>3", "LayerNormalization"),
    ("17:5>1", "MelWeightMatrix"),
    ("18:1>1", "BitwiseNot Mish"),
    ("18:2>1", "BitwiseAnd BitwiseOr BitwiseXor CenterCropPad"),
    ("18:3>1", "Col2Im"),
    ("1:*>*", "Gradient Loop"),
    ("1:*>1", "Concat Max Mean Min Sum"),
    ("1:0>1", "Constant"),
    ("1:1>*", "If"),
    (
        "1:1>1",
        "Abs ArgMax ArgMin AveragePool Cast Ceil DepthToSpace Elu Exp Flatten Floor GlobalAveragePool \
         GlobalLpPool GlobalMaxPool HardSigmoid Hardmax Identity LRN LeakyRelu Log LogSoftmax LpNormalization \
         LpPool Neg Not Reciprocal Relu Selu Shape Sigmoid Size Softmax Softplus Softsign SpaceToDepth Sqrt Tanh \
         Transpose",
    ),
    ("1:1>1 10:5>1", "Slice"),
    ("1:1>1 11:3>1", "Clip"),
    ("1:1>1 11:3>1 18:4>1", "Pad"),
    ("1:1>1 13:2>1", "ReduceSum Squeeze Unsqueeze"),
    (
        "1:1>1 18:2>1",
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare",
    ),
    ("1:1>1 5:2>1", "Reshape"),
    ("1:1>1 8:1>2", "MaxPool"),
    ("1:1>1 9:2>1", "Upsample"),
    ("1:1>2 10:2>2", "TopK"),
    ("1:1>2 12:3>2", "Dropout"),
    ("1:2>* 2:1>* 13:2>*", "Split"),
    ("1:2>1", "Add And Div Equal Gather Greater Less MatMul Mul Or PRelu Pow Sub Xor"),
    ("1:3>1", "Conv ConvTranspose Gemm InstanceNormalization"),
    ("1:3>1 6:2>1", "Tile"),
    ("1:5>5 14:5>3", "BatchNormalization"),
    ("1:6>2", "GRU RNN"),
    ("1:8>3", "LSTM"),
    ("20:1>1", "Gelu"),
    ("20:2>1", "AffineGrid"),
    ("21:3>1", "GroupNormalization"),
    ("23:2>1", "RMSNormalization"),
    ("23:4>1", "RotaryEmbedding"),
    ("23:6>4 24:7>4", "Attention"),
    ("24:1>1", "Swish"),
    ("24:3>1", "TensorScatter"),
    ("7:1>1", "Acos Asin Atan Cos Sin Tan"),
    ("8:*>*", "Scan"),
    ("8:2>1", "Expand"),
    (
        "9:1>1",
        "Acosh Asinh Atanh ConstantOfShape Cosh Erf EyeLike IsNaN MeanVarianceNormalization NonZero Shrink Sign \
         Sinh",
    ),
    ("9:2>1", "Compress"),
    ("9:3>1", "MaxUnpool OneHot Scatter Where"),
];

/// Most inputs and outputs of an operator in a version of the operators; `None` where there is no limit, or nothing is known.
fn most(op: &str, opset: i64) -> (Option<usize>, Option<usize>) {
    let found = KNOWN.iter().find(|(_, ops)| ops.split_whitespace().any(|o| o == op));
    let mut limits = (None, None);
    for word in found.map_or("", |(forms, _)| forms).split_whitespace() {
        let (since, counts) = word.split_once(':').unwrap_or_default();
        let (inputs, outputs) = counts.split_once('>').unwrap_or_default();
        if since.parse().is_ok_and(|since: i64| since <= opset) {
            limits = (inputs.parse().ok(), outputs.parse().ok());
        }
    }
    limits
}

/// That a node has no more inputs and outputs than its operator; else what is wrong.
pub(super) fn check(node: &NodeProto, opset: i64) -> Result<(), String> {
    let (inputs, outputs) = most(&node.op_type, opset);
    check_counts(node, inputs, outputs)
}

/// The same where it is known how many there are at most.
pub(super) fn check_counts(node: &NodeProto, inputs: Option<usize>, outputs: Option<usize>) -> Result<(), String> {
    let beyond = |names: &[String], most: Option<usize>, what: &str, does: &str| {
        let most = most.filter(|&most| names.len() > most)?;
        let first = names.get(most).map_or("", String::as_str);
        Some(format!("it names {} {what}, its operator {does} at most {most}: {first:?} is none of it", names.len()))
    };
    let wrong = beyond(&node.input, inputs, "inputs", "takes");
    wrong.or_else(|| beyond(&node.output, outputs, "outputs", "gives")).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::super::ops;
    use super::*;

    #[test]
    fn known_operators_are_there_once_and_have_limits() {
        let mut all: Vec<&str> = KNOWN.iter().flat_map(|(_, ops)| ops.split_whitespace()).collect();
        let unknown =
            |op: &&&str| ["", "ai.onnx.preview.training"].iter().all(|domain| ops::find(domain, op).is_none());
        assert_eq!(all.iter().filter(unknown).collect::<Vec<_>>(), Vec::<&&str>::new());
        all.sort_unstable();
        assert!(all.windows(2).all(|w| w[0] != w[1]));
        assert_eq!(most("Clip", 6), (Some(1), Some(1)));
        assert_eq!(most("Clip", 13), (Some(3), Some(1)));
        assert_eq!(most("Concat", 13), (None, Some(1)));
        assert_eq!(most("NoSuchOperator", 13), (None, None));
    }
}
