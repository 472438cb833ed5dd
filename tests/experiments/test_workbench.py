"""What a recipe names, opened once."""

from pathlib import Path

from bitwright.experiments.recipe import Recipe
from bitwright.experiments.workbench import Workbench


def test_the_targets_fingerprint_follows_the_files_that_it_extends(tmp_path: Path) -> None:
    def fingerprint() -> str:
        recipe = {"name": "own", "target": str(child), "model": {"entry": "a.b:c"}, "data": {"entry": "a.b:d"}}
        return Workbench(Recipe.model_validate(recipe)).target_fingerprint

    parent, child = tmp_path / "parent.yaml", tmp_path / "child.yaml"
    parent.write_text("id: parent\nversion: 1\ndescription: ours\nextends: x86-vnni\n")
    child.write_text("id: child\nversion: 1\ndescription: ours\nextends: parent.yaml\n")
    before = fingerprint()
    child.write_text("id: child\nversion: 1\ndescription: ours\nextends: parent.yaml\n# a comment says nothing\n")
    assert fingerprint() == before
    parent.write_text("id: parent\nversion: 1\ndescription: ours\nextends: x86-vnni\nnumerics: {bias: float32}\n")
    assert fingerprint() != before


def test_runtimes_that_do_not_read_what_the_chain_exports_are_left_out() -> None:
    recipe = {"name": "own", "target": "arm-xnnpack", "model": {"entry": "a.b:c"}, "data": {"entry": "a.b:d"}}
    bench = Workbench(Recipe.model_validate(recipe))
    assert "litert" in bench.target.artifact.runtimes  # installed or not: it reads .tflite
    assert bench.runtimes(None) == ()
    assert bench.runtimes_or_simulator()[0] == ("onnxruntime",)
