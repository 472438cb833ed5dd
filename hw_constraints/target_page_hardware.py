"""The machine on a target's page: engines, memories, links, layouts, sparsity and the cost model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bitwright.hw_constraints.target_hardware import CostModelKind, Engine, EngineKind, Loop, Memory, MemoryKind
from bitwright.hw_constraints.target_needs import COST_FIGURES
from bitwright.hw_constraints.target_page_parts import Sources, table
from bitwright.hw_constraints.target_source import Figure
from bitwright.hw_constraints.target_types import Target

Row = tuple[str, ...]
_COST_MODELS = {
    CostModelKind.ROOFLINE: "roofline, the longer of compute and traffic",
    CostModelKind.ARRAY: "unrolled array, cycles of the loop nest over its memories",
    CostModelKind.ETHOS_U: "Ethos-U, block by block",
}
_MEMORIES = {
    MemoryKind.REGISTERS: "registers",
    MemoryKind.SRAM: "SRAM, placed by the compiler",
    MemoryKind.CACHE: "cache, filled by the hardware",
    MemoryKind.DRAM: "off the chip",
}


def hardware(target: Target, sources: Sources) -> list[str]:
    """The sections about the machine; empty ones are left out."""
    return [
        _engines(target, sources),
        _memories(target, sources),
        _data(target, sources),
        _cost(target, sources),
    ]


def _engines(target: Target, sources: Sources) -> str:
    if not target.engines:
        return ""
    engines = target.engines.values()
    rows = [row for engine in engines for row in _engine_rows(engine, sources)]
    parts = ["## Engines", *(f"- {engine.name}: {_what(engine)}" for engine in engines)]
    return "\n".join([*parts, *(["", table(("engine", "figure", "value", "source"), rows)] if rows else [])])


def _what(engine: Engine) -> str:
    kind = (
        "takes what the accelerator does not run"
        if engine.kind is EngineKind.HOST
        else _words(engine.kind).replace("mac", "MAC")
    )
    parts = [f"{engine.count} x {kind}" if engine.count > 1 else kind]
    if engine.runs:
        parts.append(f"runs {', '.join(map(_words, engine.runs))}")
    if engine.operators:
        parts.append(f"runs {', '.join(engine.operators)}")
    if engine.formats:
        parts.append(f"computes in {', '.join(engine.formats)}")
    if engine.reads:
        both = set(engine.reads) == set(engine.writes)
        parts.append(f"{'reads and writes' if both else 'reads'} {', '.join(engine.reads)}")
        if engine.writes and not both:
            parts.append(f"writes {', '.join(engine.writes)}")
    return "; ".join(parts)


def _engine_rows(engine: Engine, sources: Sources) -> Iterable[Row]:
    each = " of each" if engine.count > 1 else ""
    yield from _figures(engine.name, engine.figures, sources, each)
    if engine.array:
        mark = sources.mark(engine.array.source, verified=engine.array.verified)
        yield engine.name, f"array{each}", str(engine.array), mark
        for kind, unroll in engine.array.unroll_for.items():
            yield engine.name, f"array in {_words(kind)} work", _loops(unroll), mark
    peak = _peak(engine)
    if peak:
        yield engine.name, "peak, all units", peak, "derived"


def _loops(unroll: Mapping[Loop, int]) -> str:
    return ", ".join(f"{loop} {count}" for loop, count in unroll.items())


def _peak(engine: Engine) -> str:
    """Width times clock times units; left out where it is not known or a data sheet's rate stands already."""
    if engine.macs_per_cycle is None or engine.clock_hz is None:
        return ""
    return f"{2 * engine.count * engine.macs_per_cycle * engine.clock_hz / 1e12:.4g} TOPS"


def _memories(target: Target, sources: Sources) -> str:
    if not target.memories:
        return ""
    rows = [row for memory in target.memories.values() for row in _memory_rows(memory, target, sources)]
    return "## Memories\n" + table(("memory", "figure", "value", "source"), rows)


def _memory_rows(memory: Memory, target: Target, sources: Sources) -> Iterable[Row]:
    readers = [engine.name for engine in target.engines.values() if memory.name in (*engine.reads, *engine.writes)]
    links = [link.name for link in target.links.values() if memory.name in (link.start, link.end)]
    reach = ", ".join([*readers, *(f"link {name}" for name in links)])
    yield memory.name, "kind", f"{_MEMORIES[memory.kind]}; reached by {reach}", ""
    yield from _figures(memory.name, memory.figures, sources)
    if memory.use:
        yield memory.name, "holds", str(memory.use), sources.mark(memory.use.source, verified=memory.use.verified)
    if memory.ports:
        yield memory.name, "ports", str(memory.ports), sources.mark(memory.ports.source, verified=memory.ports.verified)


def _figures(owner: str, figures: Mapping[str, Figure], sources: Sources, suffix: str = "") -> Iterable[Row]:
    for name, figure in figures.items():
        yield owner, f"{_named(name)}{suffix if name != 'clock' else ''}", str(figure), sources.of(figure)


def _named(figure: str) -> str:
    """`int8_dense` as `int8 dense`; a format keeps its underscores."""
    for ending in ("dense", "sparse", "energy", "elements"):
        if figure.endswith(f"_{ending}"):
            return f"{figure.removesuffix(f'_{ending}')} {ending}"
    return "MACs" if figure == "macs" else _words(figure)


def _data(target: Target, sources: Sources) -> str:
    rows: list[Row] = []
    for link in target.links.values():
        figures = [f"{_words(name)} {figure} {sources.of(figure)}" for name, figure in link.figures.items()]
        says = ", ".join([str(link), *figures])
        rows.append(("link", link.name, says, sources.mark(link.source, verified=link.verified)))
    for layout in target.layouts.values():
        says = f"{layout}{', the default' if layout.default else ''}"
        rows.append(("layout", layout.name, says, sources.mark(layout.source, verified=layout.verified)))
    for reformat in target.reformats.values():
        mark = sources.mark(reformat.source, verified=reformat.verified)
        rows.append(("reformat", reformat.name, str(reformat), mark))
    for sparsity in target.sparsity:
        says = f"weights of {', '.join(sorted(sparsity.operators))} in {', '.join(sparsity.formats)}"
        mark = sources.mark(sparsity.source, verified=sparsity.verified)
        rows.append(("sparsity", str(sparsity), says, mark))
    return "## Links, layouts, sparsity\n" + table(("what", "name", "says", "source"), rows) if rows else ""


def _cost(target: Target, sources: Sources) -> str:
    if target.cost is None:
        return ""
    known = COST_FIGURES[target.cost.kind]
    rows = [
        (name, str(figure), known[name].meaning, sources.of(figure)) for name, figure in target.cost.figures.items()
    ]
    head = f"## Cost model: {_COST_MODELS[target.cost.kind]}"
    return f"{head}\n{table(('figure', 'value', 'meaning', 'source'), rows)}" if rows else head


def _words(name: str) -> str:
    return name.replace("_", " ")
