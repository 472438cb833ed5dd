"""A network whose regions are quantized, each by itself, while the user's own Python decides which of them run."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from bitwright.qat.batches import Arguments, joined
from bitwright.qat.deploy import deployed_model, in_float, prove
from bitwright.qat.locate import undisturbed
from bitwright.qat.prepared import Prepared
from bitwright.qat.regions import FloatPart, TrainedRegion
from bitwright.qat.replay import Replay
from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import Exporter
from bitwright.quant.plan import QuantPlan
from bitwright.quant.preserve import preserved
from bitwright.quant.quantized_model import QuantizedModel

Compute = Callable[[QuantizedModel, Arguments], Any]

# Calls of a region on which the trained module and its network are compared.
_PROOFS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedRegions:
    """What training ends in where the model is not one graph.

    Attributes:
        model: a copy of the user's model in float, with the trained weights; its Python calls the regions.
        regions: the networks by name: the module's path, from the second shape on that it is called with a number
            (`head`, `head#2`).
        left_float: what stays in float, and why.
    """

    model: nn.Module
    regions: Mapping[str, QuantizedModel]
    left_float: tuple[FloatPart, ...]

    @torch.no_grad()
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the user's `forward` with the networks in the places of the regions.

        Raises:
            InputError: a region is called with shapes that it was never trained or captured with.
        """
        return self.run_by(lambda network, given: network.run(*given), *args, **kwargs)

    @torch.no_grad()
    def run_by(self, compute: Compute, *args: Any, **kwargs: Any) -> Any:
        """As `run`, with somebody else's computation of each network: that of an exported file, say.

        Args:
            compute: takes a network and its arguments, and returns what the region's `forward` would.
            *args: of the user's `forward`.
            **kwargs: likewise.
        """
        by_path: dict[str, list[QuantizedModel]] = {}
        for name, network in self.regions.items():
            by_path.setdefault(name.partition("#")[0], []).append(network)
        with preserved(self.model), contextlib.ExitStack() as stack:
            self.model.eval()
            for path, networks in by_path.items():
                module = self.model.get_submodule(path)
                own = vars(module).get("forward")
                stack.callback(_put_back, module, own)
                vars(module)["forward"] = partial(_run_fitting, compute, path, networks)
            return self.model(*args, **kwargs)

    def write(self, exporter: Exporter, path: Path) -> tuple[Path, ...]:
        """Writes a file for each region beside each other, and a list of what is in which and of what is in none.

        Args:
            exporter: of the target's toolchain.
            path: `model.onnx` makes `model.stem.onnx` of the region `stem`, and `model.regions.json`.

        Returns:
            The files, the list first.
        """
        files = {}
        for name, network in self.regions.items():
            file = path.with_name(f"{path.stem}.{name.replace('#', '-')}{path.suffix}")
            exporter.write(network, file)
            files[name] = file
        listed = path.with_name(f"{path.stem}.regions.json")
        listed.write_text(json.dumps(self._listed(files), indent=2) + "\n")
        return (listed, *files.values())

    def _listed(self, files: Mapping[str, Path]) -> dict[str, Any]:
        return {
            "regions": {name: {"module": name.partition("#")[0], "file": file.name} for name, file in files.items()},
            "float": [
                {
                    "module": part.module_path,
                    "type": part.module_type,
                    "reason": part.reason,
                    "source": str(part.source) if part.source else None,
                }
                for part in self.left_float
            ],
        }


def _put_back(module: nn.Module, own: Callable[..., Any] | None) -> None:
    del vars(module)["forward"]
    if own is not None:
        vars(module)["forward"] = own


def _run_fitting(compute: Compute, path: str, networks: Sequence[QuantizedModel], *args: Any, **kwargs: Any) -> Any:
    """By the network that was captured with such arguments."""
    refused = ""
    for network in networks:
        try:
            network.captured.flatten(args, kwargs)
        except InputError as error:
            refused = refused or str(error)
            continue
        return compute(network, joined(args, kwargs))
    raise InputError(f"region {path}: {refused}")


