"""`python -m bitwright.experiments.benchmarks ROW`: see `run`."""

from bitwright.experiments.benchmarks.run import main

raise SystemExit(main())
