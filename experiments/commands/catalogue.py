"""`ls`, `targets` and `doctor`: what there is, and what of it works here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bitwright.experiments.commands.recipes import Json

if TYPE_CHECKING:
    from bitwright.hw_constraints.target_types import Target


def ls(
    kind: Annotated[str | None, typer.Argument(help="One kind only: recipes, models, targets, …")] = None,
    json: Json = False,
) -> int:
    """List what recipes can name: models, data sets, targets, observers, backends, spaces; and what else is shipped."""
    from bitwright.experiments import extensions
    from bitwright.experiments.extensions import ExtensionPoint
    from bitwright.experiments.tables import print_json, print_table
    from bitwright.quant.errors import unknown

    points = {name.lower(): point for name, point in vars(extensions).items() if isinstance(point, ExtensionPoint)}
    if kind is not None and kind not in points:
        raise unknown("kind", kind, points)
    names = {each: list(point.names()) for each, point in points.items() if kind in (None, each)}
    if json:
        print_json(names)
    elif kind == "rules":
        from bitwright.hw_constraints.lint import summaries

        print_table(("rule", "what it looks for"), list(summaries().items()))
    elif kind == "fixes":
        from bitwright.hw_constraints.fixes.base import load_fix

        loaded = [load_fix(each) for each in names[kind]]
        rows = [(each.name, "exact" if each.exact else "approximate", each.summary) for each in loaded]
        print_table(("fix", "results", "what it does"), rows)
    else:
        print_table(("kind", "names"), [(each, ", ".join(found)) for each, found in names.items()])
    return 0


def targets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME | diff A B]", help="A target, or your own target's YAML file; two to compare."),
    ] = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="Only the operators and their limits; of all targets in one table.")
    ] = False,
    json: Json = False,
) -> int:
    """List the accelerators; with a name, print all that is known about one, with sources; `diff A B` compares two."""
    from bitwright.hw_constraints.target import load_target
    from bitwright.quant.errors import InputError

    match names:
        case None | [] if operators:
            _print_coverage(json)
        case None | []:
            _list_targets(json)
        case ["diff", left, right]:
            _print_differences(load_target(left), load_target(right), json)
        case [name] if name != "diff":
            _print_target(name, operators, json)
        case _:
            raise InputError(f"targets {' '.join(names)}: give one target, or diff and two of them")
    return 0


def _list_targets(json: bool) -> None:
    from bitwright.experiments.tables import print_json, print_table
    from bitwright.hw_constraints.target import list_targets, load_target
    from bitwright.hw_constraints.target_types import Capability

    loaded = [load_target(each) for each in list_targets()]
    if json:
        print_json([{"id": each.id, "version": each.version, "description": each.description,
                     "capabilities": sorted(each.capabilities)} for each in loaded])  # fmt: skip
    else:
        heads = ("target", "serves", "what it is")
        serves = [", ".join(each for each in Capability if each in target.capabilities) for target in loaded]
        print_table(heads, [(each.id, says, each.description) for each, says in zip(loaded, serves, strict=True)])


def _print_coverage(json: bool) -> None:
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.target import list_targets, load_target
    from bitwright.hw_constraints.target_coverage_page import coverage, describe_coverage

    loaded = [load_target(each) for each in list_targets()]
    if json:
        print_json(coverage(loaded))
    else:
        print(describe_coverage(loaded), end="")


def _print_target(name: str, operators: bool, json: bool) -> None:
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints import target_files
    from bitwright.hw_constraints.target import load_target
    from bitwright.hw_constraints.target_operators_page import describe_operators
    from bitwright.hw_constraints.target_page import describe

    target = load_target(name)
    if json:
        print_json(target_files.read(target_files.find(name))[0])
    else:
        print(describe_operators(target) if operators else describe(target), end="")


def _print_differences(left: Target, right: Target, json: bool) -> None:
    from dataclasses import asdict

    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.target_diff import describe_differences, differences

    if json:
        print_json([asdict(each) for each in differences(left, right)])
    else:
        print(describe_differences(left, right), end="")


def doctor(json: Json = False) -> int:
    """Check the installation and this machine. Exit code 1 when something needed does not work."""
    from bitwright.experiments.doctor import checks
    from bitwright.experiments.tables import print_json, print_table

    found = checks()
    if json:
        print_json([each.model_dump() for each in found])
    else:
        print_table(("check", "state", "found"), [(each.name, each.state, each.found) for each in found])
    return 1 if any(each.state == "failed" for each in found) else 0


COMMANDS = (ls, targets, doctor)
