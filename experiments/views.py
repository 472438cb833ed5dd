"""What a run leaves for the eye: the report page and the TensorBoard folder, both views of `record.json`.

Views are no stages: nothing follows from them, and they show what is only known when everything else has finished.
"""

from __future__ import annotations

from pathlib import Path

from bitwright.quant.errors import InputError

REPORT, TENSORBOARD = "report.html", "tensorboard"


def write_views(folder: Path, *, html: bool = True, tensorboard: bool = True) -> tuple[Path, ...]:
    """Writes the views that are asked for, in place of older ones.

    Returns:
        The page and the TensorBoard folder, as far as asked for.

    Raises:
        InputError: there is no run, another version wrote it, or the folder cannot be written to.
    """
    written = []
    try:
        if html:
            from bitwright.experiments.report import write_report

            written.append(write_report(folder, folder / REPORT))
        if tensorboard:
            from bitwright.experiments.tensorboard import write_tensorboard

            written.append(write_tensorboard(folder, folder / TENSORBOARD))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write the report ({error.strerror}); the results are complete: make room or mend the "
            f"permissions, then: bitwright report {folder}"
        ) from error
    return tuple(written)
