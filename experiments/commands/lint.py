"""`lint`: what an accelerator will not run of a network, and on which of the user's lines."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitwright.experiments.commands.artefacts import Inputs
from bitwright.experiments.commands.recipes import Json

if TYPE_CHECKING:
    from bitwright.hw_constraints.lint_report.report import LintReport


class Format(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


def lint(
    model: Annotated[
        str | None, typer.Argument(help="package.module:function that returns the network, a recipe, or an ONNX file.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="A target; can be repeated. A recipe brings its own.")
    ] = None,
    inputs: Inputs = None,
    rule: Annotated[list[str] | None, typer.Option(help="Only this rule; can be repeated.")] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TEXT,
    json: Json = False,
    baseline: Annotated[Path | None, typer.Option(help="A file of old findings, which do not count.")] = None,
    write_baseline: Annotated[bool, typer.Option("--write-baseline", help="Write that file instead.")] = False,
    explain: Annotated[str | None, typer.Option(metavar="RULE", help="Print what a rule knows.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Fix what can be fixed, and show the change to make.")] = False,
    approximate: Annotated[bool, typer.Option("--approximate", help="With --fix: also what changes results.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --fix: save the fixed network as a .pt2 program.")] = None,
) -> int:
    r"""Say what an accelerator will not run of a network, and on which of your lines. Exit code 1 on errors.

    The comment `# bitwright: ignore\[rule]` on a line takes a finding back.
    """
    from bitwright.hw_constraints.lint import explain as explanation
    from bitwright.hw_constraints.lint_report.baseline import write_baseline as write
    from bitwright.quant.errors import InputError

    if explain is not None:
        print(explanation(explain), end="")
        return 0
    if model is None:
        raise InputError("MODEL is missing: package.module:function that returns the network, a recipe or an ONNX file")
    if write_baseline and baseline is None:
        raise InputError("--write-baseline needs --baseline FILE: where to write it")
    if not fix and (approximate or out is not None):
        raise InputError(f"{'--approximate' if approximate else '--out'} needs --fix")
    if fix:
        from bitwright.experiments.fix_command import print_fixes

        _refuse_report_options(rule, baseline, format)
        return print_fixes(
            model, target or (), inputs or (), out=out, approximate=approximate, json=json or format is Format.JSON
        )
    compared = None if write_baseline else baseline
    report = _report(model, target or (), inputs or (), rule, compared)
    if write_baseline and baseline is not None:
        print(f"{baseline}: {write(baseline, report.new)} findings")
        return 0
    _print(report, Format.JSON if json else format, with_baseline=compared is not None)
    return 1 if report.failed else 0


def _refuse_report_options(rules: Sequence[str] | None, baseline: Path | None, format: Format) -> None:
    """Options that mean nothing with `--fix`."""
    from bitwright.quant.errors import InputError

    shaped = format in (Format.SARIF, Format.GITHUB)
    for given, option in ((rules, "--rule"), (baseline, "--baseline"), (shaped, f"--format {format}")):
        if given:
            raise InputError(f"{option} is for findings; --fix takes them all, and prints text or --json")


def _report(
    model: str, targets: Sequence[str], inputs: Sequence[str], rules: Sequence[str] | None, baseline: Path | None
) -> LintReport:
    """Lints; what can be wrong with names and files is found out before the network is built."""
    from bitwright.experiments.lint_command import lint_model
    from bitwright.hw_constraints.lint import load_rule, rule_names
    from bitwright.hw_constraints.lint_report.baseline import read_baseline
    from bitwright.hw_constraints.lint_report.report import review

    for name in rules or ():
        load_rule(name)
    known = None if baseline is None else read_baseline(baseline)
    findings, files = lint_model(model, targets, inputs, rules=rules)
    return review(findings, files=files, baseline=known, known_rules=rule_names())


def _print(report: LintReport, format: Format, *, with_baseline: bool) -> None:
    from bitwright.experiments.tables import print_json
    from bitwright.hw_constraints.lint import summaries
    from bitwright.hw_constraints.lint_report.github import github_annotations
    from bitwright.hw_constraints.lint_report.sarif import sarif_log
    from bitwright.hw_constraints.lint_report.text import report_text

    match format:
        case Format.JSON:
            print_json(report.to_json())
        case Format.SARIF:
            print_json(sarif_log(report, summaries(), with_baseline=with_baseline))
        case Format.GITHUB:
            if text := github_annotations(report):
                print(text)
        case Format.TEXT:
            print(report_text(report))


COMMANDS = (lint,)
