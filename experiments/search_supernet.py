"""A recipe's supernet: all candidates of its search trained at once, so that each begins with weights it inherits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bitwright.experiments.recipe_section import Count, Section, Share

if TYPE_CHECKING:
    from bitwright.experiments.search_workload import RecipeWorkload
    from bitwright.experiments.supernet_task import DataTask
    from bitwright.nas.elastic import Elastic
    from bitwright.nas.space import SearchSpace
    from bitwright.nas.supernet import InheritedAccuracy


class Supernet(Section):
    """Trains all candidates at once in shared weights; see `bitwright.nas.supernet.SupernetSettings`.

    Attributes:
        epochs: passes over the training samples.
        batch: samples a step.
        lr: the highest learning rate.
        weight_decay: of AdamW.
        random: networks drawn by chance in each step, beside the largest and the smallest.
        labels: the share of the labels in the loss of all but the largest; the rest is imitation of the largest.
        shrinking: from when to when parameters open, as shares of the training: `"kernel*": [0.0, 0.2]`.
        calibration: training batches for the batch norms of each candidate.
        checkpoint_every: steps between two checkpoints, from which a training that was cut goes on.
        samples: evaluation samples that inherited accuracies are scored on; all when not given.
    """

    epochs: Count = 20
    batch: Count = 64
    lr: Annotated[float, Field(gt=0)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    random: Annotated[int, Field(ge=0)] = 2
    labels: Share = 0.0
    shrinking: dict[str, tuple[Share, Share]] = Field(default_factory=dict)
    calibration: Count = 4
    checkpoint_every: Count = 200
    samples: Count | None = None


def recipe_task(workload: RecipeWorkload, asked: Supernet) -> DataTask:
    """What a recipe's data teach; opens them."""
    from bitwright.experiments.inputs import arguments_of
    from bitwright.experiments.supernet_task import DataTask

    recipe = workload.recipe
    return DataTask(
        data=workload.bench.data,
        read=arguments_of(workload.build({}), recipe.data.inputs),
        batch=asked.batch,
        metric=recipe.evaluate.metric,
        samples=asked.samples,
        origin=(recipe_task, (workload, asked)),
    )


def trained_supernet(
    workload: RecipeWorkload,
    space: SearchSpace,
    asked: Supernet,
    folder: Path,
    *,
    elastic: Elastic | None = None,
) -> InheritedAccuracy:
    """Trains the supernet, or goes on where it was cut, or reads it where it has ended.

    Args:
        workload: the recipe.
        space: of the search.
        asked: the recipe's section.
        folder: gets the weights, the curves of the training and the inherited scores.
        elastic: the networks where they are not the recipe's builder's.
    """
    from bitwright.experiments.supernet_events import supernet_events
    from bitwright.nas.elastic.built import BuiltElastic
    from bitwright.nas.moves import largest_candidate
    from bitwright.nas.supernet import InheritedAccuracy, SupernetSettings, train_supernet

    task = recipe_task(workload, asked)
    if elastic is None:
        largest = workload.build(space.architecture(largest_candidate(space)))
        elastic = BuiltElastic(space, workload.build, example=workload.example(largest), largest=largest)
    settings = SupernetSettings(**asked.model_dump(exclude={"batch", "samples"}), seed=workload.recipe.seed)
    with supernet_events(folder) as events:
        train_supernet(elastic, task, settings, folder, writer=events)
    return InheritedAccuracy(elastic=elastic, task=task, folder=folder, calibration=asked.calibration)
