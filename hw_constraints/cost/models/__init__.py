"""Cost models, one a file: `estimate` gives the layers of a lowered network. The file's name stands in target files."""
