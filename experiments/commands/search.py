"""`search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json, Out, Overrides, Quiet

RecipeWithSearch = Annotated[
    str, typer.Argument(help="A recipe with a search section: a file, or a shipped one's name.")
]

Fork = Annotated[bool, typer.Option("--fork", help="Keep the study that is there aside, whole, and begin a new one.")]


def search(
    recipe: RecipeWithSearch,
    overrides: Overrides = None,
    out: Out = None,
    fork: Fork = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Search architecture and formats; infeasible candidates die in the linter. Goes on where it was stopped."""
    from bitwright.experiments.search_command import print_front, run_search
    from bitwright.experiments.tables import print_json

    record, folder = run_search(recipe, overrides or (), out, fork=fork, quiet=quiet)
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        print_front(record, Path(folder))
    return 0


COMMANDS = (search,)
