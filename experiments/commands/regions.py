"""`regions`: which parts of a network can be captured, when the whole cannot."""

from __future__ import annotations

from typing import Annotated

import typer

from bitwright.experiments.commands.artefacts import Inputs
from bitwright.experiments.commands.recipes import Json


def regions(
    model: Annotated[
        str, typer.Argument(help="package.module:function that returns the network, or (network, arguments).")
    ],
    inputs: Inputs = None,
    json: Json = False,
) -> int:
    """Say which parts of a network can be captured, what stays eager and why. Exit code 1 unless all of it can."""
    from bitwright.experiments.entry_network import entry_network
    from bitwright.experiments.region_text import print_regions, regions_json
    from bitwright.experiments.tables import print_json
    from bitwright.quant.regions import find_regions

    found = find_regions(*entry_network(model, inputs or ()))
    if json:
        print_json(regions_json(found))
    else:
        print_regions(found)
    return 0 if found.is_whole else 1


COMMANDS = (regions,)
