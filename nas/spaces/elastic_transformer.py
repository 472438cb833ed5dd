"""Transformer encoders: depth, width and tokens for the whole network, heads and inner width for each block.

After the space of AutoFormer (Chen et al. 2021, arXiv:2107.00651), with tokens averaged half-way (Dai et al. 2020,
arXiv:2006.03236) as a further decision. The recipe's model is `elastic_transformer`, or any other with such settings
(`heads_0`, `mlp_0`, …).
"""

from __future__ import annotations

from bitwright.nas.block_choices import BlockSettings
from bitwright.nas.declared_space import DeclaredSpace, Need
from bitwright.nas.space import Parameter
from bitwright.nas.spaces import SpaceKind
from bitwright.quant.errors import InputError


class Settings(BlockSettings):
    """The choices; what is left out stays as the recipe's model has it.

    Attributes:
        depth: blocks; where heads or inner widths are decided it is needed, one choice says how many there are.
        width: channels of each token.
        tokens: shares of the tokens that are left half-way, such as 0.5: pairs are averaged.
        heads: of each block's attention.
        mlp: inner channels of each block over the width.
    """

    depth: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    tokens: tuple[float, ...] = ()
    heads: tuple[int, ...] = ()
    mlp: tuple[float, ...] = ()


def build(settings: Settings) -> DeclaredSpace:
    """The space of these choices.

    Raises:
        InputError: blocks are decided one by one, and nothing says how many there are.
    """
    whole = {"depth": settings.depth, "width": settings.width, "tokens": settings.tokens}
    by_block = {name: choices for name, choices in (("heads", settings.heads), ("mlp", settings.mlp)) if choices}
    if by_block and not settings.depth:
        raise InputError(
            f"search space: {', '.join(by_block)} are decided for each block; give depth, such as [4] for four blocks"
        )
    parameters = [Parameter(name=name, choices=choices, ordered=True) for name, choices in whole.items() if choices]
    needs = {}
    for block in range(max(settings.depth, default=0)):
        for name, choices in by_block.items():
            parameters.append(Parameter(name=f"{name}_{block}", choices=choices, ordered=True))
            needs[f"{name}_{block}"] = Need(parameter="depth", least=block + 1)
    return DeclaredSpace(
        own=tuple(parameters),
        needs=needs,
        block_choices=settings.block_choices(),
        nothing="give choices for depth, width, tokens, heads, mlp, formats or sparsity",
    )


SPACE = SpaceKind(settings=Settings, build=build)
