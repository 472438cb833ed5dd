"""`ls`, `targets` and `doctor`: what there is, and what of it works here."""

from __future__ import annotations

from typing import Annotated

import typer

from bitwright.experiments.commands.recipes import Json


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
    else:
        print_table(("kind", "names"), [(each, ", ".join(found)) for each, found in names.items()])
    return 0


def targets(
    name: Annotated[str | None, typer.Argument(help="A target, or your own target's YAML file.")] = None,
    json: Json = False,
) -> int:
    """List the accelerators; with a name, print all that is known about one, with sources."""
    from bitwright.experiments.tables import print_json, print_table
    from bitwright.hw_constraints.target import list_targets, load_target

    if name is not None:
        from bitwright.hw_constraints import target_files
        from bitwright.hw_constraints.target_page import describe

        target = load_target(name)
        if json:
            print_json(target_files.read(target_files.find(name))[0])
        else:
            print(describe(target), end="")
        return 0
    loaded = [load_target(each) for each in list_targets()]
    if json:
        print_json([{"id": each.id, "version": each.version, "description": each.description,
                     "capabilities": sorted(each.capabilities)} for each in loaded])  # fmt: skip
    else:
        heads = ("target", "serves", "what it is")
        print_table(heads, [(each.id, ", ".join(sorted(each.capabilities)), each.description) for each in loaded])
    return 0


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
