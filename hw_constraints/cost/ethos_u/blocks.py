"""Into which blocks an operation is cut: what the accelerator computes between two fetches of its input."""

from __future__ import annotations

from functools import lru_cache

from bitwright.hw_constraints.cost.ethos_u.block_search import Block, BlockQuestion
from bitwright.hw_constraints.cost.ethos_u.blocks_u55 import choose_u55_block
from bitwright.hw_constraints.cost.ethos_u.blocks_u85 import choose_u85_block
from bitwright.hw_constraints.cost.ethos_u.figures import Configuration


@lru_cache(maxsize=65536)
def choose_block(configuration: Configuration, question: BlockQuestion) -> Block:
    """The block of an operation on a configuration; remembered, since schedules ask for the same ones again."""
    choose = choose_u85_block if configuration.is_u85 else choose_u55_block
    return choose(configuration, question)
