import random
import time
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.lower.allocate import Buffer, allocate, overlaps


@st.composite
def buffers(draw, most=40, steps=12, largest=60, alignments=(1, 1, 4, 12)):
    count = draw(st.integers(0, most))
    found = []
    for index in range(count):
        first = draw(st.integers(0, steps))
        found.append(
            Buffer(
                name=f"b{index}",
                size_bytes=draw(st.integers(0, largest)),
                first=first,
                last=first + draw(st.integers(0, steps)),
                alignment=draw(st.sampled_from(alignments)),
            )
        )
    return found


def live_bytes(placed):
    """The most that lives in one step, counted step by step."""
    steps = range(max((b.last for b in placed), default=0) + 1)
    return max((sum(b.size_bytes for b in placed if b.first <= step <= b.last) for step in steps), default=0)


def bytes_used_twice(placed, offsets):
    """Marks every byte of every step: independent of `overlaps`."""
    for step in range(max((b.last for b in placed), default=0) + 1):
        taken = set()
        for b in placed:
            if b.first <= step <= b.last:
                own = set(range(offsets[b.name], offsets[b.name] + b.size_bytes))
                if own & taken:
                    return True
                taken |= own
    return False


def smallest_peak(placed):
    """Of all orders: an optimum is reached by placing each buffer at the lowest gap in some order."""
    best = None
    for order in permutations(placed):
        at = {}
        for b in order:
            offset = 0
            while any(
                offset < at[other.name] + other.size_bytes
                and at[other.name] < offset + b.size_bytes
                and b.first <= other.last
                and other.first <= b.last
                for other in placed
                if other.name in at and other.size_bytes and b.size_bytes
            ):
                offset += b.alignment
            at[b.name] = offset
        peak = max(at[b.name] + b.size_bytes for b in placed)
        best = peak if best is None else min(best, peak)
    return best


@given(buffers())
def test_live_buffers_never_share_a_byte(placed):
    placement = allocate(placed, effort=5_000)
    assert not bytes_used_twice(placed, placement.offsets)
    assert overlaps(placed, placement.offsets) == []
    assert all(placement.offsets[b.name] % b.alignment == 0 for b in placed)
    assert placement.peak_bytes == max((placement.offsets[b.name] + b.size_bytes for b in placed), default=0)
    assert live_bytes(placed) <= placement.bound_bytes <= placement.peak_bytes


@given(st.sampled_from((1, 3)).flatmap(lambda grain: buffers(5, 4, 8, alignments=(grain,))).filter(bool))
def test_small_cases_reach_the_optimum(placed):
    assert allocate(placed).peak_bytes == smallest_peak(placed)


@given(buffers(most=25))
def test_steps_may_be_stretched_and_shifted(placed):
    stretched = [
        Buffer(name=b.name, size_bytes=b.size_bytes, first=7 * b.first - 3, last=7 * b.last + 3, alignment=b.alignment)
        for b in placed
    ]
    assert allocate(stretched, effort=0).offsets == allocate(placed, effort=0).offsets


def test_the_bound_rounds_up_all_but_the_buffer_on_top():
    placed = [
        Buffer(name="small", size_bytes=36, first=0, last=1, alignment=16),
        Buffer(name="large", size_bytes=60, first=0, last=1, alignment=16),
        Buffer(name="later", size_bytes=17, first=2, last=2, alignment=16),  # whose rounding does not matter there
    ]
    placement = allocate(placed)
    assert placement.offsets == {"large": 0, "small": 64, "later": 0}
    assert placement.bound_bytes == placement.peak_bytes == 100


def test_a_gap_is_used():
    placed = [
        Buffer(name="long", size_bytes=10, first=0, last=9),
        Buffer(name="early", size_bytes=8, first=0, last=3),
        Buffer(name="late", size_bytes=8, first=4, last=9),
    ]
    placement = allocate(placed)
    assert placement.offsets == {"long": 0, "early": 10, "late": 10}
    assert placement.peak_bytes == placement.bound_bytes == 18


def test_the_climb_reaches_the_bound_where_the_orders_do_not():
    chance = random.Random(0)
    excess = {0: 0.0, 1_500_000: 0.0}
    for _ in range(10):
        placed = []
        for index in range(30):
            size, first = chance.randrange(1, 1000), chance.randrange(30)
            placed.append(Buffer(name=str(index), size_bytes=size, first=first, last=first + chance.randrange(12)))
        for effort in excess:
            placement = allocate(placed, effort=effort)
            excess[effort] += placement.peak_bytes / placement.bound_bytes - 1
    assert excess[0] > 0.1  # a percent each on average, or there is nothing to climb
    assert excess[1_500_000] < 0.1 * excess[0]


@pytest.mark.parametrize(("count", "optimum"), [(100, 413), (200, 428), (400, 440)])  # CP-SAT's, with proof
def test_long_lived_buffers_among_growing_ones(count, optimum):
    placed = [
        Buffer(name=str(i), size_bytes=i % 97 + 1, first=i, last=i + 1 + i % 5 + (0 if i % 50 else 40))
        for i in range(count)
    ]
    placement = allocate(placed)
    assert overlaps(placed, placement.offsets) == []
    assert placement.bound_bytes == optimum
    assert placement.peak_bytes <= 1.05 * optimum


def test_the_same_request_gives_the_same_answer():
    placed = [Buffer(name=str(i), size_bytes=(i * 37) % 101, first=i % 13, last=i % 13 + i % 7) for i in range(60)]
    assert allocate(placed).offsets == allocate(list(placed)).offsets


def test_capacity_is_compared_and_not_enforced():
    placed = [Buffer(name="a", size_bytes=70, first=0, last=1), Buffer(name="b", size_bytes=50, first=1, last=2)]
    assert not allocate(placed, capacity=119).fits
    assert allocate(placed, capacity=120).fits
    assert allocate(placed).fits


def test_twenty_thousand_buffers_take_seconds_at_most():
    networks = [Buffer(name=str(i), size_bytes=64 * (i % 97), first=i, last=i + 1 + i % 5) for i in range(20_000)]
    crowded = [Buffer(name=str(i), size_bytes=i % 97, first=i, last=20_000 + i) for i in range(20_000)]
    for placed in (networks, crowded):
        start = time.process_time()
        placement = allocate(placed)
        assert time.process_time() - start < 5
        assert placement.peak_bytes <= 1.05 * placement.bound_bytes


def test_a_name_given_twice_is_named():
    with pytest.raises(ValueError, match="buffer 'a' is given twice"):
        allocate([Buffer(name="a", size_bytes=1, first=0, last=0)] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size_bytes": -1}, "buffer 'a': size_bytes = -1; must be 0 or more"),
        ({"last": -1}, "buffer 'a': last = -1 lies before first = 0"),
        ({"alignment": 0}, "buffer 'a': alignment = 0; must be 1 or more"),
    ],
)
def test_a_buffer_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Buffer(**{"name": "a", "size_bytes": 1, "first": 0, "last": 0, **change})
