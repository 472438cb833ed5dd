"""`.pt2` files in torch's runtimes: what they give, and that nothing in them is run when they are read."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.measure import measure_in_subprocess
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
OFFSET = np.ones((1, 4, 8, 8), np.float32)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image, *, offset):
        return torch.relu(self.conv(image)) + offset


@pytest.fixture(scope="module")
def model():
    return Small().eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    program = torch.export.export(model, (torch.zeros(IMAGE.shape),), {"offset": torch.zeros(OFFSET.shape)})
    torch.export.save(program, path)
    return path


@pytest.fixture
def rewritten(file, tmp_path):
    """The same archive with entries changed or added."""

    def rewrite(changes):
        path = tmp_path / "changed.pt2"
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
            root = old.namelist()[0].split("/")[0]
            entries = {name: old.read(name) for name in old.namelist()}
            for name, change in changes.items():
                entries[f"{root}/{name}"] = change(entries.get(f"{root}/{name}", b""))
            for name, content in entries.items():
                new.writestr(name, content)
        return path

    return rewrite


@pytest.mark.parametrize("runtime", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_file_gives_what_its_module_gives(runtime, model, file):
    session = get_backend(runtime).load(file, threads=1)
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.input_infos] == [
        ("image", "float32", IMAGE.shape),
        ("offset", "float32", OFFSET.shape),
    ]
    feed = {"image": IMAGE, "offset": OFFSET}
    expected = model(torch.from_numpy(IMAGE), offset=torch.from_numpy(OFFSET)).detach().numpy()
    np.testing.assert_allclose(session.run(feed)["output"], expected, rtol=1e-5, atol=1e-6)
    assert any("conv" in kernel.op for kernel in session.profile(feed, 2))
    with pytest.raises(InputError, match=r"'offset' has shape \(1, 4, 8, 9\); the model takes \(1, 4, 8, 8\)"):
        session.run({"image": IMAGE, "offset": np.ones((1, 4, 8, 9), np.float32)})


class Counting(torch.nn.Module):
    """Returns a mapping, and counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.conv = Small().conv

    def forward(self, image, *, offset):
        self.calls.add_(1)
        return {"shifted": self.conv(image) + offset, "calls": self.calls * 1}


@pytest.mark.parametrize("runtime", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_captured_network_gives_what_it_gives_itself(runtime):
    captured = capture(Counting(), (torch.from_numpy(IMAGE),), {"offset": torch.from_numpy(OFFSET)})
    expected = captured.run(torch.from_numpy(IMAGE), offset=torch.from_numpy(OFFSET))
    session = get_backend(runtime).load(captured)
    names = [spec.name for spec in session.input_infos]
    assert [spec.shape for spec in session.input_infos] == [IMAGE.shape, OFFSET.shape]
    for _ in range(2):  # each call starts from the captured state
        results = session.run(dict(zip(names, (IMAGE, OFFSET), strict=True)))
        for key, value in expected.items():
            np.testing.assert_allclose(results[key], value.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_inductor_is_measured_against_eager_by_file(file):
    result = measure_in_subprocess({"a": (file, "eager"), "b": (file, "inductor")}, max_seconds=3.0, min_rounds=10)
    assert result.latency("b").versions == {"inductor": get_backend("inductor").version()}
    assert result.ratio("b", "a").value > 0


def test_an_open_dimension_stays_open(model, tmp_path):
    class Positional(torch.nn.Module):
        def forward(self, image):
            return image.flatten(1) * 2

    program = torch.export.export(
        Positional(), (torch.zeros(4, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=9)},)
    )
    torch.export.save(program, tmp_path / "open.pt2")
    session = get_backend("eager").load(tmp_path / "open.pt2")
    assert session.input_infos[0].shape == (None, 3, 8, 8)
    assert session.run({"image": np.ones((3, 3, 8, 8), np.float32)})["output"].shape == (3, 192)


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def pickled_for_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_pickled_example_inputs_are_not_run(rewritten, tmp_path):
    trap = tmp_path / "trap"
    content = pickled_for_torch(((Runs(trap),), {}))
    path = rewritten({"data/sample_inputs/model.pt": lambda _: content})
    with pytest.raises(InputError, match=r"changed\.pt2: torch cannot load it: .{10}"):
        get_backend("eager").load(path)
    assert not trap.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_pickled_constants_are_refused(rewritten, tmp_path):
    trap = tmp_path / "trap"
    path = rewritten({"data/constants/opaque_obj_0": lambda _: pickle.dumps(Runs(trap))})
    with pytest.raises(InputError, match=r"holds a pickled object \(data/constants/opaque_obj_0\): unpickling it can"):
        get_backend("eager").load(path)
    assert not trap.exists()


def test_computed_dimensions_are_refused(rewritten):
    expression = b"__import__('os').abort()"
    path = rewritten({"models/model.json": lambda text: text[:-1] + b', "x": {"expr_str": "' + expression + b'"}}'})
    with pytest.raises(InputError, match=r"has the computed dimension \"__import__.*\"; export it with fixed shapes"):
        get_backend("eager").load(path)


def test_compiled_libraries_are_refused(rewritten):
    path = rewritten({"data/aotinductor/model/a.so": lambda _: b"\x7fELF"})
    with pytest.raises(InputError, match=r"holds a compiled library \(data/aotinductor/model/a\.so\)"):
        get_backend("eager").load(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_what_is_no_archive(content, tmp_path):
    path = tmp_path / "a.pt2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pt2: torch cannot load it: .{10}"):
        get_backend("eager").load(path)
