"""A profile for people: a line for each layer, then what adds up to the whole, then tails and throughput."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitwright.experiments.profile_command import Profiled
from bitwright.experiments.tables import print_table
from bitwright.hw_constraints.profile.report import LayerTime, NetworkProfile
from bitwright.hw_constraints.profile.tails import Latencies, Quantile, Tails
from bitwright.hw_constraints.profile.throughput import Throughput

_REMARKS = 10  # of the layers that cost most
_MODULES = 8  # of the largest, each with all that is below it


def print_profile(found: Profiled) -> None:
    """The whole page."""
    profile = found.profile
    heads, rows = layer_table(profile)
    print_table(heads, rows)
    print()
    notes = (f"note: {each}" for each in profile.notes)
    print("\n".join([*_totals(profile), *_modules(profile), *_remarks(profile), *notes]))
    for tails in found.tails:
        print()
        _print_tails(tails)
    if found.throughput:
        print()
        _print_throughput(found.throughput)


def layer_table(profile: NetworkProfile) -> tuple[list[str], list[list[str]]]:
    """Column heads and one row a layer; columns without any entry are left out."""
    has = {
        "modelled": any(layer.modelled_us is not None for layer in profile.layers),
        "predicted": any(layer.predicted_us is not None for layer in profile.layers),
        "line": any(layer.source for layer in profile.layers),
    }
    heads = ["layer", "ran in", "kernel", "µs", "share", *(name for name in has if has[name])]
    return heads, [_row(layer, profile, has) for layer in profile.layers]


def _row(layer: LayerTime, profile: NetworkProfile, has: dict[str, bool]) -> list[str]:
    more = f" + {len(layer.members)}" if layer.members else ""
    cells = {
        "modelled": _digits(layer.modelled_us),
        "predicted": _digits(layer.predicted_us),
        "line": _short(layer.source),
    }
    shown = [cells[name] for name in has if has[name]]
    return [layer.name + more, str(layer.state), layer.kernel, _with_interval(layer), _share(layer.us, profile), *shown]


def _short(line: str) -> str:
    """A source line as seen from here."""
    here = f"{Path.cwd()}/"
    return line.removeprefix(here)


def _with_interval(layer: LayerTime) -> str:
    """The time; with half its interval's width where that is more than rounding."""
    if layer.low is None or layer.high is None or layer.high - layer.low < 0.1:
        return _digits(layer.us)
    return f"{_digits(layer.us)} ± {_digits((layer.high - layer.low) / 2)}"


def _share(us: float, profile: NetworkProfile) -> str:
    return f"{us / profile.wall_us:.1%}" if profile.wall_us else "–"


def _digits(us: float | None) -> str:
    if us is None:
        return "–"
    return f"{us:,.0f}" if us >= 1000 else f"{us:.3g}"


def _totals(profile: NetworkProfile) -> list[str]:
    where = profile.device or (profile.machine.cpu_model if profile.machine else "")
    on = f" on {where}" if where else ""
    threads = f", {profile.threads} thread{'s' * (profile.threads > 1)}" if profile.threads else ""
    tool = f"{profile.runtime} {profile.version}".strip()
    lines = [f"{tool}{on}{threads}: {_wall(profile)}"]
    parts = [("layers", profile.layers_us), ("conversions", profile.conversions_us)]
    parts.append(("outside kernels", profile.overhead_us))
    lines.append("  " + " + ".join(f"{name} {_digits(us)} ({_share(us, profile)})" for name, us in parts))
    if profile.conversions:
        kinds = (f"{each.count or ''} {each.op} {_digits(each.us)}".strip() for each in profile.conversions)
        lines.append(f"  conversions: {', '.join(kinds)}")
    if profile.modelled_us is not None:
        same = "" if profile.is_same_device else "; another device than was measured: shares are compared, not times"
        lines.append(f"  modelled for {profile.modelled_by}: {_digits(profile.modelled_us)} µs{same}")
    if profile.predicted_us is not None:
        lines.append(f"  predicted: {_digits(profile.predicted_us)} µs")
    return lines


def _wall(profile: NetworkProfile) -> str:
    interval = ""
    if profile.wall_low is not None and profile.wall_high is not None:
        interval = f" [{_digits(profile.wall_low)}, {_digits(profile.wall_high)}]"
    return f"{_digits(profile.wall_us)}{interval} µs a run ({profile.origin})"


def _modules(profile: NetworkProfile) -> list[str]:
    modules = {path: us for path, us in profile.modules.items() if path}
    largest = sorted(modules, key=lambda path: -modules[path])[:_MODULES]
    return (
        ["  modules: " + ", ".join(f"{path} {_share(modules[path], profile)}" for path in largest)] if largest else []
    )


def _remarks(profile: NetworkProfile) -> list[str]:
    """Where measured and expected times are far apart, the layers that cost most first."""
    apart = sorted((layer for layer in profile.layers if layer.remark), key=lambda layer: -layer.us)
    if not apart:
        return []
    more = [f"  and {len(apart) - _REMARKS} more (--json has all)"] if len(apart) > _REMARKS else []
    return ["apart by more than a quarter:", *(f"  {each.name}: {each.remark}" for each in apart[:_REMARKS]), *more]


def _print_tails(tails: Tails) -> None:
    heads = ("µs", "p50", "95 %", "p99", "95 %", "runs")
    rows = [_tail_row("alone", tails.alone), _tail_row("beside", tails.beside)]
    print_table(heads, rows, title=f"Beside {tails.co_runner}")
    shared = "; it shares the network's own processors" if tails.shares_processors else ""
    print(f"slowdown of the middle {tails.slowdown}{shared}")


def _tail_row(name: str, found: Latencies) -> list[str]:
    cells = [cell for each in (found.p50, found.p99) for cell in (_digits(each.us), _interval(each))]
    return [name, *cells, str(found.runs)]


def _interval(found: Quantile) -> str:
    return f"{_digits(found.low)} to {_digits(found.high)}"


def _print_throughput(found: Sequence[Throughput]) -> None:
    rows = [
        [
            str(each.batch),
            str(each.streams),
            "–" if each.per_second is None else f"{each.per_second:,.1f}",
            "" if each.low is None or each.high is None else f"{each.low:,.1f} to {each.high:,.1f}",
            _digits(each.latency_us),
            each.reason,
        ]
        for each in found
    ]
    print_table(("batch", "streams", "samples a second", "slices", "µs a run", ""), rows, title="Throughput")
