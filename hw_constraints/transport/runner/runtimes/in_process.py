"""Runtimes that are Python packages: their sessions take turns in one process, as on the machine that asks."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.measure.made_up import made_up_inputs
from bitwright.hw_constraints.measure.rounds import timed_rounds
from bitwright.hw_constraints.transport.runner.refusal import Refusal
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Spec(NamedTuple):
    """An input of a loaded artefact; None for a dimension that is not static. Codes have a scale."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    scale: float | None = None
    zero_point: int = 0


class LoadedArtefact(NamedTuple):
    """A session: what it takes, how it is set up, and how it is run."""

    input_infos: tuple[Spec, ...]
    settings: dict[str, str]
    run: Callable[[Mapping[str, Any]], object]


class InProcess(ABC):
    """A runtime that is a package.

    Attributes:
        packages: names it may have, the first found is taken.
        install: what to say when none is there.
    """

    packages: tuple[str, ...]
    install: str

    def version(self) -> str:
        """The package's version.

        Raises:
            Refusal: it is not installed, or does not import.
        """
        package = self.package()
        return str(getattr(package, "__version__", "") or "of unknown version")

    def package(self) -> Any:
        """The imported package.

        Raises:
            Refusal: it is not installed, or does not import.
        """
        for name in self.packages:
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError:
                continue
            except Exception as error:  # a wheel for another system raises anything
                raise Refusal("lacks-runtime", f"{name} does not import: {one_line(error)}") from error
        raise Refusal(
            "lacks-runtime",
            f"{self.packages[0]} is not installed for {sys.executable}; install it there ({self.install}), "
            "or name another Python in the address: ?python=PATH",
        )

    @abstractmethod
    def load(self, path: str, threads: int) -> LoadedArtefact:
        """Opens an artefact; what the runtime raises is its own."""

    def measure(
        self,
        artefacts: Mapping[str, str],
        inputs: Mapping[str, str],
        options: Mapping[str, Any],
        inherited: int,
    ) -> dict[str, Any]:
        """Times artefacts against each other.

        Args:
            artefacts: path of each; the first is the reference.
            inputs: path of an `.npz` for those that bring inputs.
            options: of `timed_rounds`.
            inherited: not used here; see `ByTool`.

        Raises:
            Refusal: the runtime is not here, or rejects one; its own message is in it.
        """
        version, candidates, settings = self.version(), {}, {}
        threads, seed = options["threads"], options["seed"]
        with pinned(threads):  # runtimes start their threads while loading: they inherit the processors
            for name, path in artefacts.items():
                try:
                    session = self.load(path, threads)
                    batch = _stored(inputs[name]) if name in inputs else made_up_inputs(session, name, seed)
                    session.run(batch)
                except InputError as error:
                    raise Refusal("rejected", str(error), final=True) from error
                except Exception as error:  # runtimes' exceptions share no base class
                    raise Refusal("rejected", f"{name}: {one_line(error)}", final=True) from error
                candidates[name], settings[name] = partial(session.run, batch), session.settings
        record = timed_rounds(candidates, **options)
        record["versions"] = {name: {_name_of(self): version} for name in artefacts}
        record["settings"] = settings
        return record


def one_line(error: BaseException) -> str:
    """An exception's message without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _stored(path: str) -> dict[str, Any]:
    import numpy as np

    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _name_of(runtime: object) -> str:
    return type(runtime).__module__.rpartition(".")[2]
