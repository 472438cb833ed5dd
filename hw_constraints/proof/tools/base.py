"""What a tool is whose report is read, and what is read from it.

A new tool is one file in this folder with a module-level `TOOL`; third parties register an object of the same kind
through the entry-point group `bitwright.tools`. Each is tested by the contract suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from bitwright.hw_constraints.backends import ExecutedNode, KernelTime
from bitwright.hw_constraints.proof.tools.report_file import ReportFile
from bitwright.quant.errors import InputError
from bitwright.quant.extension_point import ExtensionPoint

# Precisions beside those of `KernelTime`, where a report says less than a runtime asked here.
UNSTATED = "unstated"  # the report does not say what was computed in
CODES = "codes"  # integers of whatever width the artefact holds: the hardware has no other arithmetic


@dataclass(frozen=True, kw_only=True)
class ToolReport:
    """What a tool says of one network.

    Attributes:
        version: of the tool or its runtime; empty when the report does not say.
        device: what it ran on, or is modelled for; empty when the report does not say.
        kernels: what ran, in order; times are 0 where the report has none.
        executed: for each kernel the names of nodes and values of the file that went into it (`originals`).
        origin: `measured`, or `modelled` for a compiler's own estimate.
        wall_us: one run as the tool timed it, microseconds; None when the report does not say.
        shapes: what a kernel writes, by the kernel's name, where the report says it.
        opaque: names of kernels that run whole regions of the network, whose layers the report does not name.
        notes: what a reader of the figures must know.
    """

    kernels: tuple[KernelTime, ...]
    executed: tuple[ExecutedNode, ...]
    version: str = ""
    device: str = ""
    origin: str = "measured"
    wall_us: float | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    opaque: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


@runtime_checkable
class Tool(Protocol):
    """A tool of another vendor, or one that ran elsewhere.

    Attributes:
        name: as users write it.
        title: as messages call it.
    """

    name: str
    title: str

    def role(self, file: ReportFile) -> str | None:
        """What a file is to this tool (`profile`, `layer info`, …), by its content; None when it is none of its own."""

    def read(self, files: Mapping[str, ReportFile]) -> ToolReport:
        """Reads its files, by role; `read_with` turns what a damaged file makes of it into a message.

        Raises:
            InputError: they do not say enough.
        """

    def how(self, model: Path) -> str:
        """The command lines that make the report of a model, ready to paste."""


TOOLS = ExtensionPoint(
    kind="tool", package="bitwright.hw_constraints.proof.tools", marker="TOOL", group="bitwright.tools"
)


def list_tools() -> tuple[str, ...]:
    """Names of all tools, without importing them.

    Raises:
        InputError: a name is registered twice.
    """
    return TOOLS.names()


def get_tool(name: str) -> Tool:
    """The tool called `name`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    tool: Tool = TOOLS.load(name)
    return tool


def read_with(tool: Tool, files: Mapping[str, ReportFile]) -> ToolReport:
    """What a tool reads from its files, by role.

    Raises:
        InputError: they do not say enough, or are not as the tool writes them.
    """
    try:
        return tool.read(files)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a file of this tool, but damaged
        names = ", ".join(str(file.path) for file in files.values())
        what = f"no {error} where it belongs" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{names}: not as {tool.title} writes it ({what}); make it again") from error
