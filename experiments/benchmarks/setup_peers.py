"""Makes the peers' environments: `python -m bitwright.experiments.benchmarks.setup_peers [NAME…]`."""

from __future__ import annotations

import argparse
import sys

from bitwright.experiments.benchmarks.peers.environments import PEERS, install, install_library
from bitwright.experiments.benchmarks.places import peers_home
from bitwright.quant.errors import InputError


def main() -> int:
    """Installs the named peers, or all; exit code 1 when one failed, after trying the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(PEERS)} (default: all)")
    names = parser.parse_args().names or list(PEERS)
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"unknown peer {unknown[0]!r}; there are: {', '.join(PEERS)}")
    home = peers_home()
    home.mkdir(parents=True, exist_ok=True)
    install_library(home)
    failed = 0
    for name in names:
        print(f"{name}: {' '.join(PEERS[name].requirements)}", flush=True)
        try:
            install(PEERS[name], home)
        except InputError as error:
            print(error, file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
