"""The wheel, installed into an empty environment and used away from the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("quant", "hw_constraints", "qat", "nas", "experiments", "recipes")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because building leaves files beside the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*ROOMS, "pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bitwright(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command. The dependencies are this environment's, seen through a .pth file; Bitwright is not."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = environment / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    dependencies = packages.parent / "dependencies"
    dependencies.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "bitwright" not in path.name and not path.name.endswith(".pth"):
            (dependencies / path.name).symlink_to(path)
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return environment / "bin" / "bitwright"


def run(command: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([command, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_every_file_of_the_rooms_is_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"bitwright/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix == ".py" or (path.is_file() and (path.parent / "__init__.py").exists())
    }
    wanted = {name for name in wanted if "__pycache__" not in name}
    assert wanted - inside == set()
    assert {name.split("/")[0] for name in inside if not name.endswith("/")} == {
        "bitwright", next(name.split("/")[0] for name in inside if ".dist-info" in name)
    }  # fmt: skip


def test_it_is_the_wheel_that_runs(bitwright: Path, tmp_path: Path) -> None:
    where = run(bitwright.with_name("python"), "-c", "import bitwright.quant as q; print(q.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(bitwright.parents[1]), where.stderr


def test_doctor_finds_nothing_wrong(bitwright: Path, tmp_path: Path) -> None:
    done = run(bitwright, "doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_ls_names_what_is_shipped(bitwright: Path, tmp_path: Path) -> None:
    done = run(bitwright, "ls", cwd=tmp_path)
    assert done.returncode == 0
    assert "digits_mobilenet" in done.stdout and "x86-vnni" in done.stdout


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_shipped_recipe_is_valid(bitwright: Path, tmp_path: Path, recipe: str) -> None:
    done = run(bitwright, "validate", recipe, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_demo_runs(bitwright: Path, tmp_path: Path) -> None:
    done = run(bitwright, "run", "digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "digits" / "stages" / "quantize" / "quantized.onnx").is_file()
