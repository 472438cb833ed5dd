"""What is measured into a table, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitwright.experiments import kernel_pool
from bitwright.experiments.kernel_pool import Drawn, drawn_networks, heavy_networks, interspersed, stray_kernels
from bitwright.hw_constraints.kernels import Family, Kernel, known_rules, split
from bitwright.hw_constraints.table import KernelRow, KernelTable, NetworkRow, TableKey
from bitwright.hw_constraints.table.measuring import Network
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.hw_constraints.table.row import hash_of_model
from bitwright.hw_constraints.table.sampling import Belief, group_of
from bitwright.hw_constraints.target import load_target

TARGET = load_target("x86-vnni")
RULES = known_rules("onnxruntime")


@pytest.fixture(scope="module")
def few() -> list[Drawn]:
    return list(drawn_networks(RULES, TARGET, kernel_pool.FORMATS, seed=3, count=6))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_strays_are_of_all_kinds_that_published_networks_surprised_with(runtime: str) -> None:
    rules = known_rules(runtime)
    lots = stray_kernels(rules, kernel_pool.FORMATS, seed=0)
    kinds = Counter(group_of(kernel) for lot in lots for kernel in lot)
    for number_format in kernel_pool.FORMATS:
        for family, trait in (
            ("pointwise", "of few positions"), ("pointwise", "ragged"), ("conv", "dilated"), ("conv", "long"),
            ("depthwise", "ragged"), ("elementwise", "Mul broadcasting"), ("pool", "AveragePool"),
            ("copy", "Transpose"), ("resize", "Resize"),
        ):  # fmt: skip
            if runtime == "openvino" and number_format == "int8" and family == "resize":
                continue  # computed in float there
            assert kinds[family, number_format, trait] >= 8, (family, number_format, trait)
        for family, trait in (
            ("conv", "of few channels"), ("pointwise", "of few channels"), ("depthwise", "dilated"),
            ("depthwise", "long"), ("grouped", "large"), ("pool", "MaxPool in plain order"),
            ("copy", "Transpose of several axes"),
        ):  # fmt: skip
            assert kinds[family, number_format, trait] >= 8, (family, number_format, trait)
        assert sum(kinds["elementwise", number_format, f"{op} broadcasting between"] for op in ("Add", "Mul")) >= 8
    for family, trait in (
        ("conv_transpose", "ConvTranspose"), ("conv_transpose", "ConvTranspose large"), ("softmax", "Softmax inside"),
        ("other", "ReduceMax"), ("other", "ReduceMean"),
    ):  # fmt: skip
        assert kinds[family, "float32", trait] >= 8, (family, trait)
    families = [Counter(kernel.family for kernel in lot) for lot in lots]
    assert max(count for each in families[: len(families) // 4] for count in each.values()) <= 3
    assert lots == stray_kernels(rules, kernel_pool.FORMATS, seed=0)


def test_a_drawn_network_is_split_without_its_values_as_with_them(few: Sequence[Drawn]) -> None:
    for each in few:
        model = each.model()
        assert model == each.model()
        onnx.checker.check_model(onnx.load_model_from_string(model))
        assert each.kernels == tuple(placed.kernel for placed in split(model, "onnxruntime", RULES).kernels)
        is_int8 = any(kernel.format == "int8" for kernel in each.kernels)
        assert is_int8 is each.name.endswith("/int8")


def test_heavy_networks_have_more_weights_than_a_cache_and_end_in_time() -> None:
    heavy = list(heavy_networks(RULES, TARGET, ("float32",), seed=0))
    assert len(heavy) == 14 and all(each.name.startswith("heavy-0-") for each in heavy)
    for each in heavy:
        assert sum(kernel.weight_bytes for kernel in each.kernels) > 5e6
        assert sum(kernel.macs for kernel in each.kernels) <= 2.6e9


def test_whole_networks_of_all_sorts_come_early(few: Sequence[Drawn]) -> None:
    heavy = list(heavy_networks(RULES, TARGET, ("int8",), seed=0))[:3]
    order = [each.name for each in kernel_pool.whole_networks(few, heavy)]
    assert sorted(order) == sorted(each.name for each in (*few, *heavy))
    first = order[: len(order) // 3 + 1]
    assert {name.partition("/")[2] for name in first} == {"float32", "int8"}
    assert any(name.startswith("heavy") for name in first)


def unsure(rows: Sequence[KernelRow]) -> Belief:
    """Expects one time of every kernel."""
    return lambda kernels: (np.zeros(len(kernels)), np.full(len(kernels), 0.1))


def test_networks_and_second_looks_stand_between_kernels_and_none_comes_twice(
    few: Sequence[Drawn], tmp_path: Path
) -> None:
    def row(kernel: Kernel, ratio: float, placements: int) -> KernelRow:
        figures = {"ratio": ratio, "low": 0.99 * ratio, "high": 1.01 * ratio, "placements": placements}
        return KernelRow(kernel=kernel, date="2026-01-02T03:04:05+00:00", **figures)

    kernels = [
        Kernel(family=Family.POINTWISE, op="Conv", format="float32", inputs=((1, c, 9, 9),), outputs=((1, c, 9, 9),),
               weight=(c, c, 1, 1)) for c in range(16, 16 * 97, 16)
    ]  # fmt: skip
    odd = kernels[5]
    with KernelTable.writing(tmp_path / "t", TableKey.here("onnxruntime", 1), REFERENCE.to_json()) as table:
        known = few[0]
        table.add([NetworkRow(name=known.name, model_hash=hash_of_model(known.model()), kernels=known.kernels,
                              date="2026-01-02T03:04:05+00:00", ratio=1.0, low=0.9, high=1.1)])  # fmt: skip
        whole, again = list[str](), list[Kernel]()
        for batch in interspersed(table, iter(_lots(kernels, 4)), few, unsure, most=6):
            if isinstance(batch[0], Network):
                for network in batch:
                    assert isinstance(network, Network)
                    assert hash_of_model(network.file.read_bytes()) == hash_of_model(_named(few, network.name).model())
                    whole.append(network.name)
                continue
            looked = [each for each in batch if isinstance(each, Kernel) and each.key in table]
            again += looked
            table.add([row(each, 9.0 if each == odd else 1.0, 7 if looked else 6) for each in batch])  # type: ignore[arg-type]
    assert whole == [each.name for each in few[1:]]
    assert again == [odd]


def _lots(kernels: Sequence[Kernel], size: int) -> list[Sequence[Kernel]]:
    return [kernels[at : at + size] for at in range(0, len(kernels), size)]


def _named(networks: Sequence[Drawn], name: str) -> Drawn:
    return next(each for each in networks if each.name == name)
