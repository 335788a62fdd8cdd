"""Verification of mutated bundles: each must come out different, and the right part must be blamed.

A mutation is an edit of one exported graph, its hash in the manifest made good again, as a wrong exporter would leave it.
"""

import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from link.bundle import MANIFEST_NAME, load_bundle, sha256
from link.runtime import Receiver, Transmitter
from link.sequential import Verdict
from train.verify import VerifySettings, verify

SETTINGS = VerifySettings(snr_db=(0.0, 12.0), margin=0.05, max_draws=30)
SAMPLES = 120
INDEX_BITS = 3


@pytest.fixture
def check(digits_run, digits_data):
    """Function that verifies a bundle against the checkpoint of the good one."""

    def run(bundle, **options):
        split = digits_data.test
        return verify(
            bundle, digits_run, {"image": split.inputs["image"][:SAMPLES]}, split.labels[:SAMPLES], SETTINGS, **options
        )

    return run


@pytest.fixture
def mutate(digits_bundle, tmp_path):
    """Function that edits graphs of a copy of the bundle, makes its hashes good again and loads it."""

    def run(**edits):
        folder = tmp_path / "mutant"
        shutil.copytree(digits_bundle, folder)
        manifest = load_bundle(folder).manifest
        for name, edit in edits.items():
            spec = getattr(manifest, name)
            model = onnx.load(folder / spec.file)
            edit(model.graph)
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, folder / spec.file)
            manifest = manifest.model_copy(
                update={name: spec.model_copy(update={"sha256": sha256(folder / spec.file)})}
            )
        (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(), encoding="utf-8")
        return load_bundle(folder)

    return run


class Server:
    """What a client of a server offers, without one."""

    def __init__(self, bundle):
        self.encode = Transmitter(bundle)
        self._receiver = Receiver(bundle)

    def decode(self, symbols, no, *, llr_in=None, include_llr=False):
        answer = self._receiver(symbols, no, llr_in=llr_in)
        return answer if include_llr else answer._replace(llr=None)


def insert(graph, tensor, op, constants=(), *, keep_output=False, **attributes):
    """Put op(tensor, *constants) between a tensor and all that reads it, the graph's output too unless it is kept."""
    names = [f"{tensor}/{op}/{i}" for i in range(len(constants))]
    graph.initializer.extend(numpy_helper.from_array(value, name) for value, name in zip(constants, names, strict=True))
    producer = next((i for i, node in enumerate(graph.node) if tensor in node.output), -1)
    as_output = producer >= 0 and not keep_output and any(output.name == tensor for output in graph.output)
    source, result = (f"{tensor}/before", tensor) if as_output else (tensor, f"{tensor}/after")
    if as_output:
        graph.node[producer].output[:] = [source if name == tensor else name for name in graph.node[producer].output]
    else:
        for node in graph.node:
            node.input[:] = [result if name == tensor else name for name in node.input]
    graph.node.insert(producer + 1, helper.make_node(op, [source, *names], [result], **attributes))


def replace_constants(graph, change):
    """Replace the values of initializers, and take the names from all, as an exporter that keeps none would."""
    changed = 0
    for initializer in graph.initializer:
        value = numpy_helper.to_array(initializer)
        new = change(value)
        changed += new is not None
        initializer.CopyFrom(
            numpy_helper.from_array(value if new is None else np.ascontiguousarray(new), initializer.name)
        )
    assert changed == 1
    for node in graph.node:
        node.input[:] = [name.replace("quantizer", "module") for name in node.input]
    for initializer in graph.initializer:
        initializer.name = initializer.name.replace("quantizer", "module")


def node_of(graph, op, reads=None):
    return next(node for node in graph.node if node.op_type == op and (reads is None or reads in node.input))


def order(*indices):
    return (np.array(indices, dtype=np.int64),)


def channel_llr(graph):
    """The tensor of demapped LLRs, to which llr_in is added."""
    return next(name for name in node_of(graph, "Add", "llr_in").input if name != "llr_in")


def swap_iq_sent(graph):
    insert(graph, "symbols", "Gather", order(1, 0), axis=2)


def swap_iq_received(graph):
    insert(graph, "symbols", "Gather", order(1, 0), axis=2)


def scale_llr(factor):
    def edit(graph):
        insert(graph, channel_llr(graph), "Mul", (np.array(factor, dtype=np.float32),))

    return edit


def shift_sent(graph):
    insert(graph, node_of(graph, "ArgMax").input[0], "Gather", order(*np.roll(np.arange(8), 1)), axis=1)


def shift_received(graph):
    # Behind the output `llr`, which stays right.
    insert(graph, "llr", "Gather", order(*np.roll(np.arange(24), INDEX_BITS)), keep_output=True, axis=1)


def ignore_no(graph):
    insert(graph, "no", "Clip", (np.array(0.25, dtype=np.float32), np.array(0.25, dtype=np.float32)))


def spread_first_no(graph):
    insert(graph, "no", "Gather", order(*[0] * 6), axis=1)


def change_label_bits(change):
    """Change the (K, k) table of label bits, which the receiver holds transposed."""

    def edit(graph):
        table = []

        def replace(value):
            if value.dtype != np.float32 or not np.isin(value, (0, 1)).all():
                return None
            if value.shape == (8, INDEX_BITS):
                table.append(value)
                return change(value)
            return change(value.T).T if value.shape == (INDEX_BITS, 8) else None

        replace_constants(graph, replace)

    return edit


