"""What `bitwright parity --json` prints, and its published schema, `parity.schema.json`.

The schema is generated from these models: `python -m bitwright.experiments.parity_document` prints it, and a test
compares it with the committed one. A key that changes its meaning or goes away makes another `format`.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import ConfigDict, Field

from bitwright.experiments.record import Part

FORMAT: Literal["bitwright-parity/1"] = "bitwright-parity/1"


class _Named(Part):
    """A part with the keys `from` and `to`; the former is no name in Python."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    origin: str = Field(alias="from", description="The link that the other one was made from.")
    to: str = Field(description="The link that is compared with it.")


class FirstBreak(_Named):
    """Where the network stops being itself.

    Attributes:
        layer: the first tensor to blame; None where only results differ or a link cannot run.
        advice: what to do.
    """

    layer: str | None
    advice: str


class ComparedLayer(Part):
    """One tensor that both links have.

    Attributes:
        tensor: its name in the first link.
        other_name: in the second.
        op: the operator that makes it; empty for inputs.
        module_path: the user's module.
        source: the user's line.
        agrees: whether the layer is not to blame.
        error: given the same inputs, in words; None where no link takes tensors, so that layers are not judged.
        allowed: what is allowed, and why.
        where: the part of the tensor that holds all that is off; empty where that is everywhere.
        own_sqnr_db: signal to noise of the layer alone.
        cumulative_sqnr_db: with everything before it included.
        reproducer: a script that fails, where `--out` asked for one.
    """

    tensor: str
    other_name: str
    op: str
    module_path: str
    source: str
    agrees: bool
    error: str | None
    allowed: str | None
    where: str
    own_sqnr_db: float | None
    cumulative_sqnr_db: float
    reproducer: str | None


class ComparedResult(Part):
    """One result of the network; where layers are judged they say whether it agrees."""

    agrees: bool
    error: str
    allowed: str
    sqnr_db: float


class ComparedPair(_Named):
    """Two links.

    Attributes:
        agrees: whether they are one network.
        problem: why nothing could be compared; empty when it could.
        unsteady: tensors and results that differ from run to run, which are not judged.
        tensors_of_one_only: how many tensors of either link the other does not have.
        layers: in running order.
        results: by name.
    """

    agrees: bool
    problem: str
    unsteady: tuple[str, ...]
    tensors_of_one_only: tuple[int, int]
    layers: tuple[ComparedLayer, ...]
    results: dict[str, ComparedResult]


class ParityDocument(Part):
    """A comparison of two sides, link by link.

    Attributes:
        format: the name and version of this form.
        agrees: whether every link is the network; the command's exit code is 0 then, else 1.
        unlike_weights: weights that differ between the two sides; where most do, nothing was compared.
        bisected: what `--bisect` found, in lines.
        inputs: on how many inputs.
        first_break: None where there is none.
        pairs: in the order of the chain.
    """

    format: Literal["bitwright-parity/1"] = FORMAT
    agrees: bool
    unlike_weights: tuple[str, ...]
    bisected: tuple[str, ...]
    inputs: int
    first_break: FirstBreak | None
    pairs: tuple[ComparedPair, ...]


def schema() -> str:
    """The JSON schema of the document."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ParityDocument.model_json_schema()}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
