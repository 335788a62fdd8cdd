"""Fail where the stubs in serve/pb are not those that proto/ gives."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "proto", Path(folder) / "proto")
        subprocess.run(
            ["sh", "proto/generate.sh"], cwd=folder, env={**os.environ, "PYTHON": sys.executable}, check=True
        )
        made = sorted(path.relative_to(folder) for path in (Path(folder) / "serve").rglob("*_pb2*"))
        stale = [
            path for path in made if not (ROOT / path).is_file() or not filecmp.cmp(Path(folder) / path, ROOT / path)
        ]
        kept = {path.relative_to(ROOT) for path in (ROOT / "serve").rglob("*_pb2*.py*") if path.suffix != ".pyc"}
        stale += sorted(kept - set(made))
    for path in stale:
        print(f"{path} is not what proto/ gives: run make proto")
    return 1 if stale or not made else 0


if __name__ == "__main__":
    sys.exit(main())
