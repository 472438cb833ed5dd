import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.hw_constraints.predicate import Predicate

NAMES = ("kernel_h", "stride_h", "groups")
numbers = st.one_of(st.sampled_from(NAMES), st.integers(0, 9).map(str))
sums = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=4,
)
comparisons = st.tuples(sums, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), sums).map(" ".join)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda text: f"(not {text})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
    ),
    max_leaves=5,
).filter(lambda text: any(name in text for name in NAMES) and len(text) < 400)
values = st.fixed_dictionaries({name: st.integers(-5, 20) for name in NAMES})


@given(conditions, values)
def test_it_decides_as_python_would(text: str, given_values: dict[str, int]) -> None:
    assert Predicate.parse(text).holds(given_values) is bool(eval(text, {}, dict(given_values)))


@given(conditions, values, st.sampled_from(NAMES))
def test_an_unknown_value_never_changes_a_decision(text: str, given_values: dict[str, int], missing: str) -> None:
    decided = Predicate.parse(text).holds({**given_values, missing: None})
    assert decided in (None, Predicate.parse(text).holds(given_values))


def test_one_decisive_side_outweighs_an_unknown_one() -> None:
    both = Predicate.parse("groups == 1 and kernel_h <= 3")
    either = Predicate.parse("groups == 1 or kernel_h <= 3")
    assert both.holds({"groups": 2, "kernel_h": None}) is False
    assert either.holds({"groups": 1, "kernel_h": None}) is True
    assert either.holds({"groups": 2, "kernel_h": None}) is None


@pytest.mark.parametrize(
    ("text", "properties", "expected"),
    [
        ("kernel_h <= 32", {"kernel_h": 33}, False),
        ("1 <= stride_h <= 8", {"stride_h": 9}, False),
        ("scale_h in (1, 2, 4)", {"scale_h": 3}, False),
        ("dtype in ('int8', 'int16')", {"dtype": "int16"}, True),
        ("depthwise or in_channels % 4 == 0", {"depthwise": False, "in_channels": 6}, False),
        ("kernel_h <= 256 if padding_h == 0 else kernel_h <= 8", {"kernel_h": 9, "padding_h": 1}, False),
    ],
)
def test_the_language(text: str, properties: dict[str, int], expected: bool) -> None:
    assert Predicate.parse(text).holds(properties) is expected


def test_it_prints_as_written_on_one_line_and_says_what_it_found() -> None:
    predicate = Predicate.parse("kernel_h * kernel_w\n  <= 65536")
    assert str(predicate) == "kernel_h * kernel_w <= 65536"
    assert predicate.found({"kernel_h": 300, "kernel_w": 300}) == "kernel_h = 300, kernel_w = 300"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", r"not allowed in a predicate"),
        ("kernel_h.__class__ == 1", r"'kernel_h.__class__' is not allowed"),
        ("[k for k in kernel_h]", r"not allowed"),
        ("(lambda: kernel_h)()", r"not allowed"),
        ("kernel_h[0] < 3", r"'kernel_h\[0\]' is not allowed"),
        ("kernel_h ** 99999999 < 3", r"not allowed"),
        ("kernel_h << 99999999 < 3", r"not allowed"),
        ("kernel_h = 3", r"not an expression"),
        ("kernel_h <=", r"not an expression: invalid syntax"),
        ("1 < 2", r"reads no property"),
        ("", r"not an expression"),
        ("kernel_h < 1j", r"'1j' is not allowed"),
        ("kernel_h < b'x'", r"not allowed"),
        ("kernel_h == " + "1" * 500, r"at most 400 characters"),
        ("(" * 300 + "kernel_h" + ")" * 90, r"not an expression"),
    ],
)
def test_nothing_else_gets_in(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predicate.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_refused_or_parsed(text: str) -> None:
    with contextlib.suppress(ValueError):
        Predicate.parse(text)


def test_types_that_do_not_compare_are_named() -> None:
    with pytest.raises(ValueError, match=r"predicate 'dtype <= 3' cannot be decided"):
        Predicate.parse("dtype <= 3").holds({"dtype": "int8"})
