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

    top = gr.top_block()
    record = blocks.vector_sink_c()
    top.connect(blocks.vector_source_c(np.load(sent).tolist(), True), sink)
    top.connect(source, blocks.head(gr.sizeof_gr_complex, count), record)
    top.start()
    deadline = time.monotonic() + 20
    while len(record.data()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    top.stop()
    top.wait()
    np.save(received, np.array(record.data(), np.complex64))
    os._exit(0)  # the source's destructor waits for ever where the flowgraph ran for less than a second


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
