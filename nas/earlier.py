"""Results of earlier studies, for a sampler to begin with: the best are tried first, and a surrogate learns from all.

They are never taken over as results: another study may have trained longer, or measured on another machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bitwright.nas.result import Outcome, Result, ResultFiles
from bitwright.nas.sampling.grid import Grid
from bitwright.nas.space import SearchSpace
from bitwright.quant.errors import InputError

_STUDIES = "search-*"  # of one run, by versions of the code


def earlier_results(folders: Iterable[Path], space: SearchSpace, objectives: Sequence[str]) -> tuple[Result, ...]:
    """What earlier studies say of candidates of this space, in the order of the folders.

    Args:
        folders: of studies, or of runs with studies in them.
        space: of the search that begins.
        objectives: of that search.

    Raises:
        InputError: a folder is no study's, a result is damaged, or a study has scored no candidate of this space with
            these objectives.
    """
    found, grid = list[Result](), Grid(space)
    for folder in folders:
        results = [each for study in _studies(folder) for each in _results(study)]
        fitting = [each for each in results if _fits(each, grid, objectives)]
        if not fitting:
            raise InputError(
                f"search.earlier: {folder}: none of its {len(results)} results is a candidate of this space with "
                f"{' and '.join(objectives)}; name a study of this space and these objectives, or leave it out"
            )
        found += fitting
    return tuple(found)


def _studies(folder: Path) -> list[Path]:
    found = [each.parent for each in (folder / "results", *sorted(folder.glob(f"{_STUDIES}/results"))) if each.is_dir()]
    if not found:
        raise InputError(
            f"search.earlier: {folder}: no study is there; name the folder of a run that has searched, such as "
            "runs/digits_search"
        )
    return found


def _results(study: Path) -> list[Result]:
    files = ResultFiles(study / "results")
    keys = sorted(path.stem for path in files.folder.glob("[!.]*.json"))
    return [each for each in map(files.get, keys) if each is not None]


def _fits(result: Result, grid: Grid, objectives: Sequence[str]) -> bool:
    known = result.outcome is Outcome.SCORED and all(name in result.figures for name in objectives)
    return known and grid.of_values(result.values) is not None