def proven_regions(
    replay: Replay, prepared: Prepared, plan: QuantPlan, examples: Sequence[Arguments]
) -> QuantizedRegions:
    """The regions as they are to be exported, each compared with the trained module; the model stays attached.

    The whole is compared, too: what lies between regions is the same Python on both sides, so that the results are
    equal to the last bit.

    Args:
        replay: the model with the plans in force.
        prepared: its regions.
        plan: of all regions together, in the formats of this moment.
        examples: arguments of the model's `forward`.

    Raises:
        InputError: a region and its network do not compute the same codes, or the whole does not; says which.
    """
    seen = _calls(replay, [region.path for region, _ in prepared.regions], examples)
    networks: dict[str, QuantizedModel] = {}
    proofs: list[tuple[str, QuantizedModel, Arguments]] = []
    with in_float(replay):
        copied = copy.deepcopy(replay.model)
        for region, decided in prepared.regions:
            module = replay.model.get_submodule(region.path)
            now = _of_region(decided, plan)
            for name, args in zip(region.names, region.calls, strict=True):
                networks[name] = deployed_model(module, replay.parts, now, args, region=region.path)
                proofs += [
                    (region.path, networks[name], call) for call in (args, *_fitting(networks[name], seen, region))
                ]
    result = QuantizedRegions(model=copied, regions=networks, left_float=prepared.left_float)
    with replay.own_forward():
        for path, network, args in proofs:
            try:
                prove(replay, network, args, replay.model.get_submodule(path))
            except InputError as error:
                raise InputError(f"region {path}: {error}") from error
        for args in examples:
            _prove_whole(replay, result, args)
    return result


def _of_region(decided: QuantPlan, plan: QuantPlan) -> QuantPlan:
    return replace(
        decided,
        activations={ref: plan.activations[ref] for ref in decided.activations},
        weights={ref: plan.weights[ref] for ref in decided.weights},
    )


def _calls(replay: Replay, paths: Sequence[str], examples: Sequence[Arguments]) -> Mapping[str, list[Arguments]]:
    """What the trained model calls its regions with, before their inputs are rounded."""
    seen: dict[str, list[Arguments]] = {path: [] for path in paths}

    def keeping(path: str) -> Callable[..., None]:
        def keep(_module: nn.Module, args: Arguments, kwargs: dict[str, Any]) -> None:
            copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
            seen[path].append(joined(copied, named))

        return keep

    handles = [
        replay.model.get_submodule(path).register_forward_pre_hook(keeping(path), prepend=True, with_kwargs=True)
        for path in paths
    ]
    try:
        with replay.own_forward(), undisturbed(replay.model):
            for args in examples:
                replay.model(*args)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _fitting(
    network: QuantizedModel, seen: Mapping[str, list[Arguments]], region: TrainedRegion
) -> Iterator[Arguments]:
    """The first calls of a region that have the shapes of one of its networks."""
    found = 0
    for args in seen[region.path]:
        with contextlib.suppress(InputError):
            network.captured.flatten(args, {})
            found += 1
            yield args
        if found == _PROOFS:
            return


def _prove_whole(replay: Replay, result: QuantizedRegions, args: Arguments) -> None:
    with undisturbed(replay.model):
        trained = pytree.tree_leaves(replay.model(*args))
    deployed = pytree.tree_leaves(result.run(*args))
    pairs = [(ours, theirs) for ours, theirs in zip(trained, deployed, strict=True) if isinstance(ours, torch.Tensor)]
    if not all(torch.equal(ours, theirs) for ours, theirs in pairs):
        raise InputError(
            "each region computes the same codes as its network, yet the whole model does not compute the same as "
            "with its networks in their places; a module that lies in a region is called from outside of it as well"
        )
