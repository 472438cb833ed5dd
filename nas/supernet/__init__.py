"""Supernets: all networks of a space trained at once in weights that they share, and what each scores with them.

    train_supernet(elastic, task, SupernetSettings(epochs=20), folder)
    accuracy = InheritedAccuracy(elastic=elastic, task=task, folder=folder / "inherited")
    accuracy(candidate)

Importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.nas.supernet.checkpoint import load_supernet
    from bitwright.nas.supernet.inherited import InheritedAccuracy
    from bitwright.nas.supernet.rank import RankCorrelation, rank_correlation
    from bitwright.nas.supernet.recalibration import recalibrate
    from bitwright.nas.supernet.settings import SupernetSettings
    from bitwright.nas.supernet.stand_alone import StandAloneAccuracy
    from bitwright.nas.supernet.task import Task
    from bitwright.nas.supernet.training import train_supernet

__all__ = [
    "InheritedAccuracy",
    "RankCorrelation",
    "StandAloneAccuracy",
    "SupernetSettings",
    "Task",
    "load_supernet",
    "rank_correlation",
    "recalibrate",
    "train_supernet",
]
__getattr__ = lazy_attributes(__name__, __file__)
