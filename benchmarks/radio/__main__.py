"""What the radio link reaches: bit errors through GNU Radio beside theory, ablations, accuracy, envelope and speed.

make bench-radio                       everything, into docs/bench: some five minutes on two cores
python -m benchmarks.radio --quick     whether it runs, into runs/bench/quick
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.radio import page


def main() -> None:
    """Measure, print the page, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few frames: whether it runs, not how well")
    parser.add_argument("--bundle", type=Path, default=Path("runs/demo/bundle"), help="of digits [%(default)s]")
    parser.add_argument("--out", type=Path, help="folder of the results [docs/bench, or runs/bench/quick]")
    options = parser.parse_args()
    out = options.out or Path("runs/bench/quick" if options.quick else "docs/bench")
    out.mkdir(parents=True, exist_ok=True)
    found = page.measure(options.bundle, 0.1 if options.quick else 1.0)
    print(page.write(out, found))
    print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
