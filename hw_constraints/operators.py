"""The operators that targets speak about, and which of their properties a constraint can name.

Names are ATen's base names in functional form, as `quant.graph` carries them.
"""

from __future__ import annotations

from bitwright.quant.graph import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

WINDOW_POOLS = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"})
ADAPTIVE_POOLS = frozenset(
    {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d"}
)
POOLS = WINDOW_POOLS | ADAPTIVE_POOLS
MATRIX_PRODUCTS = frozenset({"linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "scaled_dot_product_attention"})
# The operators that low precision is there for.
MULTIPLICATIONS = CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | MATRIX_PRODUCTS
RESIZES = frozenset(
    {
        *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d"),
        *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
    }
)
REDUCTIONS = frozenset(
    {"mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "logsumexp", "norm", "linalg_vector_norm"}
)
ALONG_AN_AXIS = frozenset(
    {
        *("cat", "stack", "softmax", "log_softmax", "split", "split_with_sizes", "chunk", "unbind", "select", "slice"),
        *("gather", "index_select", "cumsum", "topk", "sort", "argmax", "argmin", "argsort", "scatter", "scatter_add"),
        *("scatter_reduce", "glu", "unsqueeze", "squeeze", "roll", "flip", "unfold"),
    }
)
# They move or select codes and never compute with them.
MOVEMENTS = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose"),
        *("t", "movedim", "swapaxes", "contiguous", "clone", "alias", "detach", "expand", "expand_as", "repeat"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "narrow", "cat", "stack", "index_select"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "unfold", "roll", "flip", "as_strided"),
    }
)
# Functions of one element that stand behind layers.
ACTIVATIONS = frozenset(
    {
        *("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "elu", "celu", "selu", "silu", "gelu", "mish"),
        *("hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "softsign", "log_sigmoid"),
    }
)
_ELEMENTWISE = frozenset(
    {
        *(
            "add",
            "sub",
            "rsub",
            "mul",
            "div",
            "neg",
            "abs",
            "exp",
            "log",
            "sqrt",
            "rsqrt",
            "pow",
            "square",
            "sin",
            "cos",
        ),
        *("reciprocal", "floor", "ceil", "round", "sign", "erf", "clamp", "clamp_min", "clamp_max", "maximum"),
        *("minimum", "where", "masked_fill", "remainder", "floor_divide", "atan2", "log1p", "expm1", "log2", "frac"),
        *("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh", "leaky_relu"),
        *("elu", "celu", "selu", "mish", "softplus", "prelu", "_prelu_kernel", "softsign", "logit", "log_sigmoid"),
        *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or"),
        *("bitwise_not", "isnan", "isinf", "to", "_to_copy", "type_as", "lerp", "addcmul", "addcdiv", "threshold"),
    }
)
_NORMALIZATIONS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})
_PLACES = frozenset(
    {
        *("embedding", "index", "index_put", "index_add", "masked_scatter", "masked_select", "nonzero", "nms"),
        *("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "searchsorted", "bucketize", "take", "one_hot"),
        *("deform_conv2d", "roi_align", "affine_grid_generator"),
    }
)
# Their result depends on shapes and Python numbers alone, whatever tensor they take.
CREATIONS = frozenset(
    {
        *("zeros", "ones", "full", "eye", "arange", "linspace", "scalar_tensor", "zeros_like", "ones_like"),
        *("full_like", "new_zeros", "new_ones", "new_full", "empty", "new_empty", "empty_like"),
    }
)
_OTHERS = frozenset(
    {
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "einsum", "linalg_cross", "cross", "inverse", "linalg_inv"),
        *("linalg_inv_ex", "linalg_solve", "linalg_solve_ex", "linalg_svd", "linalg_qr", "linalg_eigh"),
        *("fft_rfft", "fft_irfft", "tril", "triu", "meshgrid", "fill", "slice_scatter", "select_scatter", "copy"),
        *("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
        *("im2col", "col2im", "cdist", "dropout", "multinomial", "rand", "randn", "bernoulli", "any", "all", "item"),
    }
)

OPERATORS: frozenset[str] = frozenset(
    CONVOLUTIONS
    | TRANSPOSED_CONVOLUTIONS
    | POOLS
    | MATRIX_PRODUCTS
    | RESIZES
    | REDUCTIONS
    | ALONG_AN_AXIS
    | MOVEMENTS
    | _ELEMENTWISE
    | _NORMALIZATIONS
    | _PLACES
    | CREATIONS
    | _OTHERS
)

_ALWAYS = frozenset(
    {
        *("dtype", "rank", "batch", "channels", "depth", "height", "width", "out_height", "out_width"),
        *("elements", "largest_dim", "inputs", "rows"),
    }
)
_WINDOW = frozenset(f"{name}_{axis}" for name in ("kernel", "stride", "dilation", "padding") for axis in "dhw")
_CHANNELS = frozenset({"groups", "in_channels", "out_channels", "channels_per_group", "depthwise", "taps"})


def properties_of(op: str) -> frozenset[str]:
    """The property names that a constraint on `op` can use; `node_properties.properties` computes them."""
    names = _ALWAYS
    if op in CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS:
        names |= _WINDOW | _CHANNELS
    if op in POOLS:
        names |= _WINDOW
    if op in MATRIX_PRODUCTS:
        names |= {"in_features", "out_features"}
    if op in RESIZES:
        names |= {"scale_d", "scale_h", "scale_w", "align_corners"}
    if op in REDUCTIONS:
        names |= {"reduced_elements", "largest_reduced_dim"}
    if op in ALONG_AN_AXIS:
        names |= {"axis"}
    return names
