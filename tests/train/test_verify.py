"""Verification of a good bundle, of mutated ones, and of the comparisons that it is made of.

Each mutation is an edit of one exported graph, its hash in the manifest made good again, as a wrong exporter would leave it.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from link.errors import ArgumentError, BundleError
from link.manifest import MANIFEST_NAME, Bundle, Manifest, load_bundle, sha256
from link.runtime import Receiver, Transmitter
from link.sequential import Verdict
from train import checkpoint as checkpoints
from train.equivalence import Paths
from train.verify import Verification, VerifySettings, render, verify

SHORT = VerifySettings(snr_db=(0.0, 12.0), margin=0.05, max_draws=30)
SAMPLES = 120
INDEX_BITS = 3


class Trained(NamedTuple):
    """A short run, its bundle, and samples to verify them with."""

    run: Path
    bundle: Bundle
    inputs: dict
    labels: np.ndarray


@pytest.fixture(scope="session")
def trained(digits_run, digits_bundle, digits_data):
    split = digits_data.test
    inputs = {name: value[:SAMPLES] for name, value in split.inputs.items()}
    return Trained(digits_run, load_bundle(digits_bundle), inputs, split.labels[:SAMPLES])


@pytest.fixture
def check(trained):
    """Function that verifies a bundle against the checkpoint of the good one."""

    def run(bundle=None, *, checkpoint=None, settings=SHORT, **options):
        return verify(
            bundle or trained.bundle, checkpoint or trained.run, trained.inputs, trained.labels, settings, **options
        )

    return run


@pytest.fixture
def mutate(trained, tmp_path):
    """Function that edits graphs of a copy of the bundle, makes its hashes good again and loads it."""

    def run(**edits):
        folder = tmp_path / "mutant"
        shutil.copytree(trained.bundle.path, folder)
        manifest = trained.bundle.manifest
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


# --- edits of a graph ---


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
    replace_constants(graph, lambda value: np.full_like(value, -np.log(8.0)) if value.shape == (8,) else None)


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


def leave_nothing(graph):
    insert(graph, "logits", "Log")


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
    "NaN": leave_nothing,
}


# --- the good bundle ---


def test_a_good_bundle_is_equivalent(check):
    found = check()
    assert found.verdict is Verdict.EQUIVALENT
    assert found.exit_code == 0
    assert (found.manifest.findings, found.transmitter.findings, found.receiver.findings) == ((), (), ())
    assert [point.snr_db for point in found.points] == [0.0, 12.0]
    assert found.summary.startswith("equivalent: the same decisions in all implementations")


def test_a_good_server_is_compared_too(check, trained):
    found = check(remote=Server(trained.bundle))
    assert found.verdict is Verdict.EQUIVALENT
    assert found.transmitter.implementations == found.receiver.implementations == ("onnx", "server")


def test_constants_that_kept_their_names_are_read_from_the_graphs(check):
    assert check().manifest.constants == (
        "transmitter.onnx: label_bits",
        "receiver.onnx: codebook",
        "receiver.onnx: log_prior",
    )


def test_tolerances_are_those_of_float32(check):
    found = check()
    assert found.transmitter.latent_error < 1e-4
    assert found.receiver.llr_tolerance < 1e-3
    assert found.receiver.logit_tolerance < 1e-2


def test_verification_survives_json(check):
    found = check()
    assert Verification.model_validate_json(found.model_dump_json()) == found


def test_two_runs_find_the_same(check):
    assert check() == check()


def test_the_text_has_a_row_a_point_and_ends_with_the_verdict_and_its_notes(check):
    found = check()
    text = render(found)
    rows = [line.split() for line in text.splitlines()]
    for point in found.points:
        assert [f"{point.snr_db:g}", f"{point.acc_soft:.4f}", f"{point.acc_hard:.4f}"] in [row[:3] for row in rows]
    assert text.splitlines()[-1 - len(found.notes)] == found.summary


def test_progress_rises_to_one(check):
    told = []
    check(progress=lambda what, fraction: told.append(fraction))
    assert told == sorted(told)
    assert told[-1] == 1.0


# --- mutations ---


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


@pytest.mark.parametrize("name", sorted(TRANSMITTER_MUTATIONS.keys() & RECEIVER_MUTATIONS.keys()))
def test_a_pair_mutated_alike_is_different_on_both_sides(check, mutate, name):
    # What cancels out end to end still breaks the contract with every other transmitter and receiver.
    found = check(mutate(transmitter=TRANSMITTER_MUTATIONS[name], receiver=RECEIVER_MUTATIONS[name]))
    assert found.verdict is Verdict.DIFFERENT
    assert found.transmitter.findings
    assert found.receiver.findings


def test_a_server_that_holds_another_bundle_is_blamed(check, mutate):
    other = mutate(transmitter=swap_iq_sent, receiver=reverse_codebook)
    found = check(remote=Server(other))
    assert found.verdict is Verdict.DIFFERENT
    assert {text.split(":")[0] for text in (*found.transmitter.findings, *found.receiver.findings)} == {"server"}


def test_a_server_that_leaves_out_the_llrs_is_different(check, trained):
    class Silent(Server):
        def decode(self, symbols, no, *, llr_in=None, include_llr=False):
            return super().decode(symbols, no, llr_in=llr_in)

    found = check(remote=Silent(trained.bundle))
    assert "receiver, server: llr is missing" in found.summary


def test_a_named_constant_that_is_not_the_checkpoints_is_told(check, mutate):
    def edit(graph):
        for initializer in graph.initializer:
            if initializer.name.endswith("log_prior"):
                value = numpy_helper.to_array(initializer)
                initializer.CopyFrom(numpy_helper.from_array(np.nextafter(value, np.float32(0)), initializer.name))

    found = check(mutate(receiver=edit))
    assert found.summary == "different: receiver.onnx: its constant log_prior is not the checkpoint's"


@pytest.mark.parametrize(
    ("field", "change", "says"),
    [
        ("labels", lambda mode: {"labels": mode["labels"][::-1]}, "labels"),
        ("log_prior", lambda mode: {"log_prior": mode["log_prior"][::-1]}, "log_prior"),
    ],
)
def test_a_manifest_with_another_table_is_different(check, trained, tmp_path, field, change, says):
    raw = trained.bundle.manifest.model_dump(mode="json")
    raw["modes"][0] |= change(raw["modes"][0])
    found = check(Bundle(trained.bundle.path, Manifest.model_validate(raw)))
    assert found.verdict is Verdict.DIFFERENT
    assert f"entries of {says} are not the checkpoint's" in found.summary


@pytest.mark.parametrize(("field", "value"), [("clip", 29.0), ("demapper", "max-log")])
def test_a_manifest_with_another_demapper_or_clip_is_different(check, trained, field, value):
    raw = trained.bundle.manifest.model_dump(mode="json")
    raw["llr"][field] = value
    found = check(Bundle(trained.bundle.path, Manifest.model_validate(raw)))
    assert found.summary.startswith(f"different: manifest: {field} is {value!r}")


def test_a_bundle_of_another_shape_is_different_and_nothing_else_is_compared(check, trained):
    raw = trained.bundle.manifest.model_dump(mode="json")
    raw["task"]["name"] = "letters"
    found = check(Bundle(trained.bundle.path, Manifest.model_validate(raw)))
    assert found.summary == "different: manifest: task is 'letters', the checkpoint's is 'digits'"
    assert (found.transmitter, found.receiver, found.surrogate) == (None, None, None)
    assert render(found).endswith(found.summary)


# --- soft against hard ---


def test_a_hard_path_that_is_worse_is_different_and_told_where(check, monkeypatch):
    correct = Paths.correct

    def worse_at_12_db(self, snr_db, seed, draw):
        soft, hard = correct(self, snr_db, seed, draw)
        return soft, hard & (np.arange(len(hard)) % 4 > 0) if snr_db == 12.0 else hard

    monkeypatch.setattr(Paths, "correct", worse_at_12_db)
    found = check()
    assert (found.verdict, found.exit_code) == (Verdict.DIFFERENT, 1)
    assert found.summary.startswith(
        "different: at 12 dB the hard path is less accurate than the soft one by more than 5 points"
    )


def test_draws_that_run_out_leave_it_undecided(check):
    found = check(settings=VerifySettings(snr_db=(6.0,), margin=0.001, max_draws=1))
    assert (found.verdict, found.exit_code) == (Verdict.UNDECIDED, 3)
    assert found.summary.startswith("undecided: at 6 dB 1 draws do not settle")


def test_a_surrogate_that_is_hard_already_is_said_to_prove_nothing(check, trained, tmp_path):
    described, model = checkpoints.load(trained.run)
    checkpoints.save(tmp_path, described.model_copy(update={"vq_temp": 1e-3}), model)
    found = check(checkpoint=tmp_path)
    assert found.surrogate.h_assign < 0.1
    assert found.verdict is Verdict.EQUIVALENT
    assert "hard already" in found.summary
    assert "proves nothing" in found.summary
    assert found.notes == ("the bundle was exported from another checkpoint file, by the hash in its manifest",)


def test_a_hard_path_that_is_better_by_the_margin_is_equivalent_with_a_note(check, monkeypatch):
    correct = Paths.correct

    def soft_worse(self, snr_db, seed, draw):
        soft, hard = correct(self, snr_db, seed, draw)
        return soft & (np.arange(len(soft)) % 4 > 0), hard

    monkeypatch.setattr(Paths, "correct", soft_worse)
    found = check()
    assert (found.verdict, found.two_sided) == (Verdict.EQUIVALENT, Verdict.DIFFERENT)
    assert "more accurate than the soft one" in found.notes[0]


# --- arguments ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0.0}, "margin"),
        ({"alpha": 0.9}, "alpha"),
        ({"max_draws": 0}, "max_draws"),
        ({"snr_db": (99.0,)}, r"snr_db must be in \[-30, 60\], got 99"),
        ({"snr_db": (6.0, 6.0)}, "snr_db must hold each point once"),
        ({"snr_db": ()}, "snr_db"),
    ],
)
def test_settings_out_of_range_are_named(fields, message):
    with pytest.raises(ArgumentError, match=message):
        VerifySettings(**fields)


def test_labels_out_of_range_are_named(trained):
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 10\)"):
        verify(trained.bundle, trained.run, trained.inputs, trained.labels + 5)
    with pytest.raises(ArgumentError, match="labels must have shape"):
        verify(trained.bundle, trained.run, trained.inputs, trained.labels[:-1])


def test_a_graph_that_cannot_be_loaded_is_a_broken_bundle(check, trained, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(trained.bundle.path, folder)
    (folder / "receiver.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError):
        check(Bundle(folder, trained.bundle.manifest))
