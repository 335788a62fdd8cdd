"""Which options of `call` mean something together; what would do nothing is refused, lest it be believed to matter."""

from __future__ import annotations

from typing import Final

import typer

from link.errors import ArgumentError

_SAMPLES: Final = {"inputs", "text", "texts", "skip_bad"}
_LINK: Final = {
    "channel", "block_symbols", "k_factor_db", "csi", "pilots", "no_offset_db", "seed", "snr_error_db",
}  # fmt: skip
_STOP: Final = {"draws", "target_errors", "rel_width", "confidence"}
_RECORDING: Final = {"lag"}
_MEANT: Final[dict[str | None, set[str]]] = {
    None: {"snr_db", "mode", *_SAMPLES, *_LINK},
    "--encode": {"snr_db", "mode", *_SAMPLES},
    "--decode": set(),
    "--sweep": {*_SAMPLES, *_LINK, *_STOP},
    "--recording": {"snr_db", *_LINK, *_RECORDING},
}
"""Parameters that each job looks at, None being the plain transmission, beside those that all look at."""
_OF_SOME: Final = {"snr_db", "mode", *_SAMPLES, *_LINK, *_STOP, *_RECORDING}
_OF_ONE: Final = dict.fromkeys(_STOP, "--sweep") | dict.fromkeys(_RECORDING, "--recording")
"""Parameters of one job alone."""

_OF_SIMULATED: Final = ("block_symbols", "k_factor_db", "csi", "pilots", "no_offset_db")
_RICIAN: Final = ("rician", "rician-fast")
_BLOCKS: Final = ("rayleigh", "rician")


def refuse_what_does_nothing(context: typer.Context, job: str | None, channel: str) -> None:
    """Refuse options that the job, or the channel, has no use for.

    Parameters
    ----------
    context : typer.Context
        Of the command.
    job : str or None
        The option that chooses it; None for the plain transmission.
    channel : str

    Raises
    ------
    ArgumentError
    """
    from link.channel import CHANNELS, RADIO

    given = [name for name in context.params if name in _OF_SOME and is_given(context, name)]
    for name in given:
        if name not in _MEANT[job]:
            beside = f"without {_OF_ONE[name]}" if name in _OF_ONE and job is None else f"beside {job}"
            raise ArgumentError(_flag(name), f"must be absent {beside}")
    for name in _OF_SIMULATED if channel == RADIO else ():
        if name in given:
            raise ArgumentError(_flag(name), "must be absent over a radio: it is for simulated channels")
    for name, channels in (("k_factor_db", _RICIAN), ("block_symbols", _BLOCKS)):
        if name in given and channel in CHANNELS and channel not in channels:
            raise ArgumentError(_flag(name), f"must be absent over {channel}: it is for {' and '.join(channels)}")


def is_given(context: typer.Context, parameter: str) -> bool:
    """Whether an option stands on the command line, be it with its default."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _flag(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")