def swap_two_labels(table):
    return table[[1, 0, 2, 3, 4, 5, 6, 7]]


def reverse_bits(table):
    return table[:, ::-1]


def reverse_codebook(graph):
    replace_constants(graph, lambda value: value[::-1] if value.shape == (8, 16) else None)


def flatten_prior(graph):
    def flat(value):
        return np.full_like(value, -np.log(8.0)) if value.shape == (8,) and value.dtype == np.float32 else None

    replace_constants(graph, flat)


def widen_clip(graph):
    bounds = node_of(graph, "Clip", node_of(graph, "Add", "llr_in").output[0]).input[1:]
    for initializer in graph.initializer:
        if initializer.name in bounds:
            value = numpy_helper.to_array(initializer)
            initializer.CopyFrom(numpy_helper.from_array(value * np.float32(1.5), initializer.name))


def drop_llr_in(graph):
    insert(graph, "llr_in", "Mul", (np.array(0, dtype=np.float32),))


def boost_symbols(graph):
    insert(graph, "symbols", "Mul", (np.array(1.01, dtype=np.float32),))


def lose_logits(graph):
    insert(graph, "logits", "Mul", (np.array(np.nan, dtype=np.float32),))


def shift_indices_hat(graph):
    insert(graph, "indices_hat", "Gather", order(*np.roll(np.arange(8), 1)), axis=1)


TRANSMITTER_MUTATIONS = {
    "I and Q swapped": swap_iq_sent,
    "labels permuted": change_label_bits(swap_two_labels),
    "bit order reversed": change_label_bits(reverse_bits),
    "one-token shift": shift_sent,
    "one per cent more amplitude": boost_symbols,
}
RECEIVER_MUTATIONS = {
    "I and Q swapped": swap_iq_received,
    "labels permuted": change_label_bits(swap_two_labels),
    "bit order reversed": change_label_bits(reverse_bits),
    "one-token shift": shift_received,
    "sign of the LLR flipped": scale_llr(-1.0),
    "factor 2 lost in the LLR": scale_llr(0.5),
    "codebook rows reversed": reverse_codebook,
    "prior forgotten": flatten_prior,
    "another clip": widen_clip,
    "no ignored": ignore_no,
    "one no for all symbols": spread_first_no,
    "llr_in ignored": drop_llr_in,
    "logits that are NaN": lose_logits,
    "indices_hat shifted alone": shift_indices_hat,
}


@pytest.mark.parametrize("name", TRANSMITTER_MUTATIONS)
def test_a_mutated_transmitter_is_different(check, mutate, name):
    found = check(mutate(transmitter=TRANSMITTER_MUTATIONS[name]))
    assert (found.verdict, found.exit_code, found.points) == (Verdict.DIFFERENT, 1, ())
    assert found.summary.startswith("different: transmitter, onnx: ")
    # The comparison does not blame the receiver, nor rely on names inside the graph.
    assert (found.manifest.findings, found.receiver.findings) == ((), ())


@pytest.mark.parametrize("name", RECEIVER_MUTATIONS)
def test_a_mutated_receiver_is_different(check, mutate, name):
    found = check(mutate(receiver=RECEIVER_MUTATIONS[name]))
    assert (found.verdict, found.exit_code, found.points) == (Verdict.DIFFERENT, 1, ())
    assert found.summary.startswith("different: receiver, onnx: ")
    assert (found.manifest.findings, found.transmitter.findings) == ((), ())


def test_a_finding_says_what_differs_by_how_much_and_where(check, mutate):
    found = check(mutate(receiver=shift_indices_hat))
    assert found.receiver.findings[0].startswith("onnx: indices_hat differs in ")
    assert found.receiver.findings[0].endswith(
        f"(as received at 0 dB) and in {found.receiver.cases - 1} more of 15 cases"
    )


def test_nan_is_within_no_tolerance(check, mutate):
    found = check(mutate(receiver=lose_logits))
    assert found.receiver.findings[0].startswith("onnx: logits differs by up to nan")


@pytest.mark.parametrize("name", sorted(TRANSMITTER_MUTATIONS.keys() & RECEIVER_MUTATIONS.keys()))
def test_a_pair_mutated_alike_is_different_on_both_sides(check, mutate, name):
    # What cancels out end to end still breaks the contract with every other transmitter and receiver.
    found = check(mutate(transmitter=TRANSMITTER_MUTATIONS[name], receiver=RECEIVER_MUTATIONS[name]))
    assert found.verdict is Verdict.DIFFERENT
    assert found.transmitter.findings
    assert found.receiver.findings


def test_a_server_that_holds_another_bundle_is_blamed(check, mutate, digits_bundle):
    other = mutate(transmitter=swap_iq_sent, receiver=reverse_codebook)
    found = check(load_bundle(digits_bundle), remote=Server(other))
    assert found.verdict is Verdict.DIFFERENT
    assert {text.split(":")[0] for text in (*found.transmitter.findings, *found.receiver.findings)} == {"server"}


def test_a_named_constant_that_is_not_the_checkpoints_is_told(check, mutate):
    def edit(graph):
        for initializer in graph.initializer:
            if initializer.name.endswith("log_prior"):
                value = numpy_helper.to_array(initializer)
                initializer.CopyFrom(numpy_helper.from_array(np.nextafter(value, np.float32(0)), initializer.name))

    found = check(mutate(receiver=edit))
    assert found.summary == "different: receiver.onnx: its constant quantizer.log_prior is not the checkpoint's"
