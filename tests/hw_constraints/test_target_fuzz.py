"""Mutated target files: each is read or refused in words, soon, and in little memory."""

import contextlib
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_diff import describe_differences
from bitwright.hw_constraints.target_operators_page import describe_operators
from bitwright.hw_constraints.target_page import describe
from bitwright.quant.errors import InputError

LONGEST = 10  # seconds for one file, on a busy machine; they take hundredths
MOST = 200 * 2**20  # bytes of memory beyond what was there before
SEEDS = sorted(path.read_text() for path in target_files.FOLDER.glob("[!_]*.yaml"))
WORDS = [
    *("null", "[]", "{}", "true", "-1", "0", "1e999", ".nan", "2 MiB", "2 MB", "1 GHz", "int8", "''", "'\\0'", "~"),
    *("9" * 400, "[[[[[[[[1]]]]]]]]", "{a: {b: {c: {}}}}", "*a", "&a [*a]", "!!python/object:os.system x", "<<: {}"),
    *("source", "verified: maybe", "2:4", "kernel_h", "dtype * 99999999999 == 'x'", "kernel_h // 0 == 1", "not " * 90),
    *("-" * 380 + "kernel_h", "kernel_h == " + "9" * 300, "'%999999999d' % kernel_h", "(1, 2) * 99999999", "~" * 300),
    *("conv2d|" * 40 + "conv2d -> " * 9 + "relu", "extends: h200", "extends: fuzzed.yaml", "\t", "\x00", "\u2028", "é"),
]


def _cut(text: str, draw: random.Random) -> str:
    return text[: draw.randrange(len(text))]


def _without_a_line(text: str, draw: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    return "".join(lines)


def _with_a_line_again(text: str, draw: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))
    return "".join(lines)


def _shifted(text: str, draw: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    lines[place] = draw.choice([" " + lines[place], lines[place][1:], "  " * 60 + lines[place]])
    return "".join(lines)


def _with_another_value(text: str, draw: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    key, colon, _ = lines[place].partition(":")
    lines[place] = f"{key}{colon} {draw.choice(WORDS)}\n"
    return "".join(lines)


def _with_a_word(text: str, draw: random.Random) -> str:
    place = draw.randrange(len(text))
    return text[:place] + draw.choice(WORDS) + text[place + draw.randrange(4) :]


def _with_another_character(text: str, draw: random.Random) -> str:
    place = draw.randrange(len(text))
    return text[:place] + chr(draw.choice([draw.randrange(32, 127), draw.randrange(0x3000)])) + text[place + 1 :]


def _with_words_swapped(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    one, other = draw.randrange(len(words)), draw.randrange(len(words))
    words[one], words[other] = words[other], words[one]
    return " ".join(words)


MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (
    *(_cut, _without_a_line, _with_a_line_again, _shifted, _with_another_value, _with_another_value, _with_a_word),
    *(_with_another_character, _with_words_swapped),
)


def mutated(draw: random.Random) -> str:
    text = draw.choice(SEEDS)
    name = text.split("\n", 1)[0]
    text = text.replace(name, "id: fuzzed", 1)  # else the name is taken, and nothing further would be looked at
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        text = draw.choice(MUTATIONS)(text or "x", draw)
    return text


@contextlib.contextmanager
def in_time(text: str) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"more than {LONGEST} s over:\n{text}")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def fuzz(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Reads `count` mutated files; how many were read and how many refused."""
    for parent in target_files.FOLDER.glob("_*.yaml"):
        shutil.copy(parent, folder)
    draw, path, other = random.Random(seed), folder / "fuzzed.yaml", load_target("h200")
    before, loaded = peak_bytes(), 0
    for _ in range(count):
        text = mutated(draw)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with in_time(text):
            try:
                target = load_target(path)
            except InputError as error:
                assert str(error).strip() and "Traceback" not in str(error)
                continue
            except Exception as error:
                raise AssertionError(f"{type(error).__name__} over:\n{text}") from error
            loaded += 1
            assert describe(target) and describe_operators(target) and describe_differences(target, other)
    assert peak_bytes() - before < MOST
    return loaded, count - loaded


def test_a_few_mutated_files(tmp_path: Path) -> None:
    loaded, refused = fuzz(tmp_path, 150, seed=0)
    assert loaded > 10 and refused > 50  # the mutations neither miss nor destroy everything


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_thousand_mutated_files(tmp_path: Path, seed: int) -> None:
    loaded, refused = fuzz(tmp_path, 1000, seed)
    assert loaded > 100 and refused > 400
