"""What becomes of findings: which of them count, and how they are printed for people, pipelines and reviews."""
