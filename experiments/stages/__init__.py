"""Stages of a run, one a file; `STAGE` says what a stage's result follows from and how it is made.

| stage | needs | result (in `experiments.results`) | files |
|---|---|---|---|
| train | | `TrainResult` | `weights.safetensors` |
| lint | train | `LintResult` | |
| quantize | train | `QuantizeResult` | `float.onnx`, `quantized.onnx`, their `.provenance.json` |
| evaluate | train, quantize | `EvaluateResult` | |
| prove | quantize | `ProveResult` | |
| measure | quantize | `MeasureResult` | |
| autotune | train | `TunedResult` | `tuned.onnx`, its `.provenance.json`, `tries.jsonl` |
| verdict | lint, quantize, evaluate, prove, measure | `VerdictResult` | |

Calibration, quantization and export are one stage, because a quantized network is at home in memory: the artefact
is what is kept of it. Stages that a recipe does not ask for (`train`, `autotune`, `qat`, `search` …) are skipped, and
those that need them take the network as the recipe gives it.
"""
