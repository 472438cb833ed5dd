"""Matrix products of training in 8-bit floating point, by torchao's float8, on GPUs that multiply it.

This makes a step cheaper and leaves the network what it is: weights stay as wide as they were, each product rounds its
operands to float8 with scales of their own extremes. Nothing here has been measured by this project yet: it had no such
GPU at hand. To train a network for a target that computes in fp8, give that target to `QATCallback`, before or after.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from bitwright.qat.checks import check_attachable, check_trains
from bitwright.quant.errors import InputError, MissingExtraError

# The first NVIDIA architecture with float8 tensor cores: Ada Lovelace (CUDA C++ Programming Guide, table of
# compute capabilities: 8.9).
_FIRST = (8, 9)
RECIPES = ("tensorwise", "rowwise", "rowwise_with_gw_hp")
# Dimensions of the operands of `torch._scaled_mm` are multiples of it.
_MULTIPLE = 16


class Float8Training:
    """Trains the linear layers of a model with products in float8, inside the loop that is already there.

        float8 = Float8Training(model, optimizer)
        for step, batch in enumerate(loader): ...; optimizer.step(); float8.on_step()
        float8.finish()

    Attach it before `torch.compile` and `fully_shard`; torchao's own figures are those of compiled models. Parameters
    and their names stay, so that optimizer and checkpoints know nothing of it.

    Args:
        model: the network, on its GPU.
        optimizer: of its parameters; None when it is made later.
        recipe: torchao's: `tensorwise`, `rowwise`, or `rowwise_with_gw_hp` (gradients of weights in high precision).
        skip: paths of layers that stay as they are, as the last one often should.
        emulate: compute the same roundings without such a GPU, slowly, to try a recipe out.

    Attributes:
        layers: paths of the layers that train in float8.

    Raises:
        InputError: torchao is missing, the GPU does not multiply float8, or no layer can: says why.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        recipe: str = "tensorwise",
        skip: Collection[str] = (),
        emulate: bool = False,
    ) -> None:
        check_attachable(model)
        if optimizer is not None:
            check_trains(optimizer, model)
        if recipe not in RECIPES:
            raise InputError(f"recipe = {recipe!r}; torchao's are: {', '.join(RECIPES)}")
        if not emulate:
            _check_device(next(model.parameters()).device)
        self.model = model
        self.layers = _fitting(model, skip)
        self._replaced = self._convert(recipe, emulate=emulate)

    def _convert(self, recipe: str, *, emulate: bool) -> dict[str, nn.Linear]:
        try:
            from torchao.float8 import Float8LinearConfig, convert_to_float8_training
        except ImportError as missing:
            raise MissingExtraError("Float8Training", "torchao") from missing
        from dataclasses import replace

        config = replace(Float8LinearConfig.from_recipe_name(recipe), emulate=emulate)
        before = {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}
        convert_to_float8_training(self.model, config=config, module_filter_fn=lambda _, name: name in self.layers)
        return {name: before[name] for name in self.layers}

    def on_step(self) -> None:
        """To be called after each step of the optimizer: scales follow the weights at once, for all shards together."""
        from torchao.float8 import precompute_float8_dynamic_scale_for_fsdp

        if any(hasattr(parameter, "full_tensor") for parameter in self.model.parameters()):
            precompute_float8_dynamic_scale_for_fsdp(self.model)

    def finish(self) -> None:
        """Ends it: the layers are those that they were, with the trained parameters."""
        for name, own in self._replaced.items():
            owner, _, last = name.rpartition(".")
            trained = self.model.get_submodule(name)
            own.weight, own.bias = trained.weight, trained.bias  # type: ignore[assignment]
            own.train(trained.training)
            setattr(self.model.get_submodule(owner), last, own)
        self._replaced = {}


def _check_device(device: torch.device) -> None:
    found = f"the model is on {device}"
    if device.type == "cuda" and torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability >= _FIRST:
            return
        found = f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}"
    raise InputError(
        f"fp8 training needs a GPU with products in float8 (NVIDIA compute capability {_FIRST[0]}.{_FIRST[1]} or "
        f"later: Ada, Hopper, Blackwell); {found}. emulate=True computes the same roundings anywhere, slowly"
    )


def _fitting(model: nn.Module, skip: Collection[str]) -> tuple[str, ...]:
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear and name}
    if unknown := sorted(set(skip) - set(linear)):
        raise InputError(f"skip = {unknown}: no such linear layers; there are: {', '.join(linear)}")
    found = tuple(
        name
        for name, module in linear.items()
        if name not in skip and not module.in_features % _MULTIPLE and not module.out_features % _MULTIPLE
    )
    if not found:
        raise InputError(
            f"no linear layer of this model can train in float8: of {len(linear)} that it has, {len(skip)} are skipped "
            f"and the others have features that are no multiple of {_MULTIPLE}"
        )
    return found
