"""The nine failures that raise no error, and where each is planted and found; the first one is planted here."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_builder import value_name
from bitwright.quant.graph import TensorRef
from bitwright.quant.parity import Inputs
from bitwright.quant.parity_measures import Verdict, rounding_draws
from bitwright.quant.parity_measures.thresholds import judge_count
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

TESTS = Path(__file__).parents[2]
HERE = "quant/parity_measures"
FOUND_BY = {
    "fp8 that is rounded to integers first": [
        (f"{HERE}/test_silent_failures.py", "test_fp8_that_is_rounded_to_integers_first"),
        ("quant/test_fake_quantize.py", "test_fp8_is_not_rounded_to_an_integer_first"),
    ],
    "int8 that runs as float": [
        ("hw_constraints/proof/test_peers.py", "test_s8s8_qdq_is_partly_float_because_the_codes_are_signed"),
        ("hw_constraints/proof/test_prove.py", "test_a_float_file_has_no_int8_and_says_why"),
    ],
    "int8 slower than float": [("hw_constraints/test_verdict.py", "test_slower")],
    "temporal state lost": [(f"{HERE}/test_frames.py", "test_a_lost_state_is_found_at_frame_two")],
    "calibration changes the model": [("quant/test_ptq.py", "test_state_advances_in_a_copy")],
    "index arithmetic in codes": [
        (f"{HERE}/test_places.py", "test_a_file_with_coordinates_in_codes"),
        (f"{HERE}/test_places.py", "test_each_moved_index_is_a_finding_where_it_begins_to"),
    ],
    "layers that the file leaves in float": [
        ("hw_constraints/proof/test_reasons.py", "test_a_layer_that_the_file_leaves_in_float")
    ],
    "noise of a reorder": [(f"{HERE}/test_detections.py", "test_a_reorder_after_top_k_is_no_error")],
    "unexplained differences between simulation and runtime": [
        ("quant/integer/test_network.py", "test_every_layer_has_the_codes_of_the_deployed_file"),
        (f"{HERE}/test_thresholds.py", "test_one_wrong_number_of_a_quantized_file"),
    ],
}


@pytest.mark.parametrize("failure", FOUND_BY)
def test_each_is_planted_somewhere(failure: str) -> None:
    for file, name in FOUND_BY[failure]:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, file


def test_fp8_that_is_rounded_to_integers_first(fp8: QuantScheme) -> None:
    """An eighth of the codes, each by little: no power shows it, the number of ties that fall otherwise does."""
    torch.manual_seed(0)
    x = torch.randn(256, 16)
    quantized = quantize(capture(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), (x,)), fp8, [x])
    hidden = next(ref for ref in quantized.plan.activations if ref.is_op_result)
    name = value_name(hidden)
    draws = rounding_draws(quantized, Inputs(args=(x,)), wanted=[name])

    def judged(first_to_integers: bool) -> Verdict:
        seen = {}

        def note(ref: TensorRef, tensor: torch.Tensor) -> torch.Tensor:
            if ref == hidden and first_to_integers:
                tensor = (tensor / quantized.qparams[ref].scale).round() * quantized.qparams[ref].scale
            seen[ref] = quantized.transform(ref, tensor)
            return seen[ref]

        quantized.run(x, transform=note)
        noisy = [each[name] for each in draws.noisy]
        return judge_count(name, draws.clean[name], seen[hidden].numpy(), draws.clean[name], noisy, why=draws.why[name])

    sound, wrong = judged(first_to_integers=False), judged(first_to_integers=True)
    assert sound.agrees, sound.reason
    assert not wrong.agrees
    assert wrong.severity > 5
