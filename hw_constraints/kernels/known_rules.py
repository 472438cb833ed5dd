"""Rules of the runtime versions that this release was probed with."""

from __future__ import annotations

from bitwright.hw_constraints.kernels.rules import FusionRules
from bitwright.quant.errors import InputError

_CONVOLUTIONS = ("conv", "pointwise", "depthwise", "grouped")
_FOLLOW = ("pool", "global_pool", "concat", "elementwise", "activation", "resize")
_FORMATS = ("float32", "int8")
_UNARY = frozenset({"relu", "clip", "sigmoid", "tanh", "leakyrelu", "hardsigmoid"})
# OpenVINO compiles chains of these into one loop (`Subgraph`), with conversions from and to codes at its ends.
_CODE_GENERATED = frozenset(
    {
        *("relu", "clip", "sigmoid", "tanh", "leakyrelu", "hardsigmoid", "hardswish", "gelu", "elu", "silu"),
        *("erf", "exp", "sqrt", "abs", "neg", "softplus", "mish"),
    }
)
# Of OpenVINO's operators that follow the layout of what they read, those whose families do not.
_FOLLOWING = ("batchnormalization", "dequantizelinear", "quantizelinear", "slice", "split")
_BEHIND_SUM = frozenset({"relu", "sigmoid", "tanh", "hardsigmoid", "hardswish"})
_NEVER_BLOCKED = (
    *("leakyrelu", "clip", "hardswish", "elu", "erf", "softplus", "mish", "sqrt", "exp"),
    *("abs", "neg", "log", "reciprocal"),
)
_IN_CODES = frozenset(
    {
        *("conv", "gemm", "matmul", "add", "globalaveragepool", "averagepool", "maxpool", "concat"),
        *("reshape", "flatten", "squeeze", "unsqueeze", "transpose"),
    }
)


def known_rules(runtime: str) -> FusionRules:
    """What was found on the version that this release was probed with.

    Raises:
        InputError: this runtime was not.
    """
    follow = {f"{family}/{fmt}": "any" for family in _FOLLOW for fmt in _FORMATS}
    if runtime == "onnxruntime":
        return FusionRules(
            runtime=runtime,
            version="1.31.1",
            epilogues={
                **{
                    f"{family}/float32": _UNARY | {"add", "batchnormalization", "hardswish"} for family in _CONVOLUTIONS
                },
                "view/float32": frozenset({"reshape", "flatten", "squeeze", "unsqueeze"}),
                "transpose/float32": frozenset({"transpose"}),
                "transpose/int8": frozenset({"transpose"}),
                **{f"{family}+add/float32": _BEHIND_SUM for family in _CONVOLUTIONS},
                **{f"{family}/int8": frozenset({"batchnormalization"}) for family in _CONVOLUTIONS},
                "linear/int8": frozenset({"dequantize"}),
                "linear/float32": frozenset({"relu"}),
            },
            in_codes=_IN_CODES | {"mul", "sigmoid", "leakyrelu", "softmax", "resize/nearest"},
            composites=frozenset({"silu"}),
            bounds_left_to_codes=True,
            converts_weights_at_load=False,
            layouts={
                **follow,
                **{f"{name}/int8": "any_but_blocked" for name in ("quantize", "dequantize")},
                **{f"{family}/float32": "blocked" for family in _CONVOLUTIONS},
                **{f"{family}/int8": "channels_last" for family in _CONVOLUTIONS},
                **{f"{name}/float32": "any_but_blocked" for name in _NEVER_BLOCKED},
            },
            vector=16,
            blocked_multiple=4,
        )
    if runtime == "openvino":
        fused = (_UNARY - {"hardsigmoid"}) | {
            "add",
            "batchnormalization",
            "hardswish",
            "gelu",
            "elu",
            "silu",
            "quantize",
        }
        return FusionRules(
            runtime=runtime,
            version="2026.4.1",
            epilogues={
                **{f"{family}/float32": fused for family in _CONVOLUTIONS},
                **{f"{family}+add/float32": (fused | {"hardsigmoid"}) - {"add"} for family in _CONVOLUTIONS},
                **{
                    f"{family}/int8": frozenset({"batchnormalization", "requantize+add", "dequantize", "relu", "clip"})
                    for family in _CONVOLUTIONS
                },
                "linear/int8": frozenset({"dequantize"}),
                "linear/float32": frozenset({"relu", "gelu", "quantize"}),
                **{f"{family}/float32": _CODE_GENERATED | {"quantize"} for family in ("elementwise", "activation")},
                "elementwise/int8": _CODE_GENERATED | {"dequantize"},
                "activation/int8": _CODE_GENERATED | {"dequantize", "requantize+add"},
                **{
                    f"{family}/float32": frozenset({"quantize"}) for family in ("pool", "global_pool", "norm", "resize")
                },
                "batchnormalization/float32": _CODE_GENERATED | {"quantize"},  # a product and a sum like any other
                "attention/float32": frozenset({"transpose", "quantize"}),
            },
            in_codes=_IN_CODES | _CODE_GENERATED | {"mul", "sub", "div", "resize/nearest"},
            quantizes_before=frozenset({"concat"}),
            free=frozenset({"reshape", "flatten", "squeeze", "unsqueeze"}),
            composites=frozenset({"silu", "silu/int8", "attention"}),
            zero_points_matter=True,
            layouts={
                **follow,
                **{f"{family}/{fmt}": "channels_last" for family in _CONVOLUTIONS for fmt in _FORMATS},
                **{f"{op}/{fmt}": "any" for op in _FOLLOWING for fmt in _FORMATS},
            },
            vector=16,
        )
    raise InputError(f"runtime {runtime!r}: what it fuses is not known; there are: onnxruntime, openvino")
