"""Observers turn streamed data into a range, one a file; their memory does not grow with the data.

A new observer is one file with one class that has `name`, `update(values)` and `range()`; third parties register
through the entry-point group `bitwright.observers`.
"""

from bitwright.quant.extension_point import ExtensionPoint

OBSERVERS = ExtensionPoint(
    kind="observer", package="bitwright.quant.observers", marker="OBSERVER", group="bitwright.observers"
)
