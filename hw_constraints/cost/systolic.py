"""Compute cycles of a systolic array in closed form: the cycles that SCALE-Sim counts.

One operand stays in the array of R rows and C columns while the others are pushed through it, skewed by one cycle a row
and a column. With S = taps of a result, K = output channels and T = results of a channel, a dataflow folds

    weight stationary   S over the rows, K over the columns   ⌈S/R⌉ ⌈K/C⌉ (2R + C + T − 2) − 1
    output stationary   T over the rows, K over the columns   ⌈T/R⌉ ⌈K/C⌉ (R + C + S − 2) − 1
    input stationary    S over the rows, T over the columns   ⌈S/R⌉ ⌈T/C⌉ (2R + C + K − 2) − 1

The array is filled (R cycles) before what stays can be used, except for results, which are made in place; the last
element leaves R + C − 2 cycles after the first; folds follow each other without overlap and without stalls.
Source: A. Samajdar et al., "A Systematic Methodology for Characterizing Scalability of DNN Accelerators using
SCALE-Sim", ISPASS 2020, equations 1-4, and SCALE-Sim 3.0.0, which counts from zero (− 1).
"""

from __future__ import annotations

from bitwright.hw_constraints.lower.work import Work
from bitwright.hw_constraints.target_hardware import Dataflow


def systolic_cycles(work: Work, dataflow: Dataflow, rows: int, columns: int) -> int:
    """Compute cycles of one operation; each group of channels is a layer of its own, as is each product of a batch.

    Args:
        work: what multiplies; images of a batch that share weights are more results.
        dataflow: what stays in the array.
        rows: of the array.
        columns: of the array.

    Raises:
        ValueError: the work multiplies nothing, or the dataflow is no systolic one.
    """
    if not work.macs:
        raise ValueError(f"work of kind {work.kind} multiplies nothing; a systolic array does not run it")
    results = work.y.output * work.x.output
    layers = work.groups
    if work.weights_are_activations:
        layers *= work.batch
    else:
        results *= work.batch
    return layers * layer_cycles(work.taps, work.out_channels, results, dataflow, rows, columns)


def layer_cycles(taps: int, channels: int, results: int, dataflow: Dataflow, rows: int, columns: int) -> int:
    """The formula: `taps` of a result, output `channels`, `results` of a channel.

    Raises:
        ValueError: the dataflow is no systolic one.
    """
    if dataflow is Dataflow.WEIGHT_STATIONARY:
        folds, fold = _folds(taps, rows, channels, columns), 2 * rows + columns + results - 2
    elif dataflow is Dataflow.OUTPUT_STATIONARY:
        folds, fold = _folds(results, rows, channels, columns), rows + columns + taps - 2
    elif dataflow is Dataflow.INPUT_STATIONARY:
        folds, fold = _folds(taps, rows, results, columns), 2 * rows + columns + channels - 2
    else:
        raise ValueError(f"dataflow {dataflow} is none of weight_stationary, output_stationary, input_stationary")
    return folds * fold - 1


def _folds(down: int, rows: int, across: int, columns: int) -> int:
    return -(-down // rows) * -(-across // columns)
