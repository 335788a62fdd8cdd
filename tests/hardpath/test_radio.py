"""`hardpath radio`: what each job prints and keeps, how it ends, and the line for every mistake."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from hardpath.command import main
from hardpath.radio_view import bars, line, live_view, rows
from link.errors import DriverUnavailable, RadioError
from link.radio.channel import RadioChannel
from link.radio.frontends import KINDS
from link.radio.operation.figures import RunTally
from link.radio.operation.traffic import RandomTraffic, TrafficSpec
from link.radio.spec import RadioSpec, load_radio

QUICK = "[modem.frame]\npayload_symbols = 128\n"


@pytest.fixture
def radio(tmp_path):
    """Function from options of an impaired front end to a radio's file."""

    def write(kind="impaired", text="", **options):
        lines = [f'kind = "{kind}"', *(f"{name} = {json.dumps(value)}" for name, value in options.items())]
        file = tmp_path / "radio.toml"
        file.write_text(f"{text}\n[frontend]\n" + "\n".join(lines) + "\n" + QUICK)
        return file

    return write


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_probe_names_every_kind_and_what_is_missing(hardpath, monkeypatch):
    def missing(self):
        raise DriverUnavailable("zmq", "pyzmq", "pip install pyzmq")

    def broken(self):
        raise RadioError("the daemon does not answer")

    def present(self):
        return [{"serial": 7}]

    for kind, look in (("zmq", missing), ("sigmf", broken), ("loopback", present)):
        monkeypatch.setattr(f"link.radio.frontends.{kind}.Spec.probe", look)
    found = {one["kind"]: one for one in hardpath("radio", "probe", "--json").json}
    assert list(found) == list(KINDS)
    assert (found["zmq"]["usable"], found["zmq"]["remedy"]) == (False, "pip install pyzmq")
    assert (found["sigmf"]["usable"], found["sigmf"]["trouble"]) == (True, "the daemon does not answer")
    assert found["loopback"]["devices"] == [{"serial": 7}]
    shown = hardpath("radio", "probe").out
    assert "pip install pyzmq" in shown
    assert "loopback: serial 7" in shown


def test_probe_survives_a_kind_whose_module_cannot_be_imported(hardpath, monkeypatch):
    monkeypatch.setitem(sys.modules, "link.radio.frontends.soapy", None)
    (found,) = hardpath("radio", "probe", "--kind", "soapy", "--json").json
    assert not found["usable"]
    assert "soapy" in found["trouble"]


def test_probe_opens_a_radio_and_says_what_it_is(hardpath, radio):
    found = hardpath("radio", "probe", radio(sample_rate_hz=1e6), "--json").json
    assert found["kind"] == "impaired"
    assert found["capabilities"]["sample_rate_hz"] == 1e6
    assert "sample_rate_hz" in hardpath("radio", "probe", radio(sample_rate_hz=1e6)).out


def test_a_run_counts_frames_and_bit_errors(hardpath, radio):
    found = hardpath("radio", "run", radio(snr_db=12, cfo=1e-3), "--frames", 40, "--json").json
    assert (found["frames"], found["exchanges"], found["lost"]) == (40, 3, 0)
    assert found["bits"] == 40 * 128 * 4
    # 16-QAM at 12 dB: 2.81e-2 by theory; 20,480 bits in frames, and the receiver loses some tenths of a dB.
    assert 0.02 < found["ber"]["low"] < found["ber"]["value"] == found["bit_errors"] / found["bits"] < 0.05
    assert found["cfo"] == pytest.approx(1e-3, abs=2e-5)
    assert found["snr_db"] == pytest.approx(12.0, abs=1.0)
    # 128 payload symbols of 16 guard + 126 preamble + 390 others.
    assert found["bits_per_symbol"] == 4.0
    assert found["bits_per_frame_symbol"] == pytest.approx(4.0 * found["payload_symbols"] / found["symbols"])
    assert found["payload_symbols"] == 40 * 128


def test_a_lower_snr_can_be_asked_of_a_simulated_radio(hardpath, radio):
    found = hardpath("radio", "run", radio(), "--frames", 16, "--order", 4, "--snr-db", 8, "--json").json
    # Without noise it would be 50 dB; what the channel is estimated from a frame this short costs up to 1 dB.
    assert found["snr_db"] == pytest.approx(8.0, abs=1.0)
    assert found["bits_per_symbol"] == 2.0


