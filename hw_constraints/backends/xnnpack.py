"""XNNPACK's operators as its profiler spells them: what LiteRT and ExecuTorch run their delegated nodes with."""

from __future__ import annotations

import re

# The first type in an operator's name is that of the data it reads: `Convolution (NHWC, QS8, QC8W) IGEMM`,
# `Fully Connected (NC, F32) GEMM`, `Convert (NC, F32, QS8)`. QD8 and QP8 are codes made at run time from real values,
# which the operator behind them multiplies as integers. X8, X16 and X32 only say how wide the moved elements are.
# Names: `xnn_operator_type_to_string` of https://github.com/google/XNNPACK.
_PRECISION_OF = {
    "S8": "int8",
    "U8": "int8",
    "QS8": "int8",
    "QU8": "int8",
    "QC8": "int8",
    "QD8": "int8",
    "QDU8": "int8",
    "QP8": "int8",
    "PQS8": "int8",
    "F16": "float16",
    "PF16": "float16",
    "BF16": "bfloat16",
    "BF16_F32": "bfloat16",
    "F32": "float32",
    "PF32": "float32",
}
_TYPES = re.compile(r"\(([^)]*)\)")
_MULTIPLIES = re.compile(r"^(dynamic )?((de)?convolution|fully connected|batch matrix multiply)", re.IGNORECASE)


def precision_of_operator(name: str) -> str:
    """What an operator reads, by its name; `other` where that does not say."""
    types = _TYPES.search(name)
    words = [word.strip() for word in types.group(1).split(",")] if types else []
    return next((_PRECISION_OF[word] for word in words if word in _PRECISION_OF), "other")


def multiplies_weights(name: str) -> bool:
    """Whether it is a convolution or matrix product, as opposed to elementwise operators and copies."""
    return _MULTIPLIES.search(name) is not None
