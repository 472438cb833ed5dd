"""All links in a row: which is the first that is not the network any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitwright.quant.errors import InputError
from bitwright.quant.parity.link import Link, LinkError
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs


@dataclass(frozen=True, kw_only=True)
class ChainParity:
    """Each link beside the one before it.

    Attributes:
        pairs: in the order of the chain; one that cannot run has its `problem`, and the next one is compared with the
            last that could.
    """

    pairs: tuple[LinkParity, ...]

    @property
    def first_break(self) -> LinkParity | None:
        """Where the deployed network stops being the network."""
        return next((pair for pair in self.pairs if not pair.agrees), None)

    @property
    def agrees(self) -> bool:
        """Whether every link is the network."""
        return self.first_break is None


def compare_chain(
    links: Sequence[Link], inputs: Sequence[Inputs], *, progress: Callable[[str], None] | None = None
) -> ChainParity:
    """Compares neighbours.

    Args:
        links: the reference first.
        inputs: what to run them on; not empty.
        progress: called with the names of each pair before it runs.

    Raises:
        InputError: there are fewer than two links, or no input.
        LinkError: the reference cannot run.
    """
    if len(links) < 2:
        raise InputError("parity compares two forms of a network; there is only one")
    pairs = []
    reference = links[0]
    for link in links[1:]:
        if progress is not None:
            progress(f"{reference.name} → {link.name}")
        try:
            pairs.append(compare_links(reference, link, inputs))
        except LinkError as error:
            if not pairs:
                reference.run(inputs[0])  # it is the reference's own problem, or else the link's
            pairs.append(LinkParity(first=reference.name, second=link.name, problem=str(error)))
        else:
            reference = link
    return ChainParity(pairs=tuple(pairs))
