"""The record survives a kill, is no other search's, and answers what it holds without asking again."""

import json
import re

import pytest

from bitwright.hw_constraints.autotune.journal import Journal
from bitwright.quant.errors import InputError

HEADER = {"network": "a", "runtime": "onnxruntime"}


def refuse() -> dict:
    raise AssertionError("asked again")


def test_an_answer_is_given_again_from_the_file(tmp_path):
    path = tmp_path / "tries.jsonl"
    journal = Journal(path, HEADER)
    assert journal.ask({"measure": ["a"]}, lambda: {"us": (1, 2)}) == {"us": [1, 2]}  # as it will be read back
    journal.note({"try": 1})
    again = Journal(path, HEADER)
    assert again.ask({"measure": ["a"]}, refuse) == {"us": [1, 2]}
    assert again.knows({"measure": ["a"]}) and not again.knows({"measure": ["b"]})
    assert again.recalled == 1
    size = path.stat().st_size
    again.note({"try": 1})
    assert path.stat().st_size == size  # a line for readers is written once


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_what_a_kill_left_of_the_last_line_is_cut_off(tmp_path, cut):
    path = tmp_path / "tries.jsonl"
    journal = Journal(path, HEADER)
    journal.ask({"first": 1}, lambda: {"value": 1})
    whole = path.stat().st_size
    journal.ask({"second": 2}, lambda: {"value": 2})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    again = Journal(path, HEADER)
    assert path.stat().st_size == whole
    assert again.ask({"first": 1}, refuse) == {"value": 1}
    assert again.ask({"second": 2}, lambda: {"value": 3}) == {"value": 3}
    assert [json.loads(line) for line in path.read_text().splitlines()][-1]["answer"] == {"value": 3}


def test_the_record_of_another_search_is_refused(tmp_path):
    path = tmp_path / "tries.jsonl"
    Journal(path, HEADER)
    with pytest.raises(InputError, match=re.escape("is the record of another search (network = 'a', now 'b')")):
        Journal(path, {**HEADER, "network": "b"})


@pytest.mark.parametrize("content", ["no json\n", "[1]\n", '{"format": "something else"}\n'])
def test_a_file_that_is_no_record_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "tries.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match="not a record of autotune"):
        Journal(path, HEADER)
    assert path.read_text() == content
