"""Rounding of weights that looks at what it does to the results; one method a file.

`reconstruct.reconstruct` walks through the network layer by layer, hands each method the inputs that the quantized
network in front of the layer really makes, and goes on with what the method has chosen. Chosen weights are values on
the grid of their format, so simulation, parity and every exporter take them as they are: rounding them to nearest gives
them back. A new method is one file with one object; third parties register through the entry-point group
`bitwright.roundings`.
"""

from bitwright.quant.extension_point import ExtensionPoint

ROUNDINGS = ExtensionPoint(
    kind="rounding", package="bitwright.quant.reconstruct", marker="ROUNDING", group="bitwright.roundings"
)
