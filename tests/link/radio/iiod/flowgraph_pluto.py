"""A flowgraph that sends a recording over and over through a Pluto and records what it receives: run by the system's Python.

flowgraph_pluto.py URI SENT.npy RECEIVED.npy COUNT
"""

import os
import sys
import time

SIZE, RATE_HZ, CARRIER_HZ = 4096, 2_500_000, 900_000_000


def main(uri, sent, received, count):
    import numpy as np
    from gnuradio import blocks, gr, iio

    sink = iio.fmcomms2_sink_fc32(uri, [True, True], SIZE, False)
    sink.set_len_tag_key("")
    sink.set_bandwidth(2_000_000)
    sink.set_frequency(CARRIER_HZ)
    sink.set_samplerate(RATE_HZ)
    sink.set_attenuation(0, 6.0)
    sink.set_filter_params("Auto", "", 0, 0)

    source = iio.fmcomms2_source_fc32(uri, [True, True], SIZE)
    source.set_len_tag_key("packet_len")
    source.set_frequency(CARRIER_HZ)
    source.set_samplerate(RATE_HZ)
    for _ in range(2):  # gr-iio 3.10 hands on the mode that was set before
        source.set_gain_mode(0, "manual")
    source.set_gain(0, 0.0)
    source.set_quadrature(True)
    source.set_rfdc(True)
    source.set_bbdc(True)
    source.set_filter_params("Auto", "", 0, 0)

    class Record(gr.sync_block):
        """Keeps `count` samples, from the first one on that is not silence: the source may run before the sink does."""

        def __init__(self):
            super().__init__("record", [np.complex64], None)
            self.kept = np.zeros(0, np.complex64)

        def work(self, input_items, output_items):
            new = input_items[0]
            if not len(self.kept):
                heard = np.flatnonzero(new)
                self.kept = new[heard[0] :].copy() if len(heard) else self.kept
            elif len(self.kept) < count:
                self.kept = np.concatenate([self.kept, new])
            return len(new)

    top = gr.top_block()
    record = Record()
    top.connect(blocks.vector_source_c(np.load(sent).tolist(), True), sink)
    top.connect(source, record)
    top.start()
    deadline = time.monotonic() + 20
    while len(record.kept) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    top.stop()
    top.wait()
    np.save(received, record.kept[:count])
    os._exit(0)  # the source's destructor waits for ever where the flowgraph ran for less than a second


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
