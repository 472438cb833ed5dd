"""The small parts of a target file: names that are checked against what exists, and figures with unit and source."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from bitwright.hw_constraints.operators import OPERATORS
from bitwright.hw_constraints.predicate import Predicate
from bitwright.hw_constraints.quantity import Dimension, Quantity, parse_quantity
from bitwright.quant.errors import suggestion
from bitwright.quant.formats import FORMATS


def _known_operator(name: str) -> str:
    if name not in OPERATORS:
        raise ValueError(f"no such operator type{suggestion(name, OPERATORS)}")
    return name


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"accepts {', '.join(FORMATS)}{suggestion(name, FORMATS)}")
    return name


def _parsed_predicate(text: Any) -> Predicate:
    if not isinstance(text, str):
        raise ValueError("expected a condition such as kernel_h <= 32")
    return Predicate.parse(text)


def _expanded_pattern(text: Any) -> tuple[tuple[str, ...], ...]:
    """`conv1d|conv2d -> relu` stands for the chains (conv1d, relu) and (conv2d, relu)."""
    if not isinstance(text, str) or "->" not in text:
        raise ValueError("expected a chain such as conv2d -> batch_norm -> relu")
    steps = [[_known_operator(name.strip()) for name in step.split("|")] for step in text.split("->")]
    choices = [list(dict.fromkeys(names)) for names in steps]
    if prod(map(len, choices)) > _MOST_CHAINS:
        raise ValueError(f"stands for more than {_MOST_CHAINS} chains; write several")
    return tuple(product(*choices))


_MOST_CHAINS = 1000  # a pattern of n operators with k choices each stands for k ** n chains


def quantity(*dimensions: Dimension) -> BeforeValidator:
    """Reads a quantity of one of the dimensions."""

    def parse(value: Any) -> Quantity:
        if not isinstance(value, str):
            raise ValueError(f"the unit is missing; write for example '{value} {dimensions[0].value}'")
        return parse_quantity(value, *dimensions)

    return BeforeValidator(parse)


OperatorName = Annotated[str, AfterValidator(_known_operator)]
FormatName = Annotated[str, AfterValidator(_known_format)]
Chains = Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_expanded_pattern)]
Condition = Annotated[Predicate, BeforeValidator(_parsed_predicate)]
Count = Annotated[StrictInt, Field(ge=1, le=1 << 40)]


class Strict(BaseModel):
    """Keys that are not listed are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class SourceFile(Strict):
    """Where a statement was read."""

    title: str = Field(min_length=1)
    url: str | None = None


class Sourced(Strict):
    """Something that names its source.

    Attributes:
        source: a key of the file's `sources`.
        verified: whether it was read there or measured, rather than taken on trust.
    """

    source: str
    verified: StrictBool


class FigureFile(Sourced):
    """A number of any dimension."""

    value: Annotated[Quantity, quantity(*Dimension)]


class SizeFile(FigureFile):
    """A size in bytes."""

    value: Annotated[Quantity, quantity(Dimension.SIZE)]


class BandwidthFile(FigureFile):
    """Bytes per second, or per cycle of the clock of what moves them."""

    value: Annotated[Quantity, quantity(Dimension.BANDWIDTH, Dimension.BYTES_PER_CYCLE)]


class FrequencyFile(FigureFile):
    """A clock."""

    value: Annotated[Quantity, quantity(Dimension.FREQUENCY)]


class MacsFile(FigureFile):
    """Multiply-accumulates per cycle."""

    value: Annotated[Quantity, quantity(Dimension.MACS_PER_CYCLE)]


class ElementsFile(FigureFile):
    """Results per cycle."""

    value: Annotated[Quantity, quantity(Dimension.ELEMENTS_PER_CYCLE)]


class RateFile(FigureFile):
    """Operations per second; a multiply-accumulate is two."""

    value: Annotated[Quantity, quantity(Dimension.OPERATIONS_RATE)]


class PowerFile(FigureFile):
    """Watts."""

    value: Annotated[Quantity, quantity(Dimension.POWER)]


class LatencyFile(FigureFile):
    """A latency in cycles of the engine's clock, or in time."""

    value: Annotated[Quantity, quantity(Dimension.CYCLES, Dimension.TIME)]


class ByteEnergyFile(FigureFile):
    """Energy of moving one byte."""

    value: Annotated[Quantity, quantity(Dimension.ENERGY_PER_BYTE)]


class MacEnergyFile(FigureFile):
    """Energy of one multiply-accumulate."""

    value: Annotated[Quantity, quantity(Dimension.ENERGY_PER_MAC)]
