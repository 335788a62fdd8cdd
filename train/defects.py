"""Defects of published systems, as switches of a recipe: `defects = ["batch-power", "no-scale"]`.

They exist to be explained, by `hardpath ablate`. A defect changes how a model is *trained*, and what its soft surrogate is:
some are settings that a recipe has anyway (`Defect.settings`, written over its own), the others are in `train.defective`.
What is exported is always the clean chain (argmax, bits, Gray QAM) on the weights that training left.

Not modelled, and why: bits packed across samples, label tables of another module, a mode drawn at random or never signalled
are faults of a deployed chain, and the one deployed here is clean; natural instead of Gray labels of the constellation were
deployed as they were trained, and here the deployed mapper is Gray; a model chosen on few rows is a matter of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from train.section import nearest_key


class Defect(NamedTuple):
    """One defect.

    Attributes
    ----------
    published : str
        What the published system did.
    settings : mapping
        Keys of the recipe that are set to it, section by section; empty where it is code.
    ema_only : bool
        Whether it is one of codebooks that are learned.
    """

    published: str
    settings: Mapping[str, Mapping[str, Any]] = {}
    ema_only: bool = False


DEFECTS: Final[Mapping[str, Defect]] = {
    "batch-power": Defect("Soft symbols were rescaled to unit power by the mean energy of their batch."),
    "soft-points": Defect(
        "Each symbol was the mean of all constellation points under softmax(-(distance of its bits from theirs) / T), which "
        "shrinks even hard bits, by 4.25 dB at T = 0.7 with QPSK, against noise that stayed as it was."
    ),
    "no-scale": Defect(
        "Tokens and codewords were unit vectors, and their squared distances were divided by T and nothing else.",
        {"quantizer": {"metric": "cosine"}},
        ema_only=True,
    ),
    "random-start": Defect(
        "The codebook began at random places, wherever the tokens were.",
        {"quantizer": {"start": "random"}},
        ema_only=True,
    ),
    "no-restarts": Defect(
        "Codewords that nothing chose stayed where they were.", {"quantizer": {"restart_every": 0}}, ema_only=True
    ),
    "ema-zero-size": Defect(
        "Running sums began at the codewords and running sizes at 0, neither corrected: after one step an unused codeword "
        "is its sum over next to nothing.",
        ema_only=True,
    ),
    "ema-without-n": Defect(
        "Sizes were smoothed to shares and not scaled back by their sum n: each codeword is n times too long.",
        ema_only=True,
    ),
    "restart-keeps-sums": Defect(
        "A codeword that nothing chose was put on a token, and its running size and sum stayed: the next step put it back.",
        ema_only=True,
    ),
    "identity-labels": Defect("The label of a codeword was its index.", {"quantizer": {"labels": "identity"}}),
    "noise-per-dimension": Defect(
        "What was called the noise variance of a symbol was that of each of its two dimensions: 3.01 dB more than said."
    ),
    "batch-averaged-noise": Defect("Each batch had one noise variance, the mean of those drawn for its samples."),
    "no-alignment-loss": Defect(
        "The losses that align soft and hard were computed and never entered the loss.",
        {
            "loss": {
                "lambda_consistency": 0.0,
                "lambda_consistency_vq": 0.0,
                "lambda_consistency_symbols": 0.0,
                "lambda_kl": 0.0,
            }
        },
    ),
    "soft-selection": Defect("The best checkpoint was the one of highest soft accuracy."),
    "leak": Defect(
        "The receiver gave its tokens the mean and deviation that the transmitter's had in that sample, and pooled them by "
        "their mean, which is then the transmitter's, whatever was received. The pooling stays in what is deployed."
    ),
}
"""Every defect by name."""

OF_ANOTHER: Final = frozenset({"ema-without-n", "restart-keeps-sums"})
"""Those of a second published quantiser, whose evaluation had one code in use."""

TOGETHER: Final = tuple(name for name in DEFECTS if name not in OF_ANOTHER)
"""Those of one system."""


def with_settings(values: Mapping[str, Any], defects: Sequence[str]) -> dict[str, Any]:
    """The values of a recipe with the settings of its defects over them.

    Parameters
    ----------
    values : mapping
        Of the recipe: sections as mappings, or validated already.
    defects : sequence of str
        Known names.
    """
    merged = dict(values)
    for name in defects:
        for section, settings in DEFECTS[name].settings.items():
            present = merged.get(section, {})
            if isinstance(present, Mapping):
                merged[section] = {**present, **settings}
            else:
                merged[section] = present.model_copy(update=dict(settings))
    return merged


def check_defects(names: Sequence[str]) -> None:
    """Refuse names that no defect has, and names that are there twice.

    Raises
    ------
    ValueError
    """
    for number, name in enumerate(names):
        if name not in DEFECTS:
            raise ValueError(f"unknown defect {name!r}{nearest_key(name, list(DEFECTS))}")
        if name in names[:number]:
            raise ValueError(f"defect {name} is named twice")