def test_elsewhere_than_on_a_terminal_a_run_says_a_line_a_second_and_then_a_table(hardpath, radio, monkeypatch):
    monkeypatch.setattr("hardpath.radio_view._LINE_S", 0.0)
    answer = hardpath("radio", "run", radio(snr_db=14), "--frames", 32)
    lines = answer.err.splitlines()
    assert len(lines) == 2
    assert "16 frames, 0 lost" in lines[0]
    assert "32 frames" in lines[1]
    for name in ("frames sent", "Es/N0", "EVM", "CFO", "clock", "PAPR", "BER", "rate", "throughput"):
        assert name in answer.out


def test_a_terminal_shows_the_constellation_and_the_figures(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("LINES", "60")
    tally = RunTally(4, 0)
    with live_view("a run", tally, lambda order: 1.0) as view:
        with RadioChannel(RadioSpec(frontend={"kind": "loopback"}), watch=tally) as channel:
            RandomTraffic(TrafficSpec(order=4, exchange_frames=4), 128).send(channel, 0, None)
        view.lost(RadioError("unplugged"), 0.4)
        assert "unplugged; opened again in 0.4 s" in terminal.getvalue()
        later = time.monotonic() + 10.0
        monkeypatch.setattr("time.monotonic", lambda: later)
        view.exchanged()
    shown = terminal.getvalue()
    assert "a run" in shown
    assert "4 in 1 exchanges" in shown
    assert "@" in shown


def test_figures_that_are_not_known_are_left_out():
    tally = RunTally(4, 0)
    assert [name for name, _ in rows(tally.figures)] == ["frames sent", "lost", "CRC failed", "throughput"]
    assert "0 frames, 0 lost" in line(tally.figures, tally.moments)
    assert bars([float("nan")]) == ""
    assert bars([1.0, float("nan"), 2.0])[1] == " "


def test_out_keeps_plots_and_figures(hardpath, radio, tmp_path):
    folder = tmp_path / "out"
    answer = hardpath("radio", "run", radio(snr_db=14), "--frames", 8, "--out", folder, "--json")
    assert json.loads((folder / "figures.json").read_text()) == answer.json
    for name in ("constellation", "over_time"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        assert "<svg" in (folder / f"{name}.svg").read_text()


def test_without_matplotlib_a_run_has_its_figures_all_the_same(hardpath, radio, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = hardpath("radio", "run", radio(), "--frames", 4, "--out", tmp_path / "out", "--json")
    assert (answer.code, answer.json["frames"]) == (0, 4)
    assert "no plots: matplotlib is not installed" in answer.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["figures.json"]


def test_a_recording_is_replayed_to_the_same_llrs_and_figures(hardpath, radio, tmp_path):
    file = radio(snr_db=11, cfo=5e-4, gap_every=12_000, gap_samples=50)
    live = hardpath("radio", "run", file, "--frames", 24, "--record", tmp_path / "run", "--json").json
    found = hardpath("radio", "replay", tmp_path / "run.sigmf-meta", "--out", tmp_path / "found.npz", "--json").json
    assert found["llr_sha256"] == live["llr_sha256"]
    assert found["figures"] == {name: live[name] for name in found["figures"]}
    assert (found["frames_sent"], found["frames_received"]) == (24, 24 - live["lost"])
    assert live["gaps"] > 0
    with np.load(tmp_path / "found.npz") as arrays:
        assert len(arrays["sequence"]) == found["frames_received"]
        assert len(arrays["llr"]) == live["bits"]
        assert [bool(right) for right in arrays["crc_ok"]] == [frame["crc_ok"] for frame in found["frames"]]
    shown = hardpath("radio", "replay", tmp_path / "run").out
    assert f"of 24 frames, {found['crc_failed']} with a wrong CRC" in shown
    assert live["llr_sha256"] in shown


def test_a_bundle_over_a_radio_is_decided_the_same_in_the_replay(hardpath, radio, modes_bundle, latents_of, tmp_path):
    made = latents_of(np.arange(24) % 3)
    data, other = tmp_path / "data.npz", tmp_path / "other.npz"
    np.savez(data, **made.inputs, labels=made.labels)
    np.savez(other, **{name: values[::-1] for name, values in made.inputs.items()}, labels=made.labels)
    given = ("--bundle", modes_bundle, "--data")
    live = hardpath(
        "radio", "run", radio(), *given, data, "--snr-db", 6, "--frames", 8, "--record", tmp_path / "run", "--json"
    ).json
    found = hardpath("radio", "replay", tmp_path / "run", *given, data, "--json").json
    assert found["figures"] == {name: live[name] for name in found["figures"]}
    assert live["decisions"] >= 24
    assert live["accuracy"]["value"] == live["correct"] / live["decisions"]
    assert len(live["decisions_sha256"]) == 64
    assert "accuracy" in hardpath("radio", "replay", tmp_path / "run", *given, data).out
    # Without the bundle there are frames and LLRs all the same.
    assert hardpath("radio", "replay", tmp_path / "run", "--json").json["llr_sha256"] == live["llr_sha256"]
    refused = hardpath("radio", "replay", tmp_path / "run", *given, other).refused(4)
    assert refused.endswith("it was made with other data than this one")


def test_rows_that_cannot_be_sent_are_left_out_by_a_run_and_its_replay(
    hardpath, radio, bundle, with_tokenizer, tmp_path, caplog
):
    data = tmp_path / "test.tsv"
    rows = "label\ttext\n" + "".join(f"{number % 10}\ta film of {number}\n" for number in range(6))
    data.write_text(rows, encoding="utf-8")
    given = ("--bundle", with_tokenizer(bundle), "--data", data)
    asked = ("--snr-db", 9, "--frames", 4, "--json")
    clean = hardpath("radio", "run", radio(), *given, *asked)
    assert clean.code == 0, clean
    data.write_text(rows + "3\t\n12\ta film of none\n", encoding="utf-8")
    assert "line 8: the text is empty" in hardpath("radio", "run", radio(), *given, *asked).refused(2)
    live = hardpath("radio", "run", radio(), *given, "--skip-bad", *asked, "--record", tmp_path / "run").json
    assert live["decisions_sha256"] == clean.json["decisions_sha256"]
    assert "test.tsv: 2 of 8 lines are left out; the first, line 8: the text is empty" in caplog.text
    assert "line 8" in hardpath("radio", "replay", tmp_path / "run", *given).refused(2)
    found = hardpath("radio", "replay", tmp_path / "run", *given, "--skip-bad", "--json").json
    assert found["llr_sha256"] == live["llr_sha256"]
    for command in (("run", radio(), "--frames", 1), ("replay", tmp_path / "run")):
        assert hardpath("radio", *command, "--skip-bad").refused(2) == "--skip-bad must be absent without --bundle"


def test_a_router_needs_an_snr_to_go_by(hardpath, radio, routed_bundle):
    line = hardpath("radio", "run", radio(), "--bundle", routed_bundle, "--frames", 1).refused(2)
    assert line == "--snr-db must be given for a bundle whose router goes by it"


def test_a_device_lost_in_the_middle_is_opened_again(hardpath, radio, tmp_path):
    file = radio(snr_db=12, dies_after=100_000)
    answer = hardpath("radio", "run", file, "--frames", 96, "--record", tmp_path / "run", "--json")
    live = answer.json
    assert answer.code == 0
    assert live["frames"] == 96
    assert live["reconnects"] >= 1
    assert answer.err.count("the simulated device is gone; opened again in 0.1 s") == live["reconnects"]
    assert hardpath("radio", "replay", tmp_path / "run", "--json").json["llr_sha256"] == live["llr_sha256"]


def test_a_device_that_stays_lost_ends_the_run_with_what_was_found(hardpath, radio, tmp_path):
    file = radio(snr_db=12, dies_after=100_000)
    answer = hardpath("radio", "run", file, "--frames", 96, "--reconnect-s", 0, "--record", tmp_path / "run", "--json")
    assert answer.code == 5
    assert [text for text in answer.err.splitlines() if text.startswith("hardpath: ")] == [
        "hardpath: the simulated device is gone"
    ]
    assert 0 < answer.json["frames"] < 96
    assert hardpath("radio", "replay", tmp_path / "run", "--json").json["llr_sha256"] == answer.json["llr_sha256"]


def test_what_an_exchange_that_was_broken_off_left_is_told_and_can_be_received(hardpath, radio, tmp_path):
    given = ("radio", "run", radio(snr_db=15), "--frames", 6, "--exchange-frames", 3, "--record", tmp_path / "run")
    assert hardpath(*given).code == 0
    kept = json.loads((tmp_path / "run.sigmf-meta").read_text())
    kept["annotations"] = [one for one in kept["annotations"] if one["hardpath:exchange"] == 0]
    (tmp_path / "run.sigmf-meta").write_text(json.dumps(kept))
    answer = hardpath("radio", "replay", tmp_path / "run", "--json")
    assert len(answer.json["frames"]) == 3
    assert "samples behind the last exchange are of one that was broken off: --whole receives them too" in answer.err
    whole = hardpath("radio", "replay", tmp_path / "run", "--whole", "--json")
    assert len(whole.json["frames"]) == 6
    assert "broken off" not in whole.err


def test_calibrate_writes_a_radio_that_a_sweep_can_set_the_snr_of(hardpath, radio, tmp_path):
    file, out = radio(snr_db=15, delay_samples=2.25, clock_ppm=30), tmp_path / "calibrated.toml"
    found = hardpath("radio", "calibrate", file, "--frames", 24, "--out", out, "--json").json
    assert found["delay_samples"]["value"] == pytest.approx(2.25, abs=0.05)
    assert found["clock_ppm"]["value"] == pytest.approx(30.0, abs=2.0)
    assert found["frames"] == found["frames_sent"] == 24
    spec = load_radio(out)
    assert spec.calibration is not None
    assert spec.calibration.model_dump(mode="json") == found
    assert spec.full_snr_db == found["snr_db"]["value"]
    assert spec.frontend == load_radio(file).frontend
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("calibrated")] == ["calibrated.toml"]
    assert "delay, samples" in hardpath("radio", "calibrate", out, "--frames", 4).out


def test_a_calibration_that_fails_leaves_the_old_file(hardpath, radio, tmp_path):
    out = tmp_path / "calibrated.toml"
    out.write_text("old")
    assert "0 of 8 frames" in hardpath("radio", "calibrate", radio(snr_db=-25), "--frames", 8, "--out", out).refused(5)
    assert out.read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("probe", "--kind", "usrp"), 2, "kind must be one of loopback, .* got 'usrp'"),
        (("probe", "RADIO", "--kind", "zmq"), 2, "--kind must be absent beside a radio's file"),
        (("run", "MISSING"), 2, ".*missing.toml cannot be read: No such file or directory"),
        (("run", "RADIO", "--order", "8"), 2, "order must be .*got 8"),
        (("run", "RADIO", "--payload", "zeros"), 2, "--payload must be random, got 'zeros'"),
        (("run", "RADIO", "--data", "x.npz"), 2, "--data must be absent without --bundle"),
        (("run", "RADIO", "--bundle", "x", "--order", "4"), 2, "--order must be absent beside --bundle"),
        (("run", "RADIO", "--snr-db", "99"), 2, "--snr-db must be in .* got 99"),
        (
            ("run", "LOOPBACK", "--snr-db", "9"),
            2,
            "--snr-db must be absent for a loopback radio that is not calibrated: its SNR is what it is",
        ),
        (("run", "RADIO", "--bundle", "nowhere", "--frames", "1"), 4, ".*nowhere.*"),
        (("run", "DEAD", "--frames", "1"), 5, "the simulated device is gone"),
        (("run", "WRONG"), 2, ".*wrong.toml: .*gainn is no option of impaired.*"),
        (("run", "SILENT", "--frames", "1"), 5, "the front end took no sample within 0.1 s"),
        (("replay", "nowhere"), 4, ".*nowhere.sigmf-meta: there is no such metadata"),
        (("replay", "REAL"), 4, ".*it holds real samples.*"),
        (("replay", "FOREIGN"), 4, ".*its metadata has no settings of a modem: give a radio's file"),
        (("replay", "FOREIGN", "--data", "x.npz"), 2, "--data must be absent without --bundle"),
        (("calibrate", "DEAD"), 5, "the simulated device is gone"),
        (("calibrate", "MISSING"), 2, ".*missing.toml cannot be read.*"),
        (("serve-pluto", "MISSING"), 2, ".*missing.toml cannot be read.*"),
    ],
)
def test_each_mistake_has_its_line_and_code(hardpath, tmp_path, monkeypatch, arguments, code, line):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        peer = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    texts = {
        "RADIO": '[frontend]\nkind = "impaired"\n',
        "LOOPBACK": '[frontend]\nkind = "loopback"\n',
        "DEAD": '[frontend]\nkind = "impaired"\ndies_after = 1000\n',
        "WRONG": '[frontend]\nkind = "impaired"\ngainn = 3\n',
        "SILENT": f'timeout_s = 0.1\n[frontend]\nkind = "zmq"\nsend = "{peer}"\nsend_binds = false\nrecv = "{peer}"\n',
    }
    for name, text in texts.items():
        (tmp_path / f"{name.lower()}.toml").write_text(text)
    for name, datatype in (("real", "rf32_le"), ("foreign", "cf32_le")):
        (tmp_path / f"{name}.sigmf-data").write_bytes(bytes(800))
        said = {"global": {"core:datatype": datatype, "core:version": "1.0.0"}, "captures": [], "annotations": []}
        (tmp_path / f"{name}.sigmf-meta").write_text(json.dumps(said))
    files = {name: f"{name.lower()}.toml" for name in (*texts, "MISSING")} | {"REAL": "real", "FOREIGN": "foreign"}
    answer = hardpath("radio", *(files.get(argument, argument) for argument in arguments))
    assert re.fullmatch(line, answer.refused(code)), answer.err


