from pathlib import Path

import pytest

from bitwright.experiments.entries import call_entry, entry_fingerprint, load_entry
from bitwright.quant.errors import InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def module(here: Path, text: str) -> str:
    name = f"mine_{here.name}"
    (here / f"{name}.py").write_text(text)
    return name


def refusal(entry: str) -> str:
    with pytest.raises(InputError) as refused:
        call_entry("model.entry", entry)
    return str(refused.value)


def test_a_function_beside_the_user_is_found_and_called(here: Path) -> None:
    name = module(here, "def build(depth=1): return depth + 1")
    assert call_entry("model.entry", f"{name}:build", depth=4) == 5


def test_a_module_that_is_not_there(here: Path) -> None:
    assert refusal("nowhere.net:build") == (
        f"model.entry = 'nowhere.net:build': there is no module 'nowhere' in {here} or among the installed packages"
    )


def test_a_function_that_is_not_there(here: Path) -> None:
    name = module(here, "def build(): ...")
    assert refusal(f"{name}:biuld") == (
        f"model.entry = '{name}:biuld': {here / name}.py defines no 'biuld' (did you mean 'build'?)"
    )


def test_something_that_cannot_be_called(here: Path) -> None:
    name = module(here, "build = 3")
    assert refusal(f"{name}:build") == f"model.entry = '{name}:build': is int; expected a function"


def test_a_module_that_raises_while_it_is_imported(here: Path) -> None:
    name = module(here, "import math\n\nmath.sqrt(-1)\n")
    message = refusal(f"{name}:build")
    assert message.startswith(f"model.entry = '{name}:build': importing '{name}' raised ValueError: ")
    assert message.endswith(f"\n  at {here / name}.py:3: math.sqrt(-1)")


def test_a_module_that_needs_another_one(here: Path) -> None:
    name = module(here, "import not_installed_here\n")
    assert f"importing '{name}' raised ModuleNotFoundError: No module named 'not_installed_here'" in refusal(
        f"{name}:build"
    )


def test_a_function_that_raises(here: Path) -> None:
    name = module(here, "def build():\n    return {}['weights']\n")
    assert refusal(f"{name}:build") == (
        f"model.entry = '{name}:build': raised KeyError: 'weights'\n  at {here / name}.py:2: return {{}}['weights']"
    )


def test_a_function_that_takes_other_arguments(here: Path) -> None:
    name = module(here, "def build(): ...")
    message = (
        rf"raised TypeError: build\(\) got an unexpected keyword argument 'depth'\n  at .*/{name}.py:1: def build\(\)"
    )
    with pytest.raises(InputError, match=message):
        call_entry("model.entry", f"{name}:build", depth=3)


def test_the_fingerprint_follows_the_file(here: Path) -> None:
    name = module(here, "def build(): ...")
    before = entry_fingerprint(f"{name}:build")
    module(here, "def build(): return 1")
    assert entry_fingerprint(f"{name}:build") != before
    assert entry_fingerprint("nowhere.net:build") == "not found"


def test_an_input_error_of_the_users_own_is_passed_on(here: Path) -> None:
    name = module(here, "from bitwright.quant.errors import InputError\ndef build(): raise InputError('no weights')")
    assert refusal(f"{name}:build") == "no weights"


def test_a_class_is_as_good_as_a_function(here: Path) -> None:
    name = module(here, "class Net: ...")
    assert load_entry("model.entry", f"{name}:Net").__name__ == "Net"
