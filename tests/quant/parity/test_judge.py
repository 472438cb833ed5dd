"""What may differ follows from terms and steps: held against computations in other orders and against brute force."""

import math

import numpy as np
import pytest
from scipy.stats import poisson

from bitwright.quant.formats import FORMATS, IntFormat
from bitwright.quant.integer.codes import Grid
from bitwright.quant.parity.judge import judge
from bitwright.quant.parity.link import LinkTensor
from bitwright.quant.parity.spread import Explained, explain, spread
from bitwright.quant.parity.whereabouts import where
from bitwright.quant.parity_measures.rounding import Rounding

DRAW = np.random.default_rng(5)


def grid(scale: float, zero_point: int = 128) -> Grid:
    fmt = FORMATS["uint8"]
    assert isinstance(fmt, IntFormat)
    return Grid(format=fmt, scale=np.float32(scale).reshape(()), zero_point=zero_point)


def of_terms(count: int, **changes: object) -> Explained:
    rounding = Rounding(op="linear", terms=count, ulps=1.0, format="float32")
    return Explained(roundings=(rounding,), **changes)  # type: ignore[arg-type]


def sums(terms: int, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """The same products added up one after the other in float32, and in an order of their own, too."""
    products = DRAW.standard_normal((rows, terms)).astype(np.float32)
    first = np.zeros(rows, np.float32)
    second = np.zeros(rows, np.float32)
    for place in range(terms):
        first += products[:, place]
        second += products[:, terms - 1 - place]
    return first, second


@pytest.mark.parametrize("terms", [4, 64, 1024])
def test_sums_in_another_order_agree_and_a_thousandth_of_one_percent_more_does_not(terms: int) -> None:
    first, second = sums(terms)
    known = of_terms(terms)
    assert judge(first, second, explained=known).agrees
    seen = float(np.sqrt(np.square(first.astype(np.float64) - second).mean()))
    expected = float(np.sqrt(np.square(spread(first, known)).mean()))
    assert expected / 5 < seen < expected  # it is the size of what is seen, no wide margin
    assert not judge(first, second * np.float32(1.00003 + 1e-6 * math.sqrt(terms)), explained=known).agrees


@pytest.mark.parametrize("terms", [64, pytest.param(1024, marks=pytest.mark.slow)])
def test_expected_ties_are_those_that_other_orders_make(terms: int) -> None:
    """Counted over a million sums; codes so fine that there are some."""
    first, second = sums(terms, rows=400_000)
    fine = grid(float(np.abs(first).max()) / 2e4, 0)
    wide = Grid(format=FORMATS["uint16"], scale=fine.scale, zero_point=32768)  # type: ignore[arg-type]
    codes = [np.rint(each / wide.scale) for each in (first, second)]
    counted = int((codes[0] != codes[1]).sum())
    found = judge(wide.real(codes[0] + 32768), wide.real(codes[1] + 32768), wide, wide,
                  explained=of_terms(terms, unrounded=first))  # fmt: skip
    assert found.agrees
    expected = found.may / poisson.isf(1e-6, found.may) * found.may  # about what stands behind the limit
    assert counted < expected < 30 * counted


def test_values_that_lie_on_codes_have_no_ties() -> None:
    """A pool of codes moves them: not one may differ."""
    own = grid(0.5)
    exact = own.real(DRAW.integers(0, 256, 10_000))
    other = exact.copy()
    other[17] += 0.5
    known = Explained(roundings=(Rounding(op="max_pool2d", terms=1, ulps=0.0, format="float32"),), unrounded=exact)
    assert judge(exact, exact, own, own, explained=known).agrees
    found = judge(exact, other, own, own, explained=known)
    assert not found.agrees and found.error == "1 of 10000 codes differ, by 1 at most"


def test_half_of_the_values_on_ties_may_go_either_way() -> None:
    own = grid(1.0)
    exact = DRAW.integers(-100, 100, 1000) + 0.5
    codes = own.real(np.rint(exact) + 128)
    other = own.real(np.rint(exact + 1e-6) + 128)  # half of them were rounded to the even number below
    assert judge(codes, other, own, own, explained=of_terms(9, unrounded=exact.astype(np.float32))).agrees
    assert not judge(codes, other, own, own, explained=of_terms(9, unrounded=(exact + 0.3).astype(np.float32))).agrees


def test_indices_may_go_where_errors_of_rounding_send_them() -> None:
    first, other = np.array([3, 1, 2, 0]), np.array([1, 3, 2, 0])
    assert not judge(first, other).agrees
    moved = np.array([2.0, -2.0, 0.0, 0.0])
    assert judge(first, other, explained=Explained(errors=moved)).agrees


def test_a_channel_in_a_wrong_scale_is_named() -> None:
    exact = DRAW.standard_normal((1, 8, 6, 6)).astype(np.float32)
    wrong = exact.copy()
    wrong[:, 3] *= 1.01
    assert judge(exact, wrong, explained=of_terms(27)).where == "channels 3 of 8"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (np.s_[:, 3], "channels 3 of 8"),
        (np.s_[..., 0, :], "rows 0 of 6"),
        (np.s_[:, ::2, :2], "4 of 8 channels, rows 0 to 1 of 6"),
        (np.s_[:], ""),
    ],
)
def test_whereabouts(place: object, says: str) -> None:
    off = np.zeros((1, 8, 6, 6), bool)
    off[place] = True  # type: ignore[index]
    assert where(off) == says


def test_operators_between_common_tensors_add_up() -> None:
    def tensor(name: str, reads: tuple[str, ...], terms: int) -> LinkTensor:
        return LinkTensor(name=name, reads=reads, rounding=Rounding(op="conv2d", terms=terms, ulps=1, format="float32"))

    chain = {each.name: each for each in (tensor("a", (), 9), tensor("b", ("a",), 16), tensor("c", ("b",), 25))}
    alone = explain(chain, chain, {name: name for name in chain}, coarse=False)
    both = explain(chain, chain, {"a": "a", "c": "c"}, coarse=False)
    assert len(alone["c"].roundings) == 1 and len(both["c"].roundings) == 2
    assert both["c"].relative == pytest.approx(math.hypot(alone["c"].relative, alone["b"].relative))