def test_a_recording_is_not_written_over(hardpath, radio, tmp_path):
    given = ("radio", "run", radio(), "--frames", 1, "--record", tmp_path / "run")
    assert hardpath(*given).code == 0
    assert "there is a recording of that name" in hardpath(*given).refused(4)


def test_a_recording_of_another_program_is_received_with_a_radios_file(hardpath, radio, tmp_path):
    hardpath("radio", "run", radio(snr_db=15), "--frames", 5, "--record", tmp_path / "run")
    kept = json.loads((tmp_path / "run.sigmf-meta").read_text())
    bare = {"core:datatype": "cf32_le", "core:version": kept["global"]["core:version"]}
    (tmp_path / "run.sigmf-meta").write_text(json.dumps({"global": bare, "captures": [], "annotations": []}))
    found = hardpath("radio", "replay", tmp_path / "run", "--radio", radio(), "--json").json
    assert found["frames_sent"] is None
    assert [frame["sequence"] for frame in found["frames"]] == list(range(5))
    assert "-" in hardpath("radio", "replay", tmp_path / "run", "--radio", radio()).out


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "hardpath", "radio", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_what_was_found_and_a_recording_that_is_whole(hardpath, radio, tmp_path, number, code):
    with command("run", radio(snr_db=14), "--record", tmp_path / "run", "--json") as running:
        assert running.stderr is not None
        running.stderr.readline()  # it is under way
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    live = json.loads(out)
    assert running.returncode == code
    assert live["frames"] > 0
    assert "Traceback" not in err
    assert ("hardpath: interrupted" in err) == (number == signal.SIGINT)
    assert "core:sha512" in json.loads((tmp_path / "run.sigmf-meta").read_text())["global"]
    assert hardpath("radio", "replay", tmp_path / "run", "--json").json["llr_sha256"] == live["llr_sha256"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_radio_is_served_as_a_pluto_until_a_signal(radio, number):
    with command("serve-pluto", radio(), "--port", 0) as serving:
        assert serving.stdout is not None
        said = serving.stdout.readline()
        assert said.startswith("serving a radio (impaired) as a PlutoSDR on ip:127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(said.rpartition(":")[2])), timeout=10) as client:
            client.sendall(b"VERSION\r\n")
            assert client.recv(64).startswith(b"0.")
        serving.send_signal(number)
        _, err = serving.communicate(timeout=30)
    assert (serving.returncode, err) == (0, "")


def test_a_port_that_is_taken_is_refused_in_one_line(hardpath, radio):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in hardpath(
            "radio", "serve-pluto", radio(), "--port", port
        ).refused(5)


def test_radio_alone_shows_its_commands(capsys):
    with pytest.raises(SystemExit):
        main(["radio"])
    shown = capsys.readouterr()
    for name in ("probe", "run", "replay", "calibrate", "serve-pluto"):
        assert name in shown.out + shown.err
