"""How fast the link is, beside others and beside what is possible.

    make bench                             everything, into docs/bench: some five minutes on two cores
    python -m benchmarks.link --quick      a smoke test of a minute, into runs/bench/quick

Run it on a machine with nothing else to do. What it needs and does not find it makes in runs/bench: the digits bundle, an
environment with scikit-commpy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Measure, print the tables, write them."""
    # Imported here, since worker processes import this file anew.
    import torch

    from benchmarks import figures, report, suite
    from benchmarks.timing import Stopwatch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--out", type=Path, help="folder of the results [docs/bench, or runs/bench/quick]")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench"), help="what is made once [%(default)s]")
    options = parser.parse_args()
    size = suite.QUICK if options.quick else suite.FULL
    out = options.out or (options.cache / "quick" if options.quick else Path("docs/bench"))
    for folder in (out, options.cache):
        folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    watch = Stopwatch(size.rounds, size.least_s)
    found = suite.measure(watch, size, options.cache)
    watch.write(out / "timings.csv")
    print(report.write(out, found))
    figures.draw(out, found.growth, found.workers, found.chains)
    print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
