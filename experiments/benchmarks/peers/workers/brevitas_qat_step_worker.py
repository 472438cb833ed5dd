"""Brevitas' training: its graph quantization with batch norms merged, calibrated, then the user's own loop."""

from __future__ import annotations

import brevitas_qat_worker
import torch
from qat_step_exchange import Request, Trainee, serve


def prepare(network: torch.nn.Module, request: Request) -> Trainee:
    """As where its accuracy is compared."""
    made = brevitas_qat_worker.prepare(network, request)
    made.train()
    return Trainee(forward=made.forward, parameters=list(made.parameters))


if __name__ == "__main__":
    serve(("brevitas", "torch"), {"per channel": prepare})
