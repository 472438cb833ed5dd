"""Target files: one YAML file is one accelerator."""
