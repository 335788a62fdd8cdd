"""List every skip and expected failure in the tests; fail on one whose reason is not in permitted_skips.txt."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PERMITTED = TESTS / "permitted_skips.txt"
SKIPPING = {"skip", "skipif", "skipIf", "skipUnless", "importorskip", "xfail", "SkipTest", "expectedFailure"}


def skips(file: Path) -> Iterator[tuple[int, str]]:
    """Line and reason of each skip in a file; the reason is empty where it is no literal."""
    text = file.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if "doctest: " + "+SKIP" in line:
            yield number, "doctest"
    for node in ast.walk(ast.parse(text)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in SKIPPING:
            yield node.lineno, ""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in SKIPPING:
                reasons = [keyword.value for keyword in node.keywords if keyword.arg == "reason"] or node.args[:1]
                yield (
                    node.lineno,
                    next((r.value for r in reasons if isinstance(r, ast.Constant) and isinstance(r.value, str)), ""),
                )


def main() -> int:
    permitted = {
        line for line in PERMITTED.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    }
    root = TESTS.parent
    refused = 0
    files = [
        file for room in ("tests", "hardpath", "link", "train", "serve") for file in sorted((root / room).rglob("*.py"))
    ]
    for file in files:
        if file == Path(__file__):
            continue
        found: dict[int, str] = {}
        for line, reason in skips(file):
            found[line] = found.get(line) or reason
        for line, reason in sorted(found.items()):
            allowed = reason in permitted
            refused += not allowed
            print(
                f"{'permitted' if allowed else 'REFUSED  '} {file.relative_to(root)}:{line}: {reason or 'no literal reason'}"
            )
    if refused:
        print(f"{refused} skips are not in {PERMITTED.relative_to(root)}: mend the tests, or permit the reasons there")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
