"""How fast the server is, beside other servers of the same graph and beside gRPC alone.

    make bench-serve                                everything, into docs/bench: some eight minutes on two cores
    python -m benchmarks.serving --setup-peers      install Triton, MLServer, Ray Serve and perf_analyzer beside it, once
    python -m benchmarks.serving --only unary       one row, printed and not written
    python -m benchmarks.serving --only batching    batching that decides by itself against fixed settings: four minutes

Load and servers run on this machine, on 127.0.0.1. Run it where nothing else does. h2load comes with nghttp2-client.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.serving import environments, report, suite


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--setup-peers", action="store_true", help="install the other servers, and end")
    parser.add_argument("--only", choices=suite.ROWS, action="append", help="this row; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one short round: whether it runs, not how fast")
    parser.add_argument("--demo-bundle", type=Path, help="the digits bundle of `hardpath demo` [trained where absent]")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the page")
    parser.add_argument(
        "--out", type=Path, help="folder of the results [docs/bench, or nowhere with --only or --quick]"
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/bench"), help="what is made once [%(default)s]")
    options = parser.parse_args()
    cache = options.cache.absolute()
    if options.setup_peers:
        for name in environments.NAMES:
            print(f"{name}: {environments.set_up(cache, name)}", file=sys.stderr, flush=True)
        return
    cache.mkdir(parents=True, exist_ok=True)
    size = suite.QUICK if options.quick else suite.FULL
    found = suite.measure(size, cache, tuple(options.only or suite.USUAL), options.demo_bundle)
    print(found.json() if options.json else report.page(found), end="")
    out = options.out or (None if options.only or options.quick else Path("docs/bench"))
    if out is not None:
        report.write(out, found)
        print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
