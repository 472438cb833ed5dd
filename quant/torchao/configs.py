"""A configuration for torchao's `quantize_` as one of our schemes: linear layers with weights in few bits.

Formats and who shares a scale are the configuration's; scales are chosen by our rules, whose symmetric range ends at
the largest code (`max |w| / 127`) where torchao's ends half a step beyond it (`max |w| / 127.5`). A model that
torchao has converted already keeps torchao's own scales: `weights.import_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.quant.errors import InputError, MissingExtraError
from bitwright.quant.formats import FORMATS
from bitwright.quant.scheme import BiasKind, Granularity, Override, QParamsSpec, QuantScheme

try:
    from torchao import quantization as ao
    from torchao.quantization.granularity import PerAxis, PerGroup, PerRow, PerTensor
except ImportError:
    raise MissingExtraError("reading torchao's configurations", "torchao") from None

_FLOAT32 = QParamsSpec(format=FORMATS["float32"], symmetric=True)
_READ = ("Int8WeightOnlyConfig", "Int4WeightOnlyConfig", "IntxWeightOnlyConfig", "Float8WeightOnlyConfig")


def scheme_of(config: Any, name: str = "torchao") -> QuantScheme:
    """What `quantize_(model, config)` asks for; of `FqnToConfig` each entry becomes an override of its layer.

    Args:
        config: of the kinds in `_READ`, or an `FqnToConfig` of them.
        name: of the scheme, for messages.

    Raises:
        InputError: another kind of configuration, or something in it that no spec of ours can say.
    """
    if not isinstance(config, ao.FqnToConfig):
        return _scheme(name, weight_spec(config))
    entries = dict(config.fqn_to_config)
    default = entries.pop("_default", None)
    overrides = [_override(fqn, each) for fqn, each in entries.items()]
    specs = [each.weights for each in overrides if each.weights is not None]
    if default is not None:
        return _scheme(name, weight_spec(default), *overrides)
    if not specs:
        raise InputError("FqnToConfig({…}) names no layer with a configuration; nothing would be quantized")
    others = Override(module="*", keep_float=True, origin="torchao's FqnToConfig, which does not name it")
    return _scheme(name, specs[0], others, *overrides)


def weight_spec(config: Any) -> QParamsSpec:
    """How a configuration has the weights of its layers.

    Int4WeightOnlyConfig has a real number as zero point, `w = q s + z`; the nearest that integer arithmetic knows is
    a whole one, `w = (q - z) s`, which this asks for.

    Raises:
        InputError: see `scheme_of`.
    """
    kind = type(config).__name__
    if isinstance(config, ao.Int8WeightOnlyConfig):
        return _spec(kind, "int8", config.granularity)
    if isinstance(config, ao.Int4WeightOnlyConfig):
        return _spec(kind, "int4", PerGroup(config.group_size), symmetric=False)
    if isinstance(config, ao.IntxWeightOnlyConfig):
        own = str(config.weight_dtype).removeprefix("torch.")
        return _spec(kind, own, config.granularity, symmetric=config.mapping_type is not ao.MappingType.ASYMMETRIC)
    if isinstance(config, ao.Float8WeightOnlyConfig):
        return _spec(kind, str(config.weight_dtype).removeprefix("torch."), config.granularity)
    raise InputError(f"{kind} is no configuration of weights alone that is read here; there are: {', '.join(_READ)}")


def _spec(kind: str, fmt: str, granularity: Any, *, symmetric: bool = True) -> QParamsSpec:
    if fmt not in FORMATS:
        raise InputError(f"{kind}: weights of type {fmt}; there are: {', '.join(FORMATS)}")
    settings: Mapping[str, Any] = {"format": FORMATS[fmt], "symmetric": symmetric}
    if isinstance(granularity, PerTensor):
        return QParamsSpec(**settings)
    if isinstance(granularity, PerRow | PerAxis):
        return QParamsSpec(**settings, granularity=Granularity.PER_CHANNEL)
    if isinstance(granularity, PerGroup):
        return QParamsSpec(**settings, granularity=Granularity.PER_BLOCK, block_size=granularity.group_size)
    raise InputError(f"{kind}: granularity {granularity}; there are: PerTensor, PerRow, PerAxis(0), PerGroup(n)")


def _override(fqn: str, config: Any) -> Override:
    if fqn.startswith("re:"):
        raise InputError(f"FqnToConfig: key {fqn!r} is a regular expression; name each layer by its path")
    module, origin = fqn.removesuffix(".weight"), f"torchao's FqnToConfig, key {fqn!r}"
    if config is None:
        return Override(module=module, keep_float=True, origin=origin)
    return Override(module=module, weights=weight_spec(config), origin=origin)


def _scheme(name: str, weights: QParamsSpec, *overrides: Override) -> QuantScheme:
    return QuantScheme(
        name=name,
        activations=_FLOAT32,
        weights=weights,
        bias=BiasKind.FLOAT32,
        quantized_operators=frozenset({"linear"}),
        overrides=overrides,
    )
