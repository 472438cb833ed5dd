"""Rewrites of a network in float that make it easier to quantize; one method a file.

Each returns a network with the same results and other weights, perhaps with an operator more where nothing could take
its factors up. `ptq.quantize(…, preparations=["smoothquant"])` runs them in the order in which they are named, before
anything is calibrated. A new method is one file with one object; third parties register through the entry-point group
`bitwright.preparations`.
"""

from bitwright.quant.extension_point import ExtensionPoint

PREPARATIONS = ExtensionPoint(
    kind="preparation", package="bitwright.quant.preparations", marker="PREPARATION", group="bitwright.preparations"
)
