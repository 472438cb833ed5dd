from dataclasses import replace

from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph, TensorRef
from bitwright.quant.plan import QuantPlan, plan


def warped() -> tuple[Graph, TensorRef]:
    b = GraphBuilder()
    image, flow = b.input(1, 8, 16, 16), b.input(1, 16, 16, 2)
    x = b.conv2d(image, 8)
    grid = b.call("mul", flow, b.parameter(2), shape=(1, 16, 16, 2), line="grid = flow * self.scale", module="warp")
    y = b.call("grid_sampler", x, grid, shape=(1, 8, 16, 16), line="y = F.grid_sample(x, grid)", module="warp")
    return b.graph(b.conv2d(y, 8)), grid


def voxels() -> tuple[Graph, TensorRef]:
    b = GraphBuilder()
    points, features = b.input(100, 3), b.input(100, 8)
    cell = b.call("div", points, b.parameter(3), shape=(100, 3), line="cell = points / self.voxel_size")
    index = b.call("to", cell, shape=(100, 3), dtype="int64", line="index = cell.long()")
    return b.graph(b.call("index", features, index, shape=(100, 8))), cell


def quantizing(graph: Graph, place: TensorRef) -> QuantPlan:
    """A plan that somebody made without regard to geometry."""
    made = plan(graph, load_target("x86-vnni").scheme())
    return replace(made, activations={**made.activations, place: made.scheme.activations})


def careful(graph: Graph) -> QuantPlan:
    return plan(graph, load_target("x86-vnni").scheme())


def best() -> Graph:
    b = GraphBuilder()
    scores = b.call("softmax", b.conv2d(b.input(1, 8, 16, 16), 8), shape=(1, 8, 16, 16), dim=1)
    return b.graph(b.call("argmax", scores, shape=(1, 16, 16), dtype="int64", dim=1))


BAD = [
    RuleCase(
        name="sampling-grid",
        target="x86-vnni",
        graph=warped()[0],
        plan=quantizing(*warped()),
        lines=(2,),
        says="mul computes places and is planned as uint8 | indices",
    ),
    RuleCase(
        name="voxel-index", target="x86-vnni", graph=voxels()[0], plan=quantizing(*voxels()), lines=(1,), says="div"
    ),
    RuleCase(
        name="grid-without-float", target="ethos-u85-1024", graph=warped()[0], lines=(2,), says="no floating point"
    ),
    RuleCase(name="voxel-without-float", target="ethos-u85-1024", graph=voxels()[0], lines=(1,), says="div ends"),
]


def fixed_grid() -> Graph:
    """Coordinates that depend on the image's size alone."""
    b = GraphBuilder()
    image = b.input(1, 8, 16, 16)
    ones = b.call("new_ones", image, shape=(1, 16, 16, 2))
    grid = b.call("mul", ones, b.parameter(2), shape=(1, 16, 16, 2))
    return b.graph(b.call("grid_sampler", image, grid, shape=(1, 8, 16, 16)))


GOOD = [
    RuleCase(name="the-best-of-several", target="ethos-u85-1024", graph=best()),
    RuleCase(name="known-before-it-runs", target="ethos-u85-1024", graph=fixed_grid()),
    RuleCase(name="kept-in-float", target="x86-vnni", graph=warped()[0], plan=careful(warped()[0])),
    RuleCase(name="no-plan-yet", target="tensorrt-orin", graph=voxels()[0]),
]
