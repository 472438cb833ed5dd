import pytest

from bitwright.experiments.benchmarks import run
from bitwright.experiments.benchmarks.peers.asking import WORKERS
from bitwright.experiments.benchmarks.peers.environments import PEERS


def test_an_unknown_row_lists_the_rows(capsys):
    assert run.main(["no_such_row"]) == 2
    error = capsys.readouterr().err
    assert "unknown row 'no_such_row'; there are: " in error
    assert all(name in error for name in run.row_names())


def test_an_unknown_option_lists_the_options(capsys):
    assert run.main([run.row_names()[0], "data.rot=/"]) == 2
    assert capsys.readouterr().err == "unknown option 'data.rot'; there are: data.root\n"


@pytest.mark.parametrize("name", run.row_names())
def test_every_row_says_what_it_asks(name):
    source = (run.ROWS / f"{name}.py").read_text()
    assert source.startswith('"""')
    assert "def run(bench: Bench) -> list[Record]:" in source


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_worker_and_exact_versions(name):
    assert (WORKERS / f"{name}_worker.py").is_file()
    assert all("==" in requirement for requirement in PEERS[name].requirements)
