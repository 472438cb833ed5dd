"""Makes the neighbours of these tests importable by bare name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
