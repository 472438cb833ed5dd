"""`run` and `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (`bitwright ls`).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, such as train.epochs=3 target=h200.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default.")]
Again = Annotated[list[str] | None, typer.Option(help="A stage to run even if nothing changed; can be repeated.")]


def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Out = None,
    again: Again = None,
    until: Annotated[str | None, typer.Option(help="Stop behind this stage.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Run a recipe, or go on where it stopped. Exit code 1 when a gate of the recipe fails."""
    from bitwright.experiments.console import Console
    from bitwright.experiments.load_recipe import load_recipe
    from bitwright.experiments.run import run_recipe
    from bitwright.experiments.tables import print_json

    checked = load_recipe(recipe, overrides or ())
    folder = out or Path("runs") / checked.name
    console = Console(quiet=quiet)
    console.say(f"{checked.name} → {folder} (target {checked.target})")
    record = run_recipe(checked, folder, again=again or (), until=until, console=console)
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        from bitwright.experiments.summary import print_summary

        print_summary(record, folder)
    return 1 if record.passed is False else 0


def validate(recipe: RecipeArgument, overrides: Overrides = None, json: Json = False) -> int:
    """Check a recipe without running anything; no torch is imported and none of your code runs."""
    from bitwright.experiments.load_recipe import load_recipe
    from bitwright.experiments.run_folder import resolved_yaml
    from bitwright.experiments.tables import print_json

    checked = load_recipe(recipe, overrides or ())
    if json:
        print_json(checked.model_dump(mode="json"))
    else:
        print(resolved_yaml(checked), end="")
        print(f"# valid: {checked.name} for {checked.target}; nothing has run")
    return 0


COMMANDS = (run, validate)
