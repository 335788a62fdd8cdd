"""Verification of a bundle of several modes with a router: equivalent as it is, different where a mode is another."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from link.bundle import MANIFEST_NAME, Bundle, load_bundle, sha256
from link.manifest import Manifest
from link.runtime import Receiver, Transmitter
from link.sequential import Verdict
from train.equivalence import Paths
from train.tasks import load_task
from train.verify import VerifySettings, verify

SETTINGS = VerifySettings(snr_db=(-2.0, 6.0, 16.0), margin=0.1, max_draws=40)


@pytest.fixture(scope="module")
def bundle(routed_signs_bundle):
    return load_bundle(routed_signs_bundle)


@pytest.fixture
def check(routed_run, bundle):
    split = load_task("signs").load(None).validation

    def run(subject=None, **options):
        return verify(subject or bundle, routed_run, split.inputs, split.labels, SETTINGS, **options)

    return run


class Server:
    """What a client of a server offers, without one."""

    def __init__(self, bundle):
        self.encode = Transmitter(bundle)
        self._receiver = Receiver(bundle)

    def decode(self, symbols, no, *, mode=None, llr_in=None, include_llr=False):
        return self._receiver(symbols, no, mode, llr_in)


def test_a_good_bundle_and_server_are_equivalent(check, bundle):
    found = check(remote=Server(bundle))
    assert found.verdict is Verdict.EQUIVALENT
    assert (found.manifest.findings, found.transmitter.findings, found.receiver.findings) == ((), (), ())
    # Six cases an SNR, one without noise, and two of saturated LLRs for each of three modes.
    assert found.receiver.cases == 6 * 3 + 1 + 2 * 3


def mutated(bundle, folder, name, edit):
    shutil.copytree(bundle.path, folder)
    spec = getattr(bundle.manifest, name)
    model = onnx.load(folder / spec.file)
    edit(model.graph)
    onnx.save(model, folder / spec.file)
    changed = spec.model_copy(update={"sha256": sha256(folder / spec.file)})
    manifest = bundle.manifest.model_copy(update={name: changed})
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(), encoding="utf-8")
    return load_bundle(folder)


def change(suffix, new):
    """Edit of the one constant whose name ends so."""

    def edit(graph):
        (found,) = [item for item in graph.initializer if item.name.endswith(suffix)]
        found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new(numpy_helper.to_array(found))), found.name))

    return edit


def test_a_router_that_chooses_otherwise_is_different(check, bundle, tmp_path):
    subject = mutated(
        bundle, tmp_path / "b", "transmitter", change("router.out.bias", lambda bias: bias + np.float32([0, 0, 99]))
    )
    found = check(subject)
    assert found.verdict is Verdict.DIFFERENT
    assert any("mode differs in" in text and "does not explain" in text for text in found.transmitter.findings)


def test_a_second_codebook_in_another_order_is_different_at_the_receiver_alone(check, bundle, tmp_path):
    subject = mutated(bundle, tmp_path / "b", "receiver", change("more_quantizers.0.codebook", lambda rows: rows[::-1]))
    found = check(subject)
    assert found.verdict is Verdict.DIFFERENT
    assert found.transmitter.findings == ()
    assert found.receiver.findings


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda raw: raw["modes"][1].update(labels=raw["modes"][1]["labels"][::-1]), "entries of labels of mode 1 are"),
        (lambda raw: raw["header"].update(repeats=8), "header is"),
        (lambda raw: raw.update(default_mode=0), "default mode is 0"),
    ],
)
def test_a_manifest_that_says_otherwise_of_a_mode_is_different(check, bundle, edit, says):
    raw = bundle.manifest.model_dump(mode="json")
    edit(raw)
    found = check(Bundle(bundle.path, Manifest.model_validate(raw)))
    assert found.verdict is Verdict.DIFFERENT
    assert any(says in text for text in found.manifest.findings)


def test_soft_and_hard_travel_in_the_same_modes_with_the_same_headers(check, monkeypatch):
    seen = []
    correct = Paths.correct

    def recorded(self, snr_db, seed, draw):
        seen.append((snr_db, self.sent.mode.copy(), self.soft_symbols, self.header))
        return correct(self, snr_db, seed, draw)

    monkeypatch.setattr(Paths, "correct", recorded)
    check()
    for _, mode, soft_symbols, header in seen:
        assert header is not None
        sizes = np.array([3, 3, 1])[mode]  # 6 bits of QPSK, 9 and 4 bits of 16-QAM
        past = np.arange(soft_symbols.shape[1]) >= sizes[:, None]
        assert not soft_symbols[past].any()
    assert {snr_db for snr_db, *_ in seen} == set(SETTINGS.snr_db)
