"""AWQ (Lin et al. 2023, arXiv:2306.00978): columns of weights that meet large activations are rounded more finely.

    s_c = mean |x_c|^alpha,     alpha = argmin |x (Q(W diag(s)) diag(s)^-1 - W)^T|^2            (equations 4 and 5)

over a grid of 20 steps: a weight that is scaled up before rounding has a relative error `1 / s_c` as large, as long
as its block's largest value stays about what it was. For weights alone in few bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bitwright.quant.calibrate import Arguments
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fake_quantize import fake_quantize
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.preparations.search import best_scale
from bitwright.quant.preparations.sites import Seen, Site, find_sites, scale_channels, watch
from bitwright.quant.scheme import QuantScheme
from bitwright.quant.weights import choose_weight_qparams


class Awq:
    """Scales by the activations, tried on what the rounded weights make of them."""

    name = "awq"
    samples = 64

    @torch.no_grad()
    def prepare(self, captured: CapturedModel, scheme: QuantScheme, samples: Sequence[Arguments]) -> CapturedModel:
        """See the module."""
        decided = plan(captured.graph, scheme)
        sites = find_sites(captured.graph, decided)
        seen = watch(captured, sites, samples)
        found = {site: self._scale(captured, decided, site, seen[site.data]) for site in sites if site.data in seen}
        return scale_channels(captured, {site: scale for site, scale in found.items() if scale is not None})

    def _scale(self, captured: CapturedModel, decided: QuantPlan, site: Site, seen: Seen) -> torch.Tensor | None:
        refs = [node.tensors[1] for node in site.readers]
        weights = [captured.values[captured.value_refs[ref]] for ref in refs]
        power = [(seen.rows @ weight.T).square().mean().clamp(min=1e-30) for weight in weights]

        def error(scale: torch.Tensor) -> float:
            total = 0.0
            for ref, weight, size in zip(refs, weights, power, strict=True):
                spec, scaled = decided.weights[ref], weight * scale
                axis = 0 if spec.block_size is None else 1
                rounded = fake_quantize(scaled, choose_weight_qparams(scaled, spec, axis)) / scale
                total += float((seen.rows @ (rounded - weight).T).square().mean() / size)
            return total

        return best_scale(seen.magnitude, torch.ones_like(seen.magnitude), error)


PREPARATION = Awq()
