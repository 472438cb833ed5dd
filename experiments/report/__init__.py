"""The report of a run: one self-contained HTML page, a pure view of `record.json`."""

from bitwright.experiments.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
