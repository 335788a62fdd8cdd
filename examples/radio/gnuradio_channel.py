"""GNU Radio's channel model between two ZMQ endpoints, without a window.

Run it with the Python that has GNU Radio (Debian: apt-get install gnuradio):

    /usr/bin/python3 examples/radio/gnuradio_channel.py --snr-db 9

and then, in another terminal:

    hardpath sweep runs/demo/bundle --radio examples/radio/gnuradio.toml --snr-db 9
"""

from __future__ import annotations

import argparse
import signal


def main() -> None:
    """Run until Ctrl-C."""
    # Here, since tools that look at this file have another Python than the one that runs it.
    from gnuradio import channels, gr, zeromq  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snr-db", type=float, default=12.0, help="Es/N0 [%(default)s]")
    parser.add_argument("--cfo", type=float, default=1e-3, help="cycles a sample [%(default)s]")
    options = parser.parse_args()
    item = gr.sizeof_gr_complex
    graph = gr.top_block()
    graph.connect(
        zeromq.pull_source(item, 1, "tcp://127.0.0.1:5555", 10, False),
        channels.channel_model(
            noise_voltage=10.0 ** (-options.snr_db / 20.0),  # the root of N0, for symbols of unit energy
            frequency_offset=options.cfo,
            taps=[0.9, 0.0, 0.0, 0.3j, 0.0, 0.0, -0.2],
        ),
        zeromq.push_sink(item, 1, "tcp://127.0.0.1:5556", 10, False),
    )
    graph.start()
    print("listening on 5555 and 5556, Ctrl-C ends it", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        graph.stop()
        graph.wait()


if __name__ == "__main__":
    main()
