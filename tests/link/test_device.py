"""The same numbers and the same channels whatever computes them."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import link
from link import randomness
from link.channel import CHANNELS, TR38901, Csi, Fading, build_channel, fading
from link.channel.base import erase_unsent
from link.device import Arrays, arrays
from link.errors import ArgumentError, MissingExtra
from link.header import carry_headers
from link.manifest import HeaderSpec
from link.modem import DEMAPPERS, count_wrong, decide, llrs
from link.randomness import Draws, Stream

ROOT = Path(link.__file__).parent.parent
OTHERS = ("numba", "torch")
SAMPLES = np.array([0, 5, 2**32 - 1])


def draws(engine, within=None):
    return Draws(2**40 + 1, SAMPLES, np.array([0, 7, 2**32 - 1]), within, engine)


@pytest.mark.parametrize("within", [None, Stream.HEADER])
@pytest.mark.parametrize("engine", OTHERS)
def test_integers_are_the_same(engine, within):
    ours, theirs = draws("numpy", within), draws(engine, within)
    for expected, found in zip(
        ours.words(Stream.PILOTS, -500, 9, 4), theirs.words(Stream.PILOTS, -500, 9, 4), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(found), expected)
    for method in ("bits", "uniforms"):
        expected, found = (getattr(some, method)(Stream.BITS, 6000, 131) for some in (ours, theirs))
        assert np.asarray(found).dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("within", [None, Stream.HEADER])
@pytest.mark.parametrize("engine", OTHERS)
def test_normals_are_the_same_to_a_few_ulp_of_their_radius(engine, within):
    expected, found = (draws(name, within).normals(Stream.NOISE, 6000, 1000, start=3) for name in ("numpy", engine))
    found = np.asarray(found)
    assert found.dtype == np.float64
    assert found.shape == (3, 1000, 2)
    radius = np.hypot(expected[..., 0], expected[..., 1])[..., None]
    # Both round the angle, the logarithm, the root, the cosine and the product.
    assert (np.abs(found - expected) <= 7.0 * 2.0**-52 * radius).all()


@pytest.mark.parametrize("engine", ["numpy", *OTHERS])
def test_rows_of_draws_are_those_samples_own(engine):
    whole = draws(engine, Stream.HEADER)
    part = whole.rows(slice(1, 3))
    for method in ("bits", "normals"):
        expected, found = (np.asarray(getattr(some, method)(Stream.NOISE, 0, 5)) for some in (whole, part))
        np.testing.assert_array_equal(found, expected[1:])


CARRIERS = [
    *(build_channel(name, no_offset_db=no_offset_db) for name in CHANNELS for no_offset_db in (0.0, 3.0)),
    Fading(3),
    *(Fading(3, 6.0, Csi(kind, 2)) for kind in ("ls", "lmmse")),
]


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("channel", CARRIERS, ids=lambda channel: channel.name)
def test_channels_carry_the_same_on_every_engine(channel, engine):
    x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype(np.float32)
    num_symbols = np.array([8, 0, 5])
    expected = channel(x, num_symbols, 10.0, draws("numpy"))
    found = channel(x if engine == "numba" else torch.from_numpy(x), num_symbols, 10.0, draws(engine))
    for ours, theirs in ((expected.y, found.y), (expected.no, found.no)):
        theirs = np.asarray(theirs)
        assert theirs.dtype == np.float32
        # Float64 differs in its last digits, most after a division by a small gain, so float32 by one step at most.
        np.testing.assert_array_max_ulp(theirs, ours, maxulp=1)
    np.testing.assert_array_equal(found.num_symbols, expected.num_symbols)
    assert found.pilot_symbols == expected.pilot_symbols


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_symbols_that_lie_elsewhere_than_the_draws_are_refused(channel, engine):
    x = np.ones((3, 2, 2), dtype=np.float32)
    elsewhere = torch.from_numpy(x) if engine == "numpy" else x
    with pytest.raises(ArgumentError, match=f"^engine must be that of the symbols, which are .*, got '{engine}'$"):
        build_channel(channel)(elsewhere, np.full(3, 2), 10.0, draws(engine))


def test_symbols_that_were_not_sent_are_erased_on_every_engine():
    y, no = np.ones((2, 3, 2), dtype=np.float32), np.full((2, 3), 1e-9, dtype=np.float32)
    for put in (np.asarray, torch.from_numpy):
        erased, variances = erase_unsent(put(y), put(no), np.array([1, 3]))
        np.testing.assert_array_equal(np.asarray(erased)[..., 0], [[1, 0, 0], [1, 1, 1]])
        np.testing.assert_array_equal(np.asarray(variances), np.float32([[1e-6, np.inf, np.inf], [1e-6] * 3]))


# Sionna's gains are computed on the host, and put on the device as they are.
ON_DEVICE = [channel for channel in CARRIERS if channel.name not in TR38901]


@pytest.mark.parametrize("demapper", DEMAPPERS)
@pytest.mark.parametrize("channel", ON_DEVICE, ids=lambda channel: channel.name)
def test_all_of_a_tile_stays_on_its_device_and_the_host_never_waits(channel, demapper, monkeypatch):
    # Tensors on "meta" have no numbers: to ask for one is an error, and so is to mix them with those of the host.
    elsewhere = Arrays(arrays("torch").xp, torch.device("meta"))
    for module in (randomness, fading):
        monkeypatch.setattr(module, "arrays", lambda engine: elsewhere)
    draws = Draws(0, SAMPLES, engine="cuda")
    bits = draws.bits(Stream.BITS, 0, 50)
    llr = llrs(bits, 16, channel, 10.0, draws, demapper)
    assert (llr.device.type, llr.shape, llr.dtype) == ("meta", (3, 50), torch.float32)
    with pytest.raises(RuntimeError, match="meta"):
        count_wrong(decide(llr) != bits, 4)


def test_a_frames_header_is_sent_with_the_engine_of_its_draws(monkeypatch):
    seen = []

    class Spy:
        name = "spy"

        def __call__(self, x, num_symbols, snr_db, draws):
            seen.append((draws.engine, draws.within))
            return build_channel("awgn")(x, num_symbols, snr_db, draws)

    draws = Draws(0, np.arange(3), engine="numba")
    carry_headers(np.array([0, 1, 1]), HeaderSpec(repeats=1, frame_samples=4), 2, 0, Spy(), 10.0, draws)
    assert seen == [("numba", Stream.HEADER)]


def test_arrays_are_put_without_touching_the_numbers_of_the_host():
    frozen = np.broadcast_to(np.arange(3), (2, 3))
    found = arrays("torch").put(frozen)
    assert isinstance(found, torch.Tensor)
    found += 1
    np.testing.assert_array_equal(frozen, [[0, 1, 2]] * 2)
    assert arrays("numpy").put(frozen) is frozen


@pytest.mark.parametrize("engine", ["jax", "torch:1", "cuda:", "cuda:x", "cuda0", ""])
def test_an_engine_that_does_not_exist_is_refused(engine):
    with pytest.raises(ArgumentError, match=f"^engine must be numpy, numba, torch, cuda or cuda:N, got '{engine}'$"):
        Draws(0, np.arange(1), engine=engine)


@pytest.mark.parametrize(
    ("count", "there"), [(0, "no CUDA device"), (1, "cuda:0"), (3, "cuda:0, cuda:1, cuda:2")], ids=str
)
def test_a_gpu_that_is_not_there_is_refused_and_those_there_are_named(count, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    message = f"^engine must be on a device that is there, torch sees {there}, got 'cuda:7'$"
    with pytest.raises(ArgumentError, match=message):
        arrays.__wrapped__("cuda:7")
    if count:
        assert arrays.__wrapped__("cuda").device == torch.device("cuda")


def test_torch_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        MissingExtra, match=r"^torch is not installed; install it with: pip install 'hardpath\[train\]'$"
    ):
        arrays.__wrapped__("torch")


def test_without_numba_the_array_path_counts_and_the_kernel_names_its_extra():
    code = """
import sys
sys.modules["numba"] = None
import numpy as np
from link.channel import Awgn
from link.errors import MissingExtra
from link.modem import Modem
from link.modem import DEMAPPERS, count_wrong, decide, llrs
from link.randomness import Draws
modem = Modem(16, Awgn(), frame_symbols=64)
assert (modem.engine, modem.count(12.0, 0, 100)[0]) == ("numpy", 700)
for ask in (
    lambda: Modem(16, Awgn(), engine="numba"),
    lambda: Draws(0, np.arange(1), engine="numba").normals(1, 0, 1),
    lambda: __import__("link.kernel"),
):
    try:
        ask()
    except MissingExtra as error:
        assert str(error) == "numba is not installed; install it with: pip install 'hardpath[sweep]'"
    else:
        raise AssertionError("numba was not missed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_modules_that_numba_compiles_are_imported_only_where_they_are_used():
    code = "import sys, link.modem, link.sweep, link.chain; sys.exit('numba' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert importlib.import_module("link.kernel")
