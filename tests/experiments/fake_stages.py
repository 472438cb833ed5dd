"""A run of three quick stages; started as a script by tests that kill it.

`first` and `last` finish at once; `middle` writes half of its file and then waits when it is told to.
"""

import os
import sys
import time
from pathlib import Path

from pydantic import BaseModel

from bitwright.experiments import run
from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.record import Record
from bitwright.experiments.stage import Context, Stage


class Told(BaseModel):
    words: str
    gates: tuple[dict[str, object], ...] = ()


def note(context: Context, name: str) -> None:
    """Counts how often a stage really ran, outside the run's own folder."""
    with (context.run_folder.parent / "log.txt").open("a") as log:
        log.write(f"{name}\n")


def first(context: Context) -> Told:
    note(context, "first")
    (context.folder / "out.txt").write_text("whole")
    return Told(words="first")


def middle(context: Context) -> Told:
    note(context, "middle")
    (context.folder / "half.txt").write_text("half")
    if os.environ.get("WAIT"):
        (context.run_folder.parent / "waiting").touch()
        time.sleep(60)
    (context.folder / "half.txt").write_text("whole")
    before = context.require("first", Told).words
    return Told(words=f"{before}, middle", gates=({"name": "g", "holds": True, "wanted": "1", "found": "1"},))


def last(context: Context) -> Told:
    note(context, "last")
    return Told(words=context.require("middle", Told).words + ", last")


STAGES = (
    Stage(name="first", run=first, result=Told, reads=("seed",), packages=()),
    Stage(name="middle", run=middle, result=Told, needs=("first",), reads=("calibrate",), packages=()),
    Stage(name="last", run=last, result=Told, needs=("middle",), reads=("description",), packages=()),
)


def go(folder: Path, *overrides: str) -> Record:
    run.load_stages = lambda: STAGES
    return run.run_recipe(load_recipe("digits", overrides), folder, console=Console(quiet=True))


if __name__ == "__main__":
    try:
        go(Path(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
