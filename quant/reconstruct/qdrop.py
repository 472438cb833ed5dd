"""QDrop (Wei et al. 2022, arXiv:2203.05740): BRECQ, with the rounding of activations dropped at random while learning.

Layers are refitted and rounded by GPTQ first, which is the start and what has to be beaten; see `block_learning`.
In the row `rounding_methods` (W4A8) nothing sets its SQNR apart from that of GPTQ, in five to seven times as long.
"""

from __future__ import annotations

from bitwright.quant.reconstruct.block_learning import BlockData, BlockLearning, Learned
from bitwright.quant.reconstruct.gptq import ROUNDING as GPTQ
from bitwright.quant.reconstruct.method import LayerData, Rounded

STEPS = 200
DROP = 0.5  # section 5.1 of the paper


class QDrop:
    """See the module and `blocks`."""

    name = "qdrop"
    samples = GPTQ.samples
    wants_products = True
    position_bytes = 0

    def round(self, data: LayerData) -> Rounded:
        """One layer by itself."""
        return GPTQ.round(data)

    def round_block(self, data: BlockData) -> Learned | None:
        """All layers of a block together."""
        return BlockLearning(data, drop=DROP, steps=STEPS).run()


ROUNDING = QDrop()
