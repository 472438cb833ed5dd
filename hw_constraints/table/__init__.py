"""Latency tables: kernels measured in the real runtime, each in relation to one reference kernel."""

from bitwright.hw_constraints.table.key import Clocks, TableKey
from bitwright.hw_constraints.table.merge import merge
from bitwright.hw_constraints.table.row import KernelRow, NetworkRow
from bitwright.hw_constraints.table.store import KernelTable

__all__ = ["Clocks", "KernelRow", "KernelTable", "NetworkRow", "TableKey", "merge"]
