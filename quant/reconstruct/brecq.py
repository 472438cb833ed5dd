"""BRECQ (Li et al. 2021, arXiv:2102.05426): the rounding of a whole block is learned against the block's result.

Layers are refitted and rounded by GPTQ first, which is the start and what has to be beaten; see `block_learning`.
In the row `rounding_methods` (W4A8) it gains 0.7 dB over GPTQ on one network and nothing on the other, in four times
as long.
"""

from __future__ import annotations

from bitwright.quant.reconstruct.block_learning import BlockData, BlockLearning, Learned
from bitwright.quant.reconstruct.gptq import ROUNDING as GPTQ
from bitwright.quant.reconstruct.method import LayerData, Rounded

STEPS = 200


class Brecq:
    """See the module and `blocks`."""

    name = "brecq"
    samples = GPTQ.samples
    wants_products = True
    position_bytes = 0

    def round(self, data: LayerData) -> Rounded:
        """One layer by itself."""
        return GPTQ.round(data)

    def round_block(self, data: BlockData) -> Learned | None:
        """All layers of a block together."""
        return BlockLearning(data, drop=0.0, steps=STEPS).run()


ROUNDING = Brecq()
