"""What the parity stage found, as it stands in the record."""

from __future__ import annotations

from bitwright.experiments.record import Part


class ParityBreak(Part):
    """A layer that computes something else than that of the form that it was made from, on the same inputs.

    Attributes:
        made_from: the form that it was made from.
        link: the form that breaks.
        tensor: what the layer computes.
        op: the layer's operator.
        source: the user's line.
        error: how far off it is, in words.
        allowed: how far it may be, in words.
        edges: of the bins of both histograms; empty where there is nothing to count.
        expected_counts: values of the reference in each bin.
        found_counts: values of the form that breaks.
    """

    made_from: str
    link: str
    tensor: str
    op: str
    source: str
    error: str
    allowed: str
    edges: tuple[float, ...] = ()
    expected_counts: tuple[int, ...] = ()
    found_counts: tuple[int, ...] = ()


class ParityLayer(Part):
    """One layer of a form beside that of the form that it was made from.

    Attributes:
        tensor: what it computes.
        op: its operator.
        severity: its own error over what is allowed, given the same inputs; 1 or less agrees.
        cumulative_db: signal to noise with everything before it included.
    """

    tensor: str
    op: str
    severity: float
    cumulative_db: float


class ParityPicture(Part):
    """A result that can be looked at, of the first form and of another, and where they differ; PNG in base64."""

    result: str
    link: str
    words: str
    png: str


class ParityPair(Part):
    """Two forms of the network side by side; `problem` where one of them cannot run."""

    made_from: str
    link: str
    layers: int
    agrees: bool
    problem: str = ""
    judged: tuple[ParityLayer, ...] = ()


class ParityResult(Part):
    """Where the deployed network stops being the network.

    Attributes:
        pairs: every form beside the one that it was made from.
        breaks: the layers that break, in the order of the chain.
        unsteady: tensors that differ from run to run, which were not judged.
        inputs: how many.
        text: the same in words.
        pictures: masks and boxes on the first input, where the network gives such.
    """

    pairs: tuple[ParityPair, ...]
    breaks: tuple[ParityBreak, ...]
    unsteady: tuple[str, ...]
    inputs: int
    text: str
    pictures: tuple[ParityPicture, ...] = ()
