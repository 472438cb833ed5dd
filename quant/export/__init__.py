"""Exporters write the artefact that a target's own toolchain reads, one a file; see `exporter.Exporter`."""
