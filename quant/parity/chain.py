"""All links, each beside the one that it was made from: which is the first that is not the network any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bitwright.quant.errors import InputError
from bitwright.quant.parity.crash import crash_site
from bitwright.quant.parity.link import Link, LinkCrash, LinkError
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs


@dataclass(frozen=True, kw_only=True)
class ChainParity:
    """Each link beside the one that it was made from.

    Attributes:
        pairs: in the order of the chain; one that cannot run has its `problem`, and what was made from it is compared
            with what it was made from itself.
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
    links: Sequence[Link],
    inputs: Sequence[Inputs],
    *,
    made_from: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
    compare: Callable[[Link, Link, Sequence[Inputs]], LinkParity] = compare_links,
) -> ChainParity:
    """Compares each link with its origin.

    Args:
        links: the reference first, each behind its origin.
        inputs: what to run them on; not empty.
        made_from: a link's origin by name, where that is not the one before it: both a float file and a quantized one
            are made from the captured network. One that is made from itself begins a chain of its own.
        progress: called with the names of each pair before it runs.
        compare: how two links are compared.

    Raises:
        InputError: there are fewer than two links, or no input.
        LinkError: the reference cannot run.
    """
    if len(links) < 2:
        raise InputError("parity compares two forms of a network; there is only one")
    origins = made_from or {}
    standing = {links[0].name: links[0]}  # for each link what its followers are compared with: itself, if it runs
    pairs = []
    for before, link in pairwise(links):
        if origins.get(link.name) == link.name:
            standing[link.name] = link
            continue
        origin = standing[origins.get(link.name, before.name)]
        if progress is not None:
            progress(f"{origin.name} → {link.name}")
        try:
            pairs.append(compare(origin, link, inputs))
            standing[link.name] = link
        except LinkError as error:
            if origin is links[0]:
                origin.run(inputs[0])  # it is the reference's own problem, or else the link's
            problem = f"{error}{crash_site(link, inputs)}" if isinstance(error, LinkCrash) else str(error)
            pairs.append(LinkParity(first=origin.name, second=link.name, problem=problem))
            standing[link.name] = origin
    return ChainParity(pairs=tuple(pairs))
