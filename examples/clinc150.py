"""CLINC150 as tables of texts and intents, for text-classification or as one question of text-questions.

    python examples/clinc150.py data_full.json questions/intent
    hardpath train text --data questions/intent ...

data_full.json is that of github.com/clinc/oos-eval (Larson et al. 2019, EMNLP): 150 intents, each with 100 texts to train
on, 20 to validate and 30 to test. Texts out of scope, which have no intent, are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

PARTS: Final = ("train", "val", "test")


def main() -> None:
    """Write one table a part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="data_full.json")
    parser.add_argument("folder", type=Path, help="gets train.tsv, val.tsv and test.tsv")
    arguments = parser.parse_args()
    parts = json.loads(arguments.source.read_text(encoding="utf-8"))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        lines = "".join(f"{' '.join(text.split())}\t{intent}\n" for text, intent in parts[part])
        (arguments.folder / f"{part}.tsv").write_text(f"text\tlabel\n{lines}", encoding="utf-8")


if __name__ == "__main__":
    main()
