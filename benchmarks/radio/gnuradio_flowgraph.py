"""A GNU Radio flowgraph without a window; `benchmarks.radio.flowgraph` starts it under the Python that has GNU Radio.

    source ──> stage ──> stage ──> ... ──> sink        complex64, ZMQ at both ends

Its one argument is a JSON object: `pattern`, `source` and `sink` (endpoints), `stages` (names of `STAGES` with their
options) and, where it is to die, `dies_after` (samples). Once it runs it writes a line with the endpoint that its sink was
bound to; it ends when its standard input does, and so with whoever started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from gnuradio import analog, blocks, channels, gr, zeromq  # type: ignore[import-not-found]

_ITEM: Final = gr.sizeof_gr_complex
_TIMEOUT_MS: Final = 10  # 1 ms and 100 ms were both slower
_DEFAULT_HIGH_WATER_MARK: Final = -1


def number(pair: Iterable[float]) -> complex:
    """A complex number out of JSON: [real, imaginary]."""
    return complex(*pair)


class AdditiveNoise(gr.hier_block2):  # type: ignore[misc]
    """Adds noise of one of GNU Radio's distributions (uniform, gaussian, laplacian) to I and Q, each of this amplitude."""

    def __init__(self, distribution: str, amplitude: float, seed: int) -> None:
        signature = gr.io_signature(1, 1, _ITEM)
        gr.hier_block2.__init__(self, "additive_noise", signature, signature)
        kind = getattr(analog, f"GR_{distribution.upper()}")
        noise, total = blocks.float_to_complex(), blocks.add_cc()
        for port in (0, 1):
            self.connect(analog.noise_source_f(kind, amplitude, seed + port), (noise, port))
        self.connect(self, (total, 0))
        self.connect(noise, (total, 1))
        self.connect(total, self)


class Quantizer(gr.hier_block2):  # type: ignore[misc]
    """A converter of so many bits on I and on Q, at most 16, which clips at `full_scale`."""

    def __init__(self, bits: int, full_scale: float) -> None:
        signature = gr.io_signature(1, 1, _ITEM)
        gr.hier_block2.__init__(self, "quantizer", signature, signature)
        steps = 2.0 ** (bits - 1)
        parts, whole = blocks.complex_to_float(), blocks.float_to_complex()
        self.connect(self, parts)
        for port in (0, 1):
            scale, clip = blocks.multiply_const_ff(steps / full_scale), analog.rail_ff(-steps, steps - 1)
            back = blocks.short_to_float(1, steps / full_scale)
            self.connect((parts, port), scale, clip, blocks.float_to_short(), back, (whole, port))
        self.connect(whole, self)


def channel_model(
    noise_voltage: float, frequency_offset: float, epsilon: float, taps: Iterable[Iterable[float]], seed: int
) -> Any:
    """GNU Radio's channel: the clock, the taps, the frequency and the noise."""
    return channels.channel_model(noise_voltage, frequency_offset, epsilon, [number(tap) for tap in taps], seed)


STAGES: Final[dict[str, Callable[..., Any]]] = {
    "channel_model": channel_model,
    "fading": lambda sinusoids, doppler, line_of_sight, k, seed: channels.fading_model(
        sinusoids, doppler, line_of_sight, k, seed
    ),
    "selective_fading": lambda sinusoids, doppler, line_of_sight, k, seed, delays, magnitudes, taps: (
        channels.selective_fading_model(sinusoids, doppler, line_of_sight, k, seed, delays, magnitudes, taps)
    ),
    "frequency_drift": lambda rate_hz, step_hz, most_hz, seed: channels.cfo_model(rate_hz, step_hz, most_hz, seed),
    "clock_drift": lambda rate_hz, step_hz, most_hz, seed: channels.sro_model(rate_hz, step_hz, most_hz, seed),
    "phase_noise": lambda magnitude, alpha: channels.phase_noise_gen(magnitude, alpha),
    "iq_imbalance": lambda gain_db, phase_deg: channels.iqbal_gen(gain_db, phase_deg, 1),
    "cubic": lambda beta: channels.distortion_3_gen(beta),
    "offset": lambda value: blocks.add_const_cc(number(value)),
    "gain": lambda value: blocks.multiply_const_cc(number(value)),
    "noise": AdditiveNoise,
    "quantizer": Quantizer,
    "throttle": lambda rate_hz: blocks.throttle(_ITEM, rate_hz),
}


def ends(pattern: str, source: str, sink: str) -> tuple[Any, Any]:
    """Source and sink; GNU Radio's sources connect, its sinks bind."""
    options = (_TIMEOUT_MS, False, _DEFAULT_HIGH_WATER_MARK)
    if pattern == "request-reply":
        return zeromq.req_source(_ITEM, 1, source, *options), zeromq.rep_sink(_ITEM, 1, sink, *options)
    return zeromq.pull_source(_ITEM, 1, source, *options), zeromq.push_sink(_ITEM, 1, sink, *options)


def main() -> None:
    """Build the flowgraph, run it, end with standard input."""
    options = json.loads(sys.argv[1])
    source, sink = ends(options["pattern"], options["source"], options["sink"])
    stages = [STAGES[name](**arguments) for name, arguments in options["stages"]]
    dies_after = options.get("dies_after")
    if dies_after is not None:
        stages.append(blocks.head(_ITEM, dies_after))
    graph = gr.top_block()
    graph.connect(source, *stages, sink)
    graph.start()
    print(json.dumps({"sink": sink.last_endpoint().rstrip("\0")}), flush=True)
    if dies_after is not None:
        threading.Thread(target=lambda: (graph.wait(), os._exit(1)), daemon=True).start()
    sys.stdin.read()
    graph.stop()
    graph.wait()


if __name__ == "__main__":
    main()
