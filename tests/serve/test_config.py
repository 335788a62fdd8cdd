import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from link.errors import ArgumentError
from serve.config.fields import FIELDS, PREFIX, markdown_table, toml_value
from serve.config.layers import FLAGS, config_as_toml, config_with_sources, load_config
from serve.config.schema import ServerConfig

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
GOLDEN = Path(__file__).parent / "golden" / "config.txt"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "serve.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def source_of(configured, key):
    return next(setting.source for setting in configured.settings if setting.key == key)


def test_without_layers_each_field_has_its_default():
    configured = config_with_sources()
    assert configured.config == ServerConfig()
    assert {setting.source for setting in configured.settings} == {"default"}


def test_each_layer_wins_over_those_before_it(file):
    path = file("[listen]\nport = 1\nhost = '127.0.0.2'\nmetrics_port = 11\n[limits]\nmax_batch = 7\n")
    environ = {"HARDPATH_SERVE_LISTEN_PORT": "2", "HARDPATH_SERVE_LISTEN_METRICS_PORT": "12"}
    configured = config_with_sources(path, environ, {"listen.port": 3})
    listen = configured.config.listen
    assert (listen.port, listen.metrics_port, listen.host, configured.config.limits.max_batch) == (
        3,
        12,
        "127.0.0.2",
        7,
    )
    assert source_of(configured, "listen.port") == "--port"
    assert source_of(configured, "listen.metrics_port") == "HARDPATH_SERVE_LISTEN_METRICS_PORT"
    assert source_of(configured, "listen.host") == str(path)
    assert source_of(configured, "limits.queue_bytes") == "default"


def test_the_variable_names_the_file_where_no_flag_does(file, tmp_path):
    path = file("[listen]\nport = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[listen]\nport = 2\n")
    environ = {"HARDPATH_SERVE_CONFIG": str(path)}
    assert load_config(None, environ).listen.port == 1
    assert load_config(other, environ).listen.port == 2


def test_paths_of_a_file_start_at_its_folder_and_others_where_the_process_runs(file, tmp_path):
    path = file("bundles = ['a', '/b']\n[auth]\ntokens = 'tokens.toml'\n")
    config = load_config(path, {"HARDPATH_SERVE_TLS_KEY": "key.pem"}, {"tls.certificate": Path("c.pem")})
    assert config.bundles == (tmp_path / "a", Path("/b"))
    assert config.auth.tokens == tmp_path / "tokens.toml"
    assert (config.tls.key, config.tls.certificate) == (Path("key.pem"), Path("c.pem"))


def test_a_variable_holds_several_paths_apart_by_a_colon():
    assert load_config(None, {"HARDPATH_SERVE_BUNDLES": "a:b/c"}).bundles == (Path("a"), Path("b/c"))


def test_an_empty_variable_and_a_flag_that_is_not_given_change_nothing():
    assert load_config(None, {"HARDPATH_SERVE_LISTEN_PORT": ""}, {"listen.host": None}) == ServerConfig()


def test_variables_that_kubernetes_sets_for_a_service_of_that_name_are_left_alone():
    environ = {
        "HARDPATH_SERVE_SERVICE_HOST": "10.0.0.1",
        "HARDPATH_SERVE_SERVICE_PORT": "50051",
        "HARDPATH_SERVE_SERVICE_PORT_GRPC": "50051",
        "HARDPATH_SERVE_PORT": "tcp://10.0.0.1:50051",
        "HARDPATH_SERVE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "HARDPATH_SERVE_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    assert load_config(None, environ) == ServerConfig()


REFUSED = [
    ("[listen]\nport = 70000\n", "FILE: listen.port must be an integer in [0, 65535], got 70000"),
    ("[listen]\nport = '80'\n", "FILE: listen.port must be an integer in [0, 65535], got '80'"),
    ("[listen]\nport = true\n", "FILE: listen.port must be an integer in [0, 65535], got true"),
    ("[listen]\nport = 1979-05-27\n", "FILE: listen.port must be an integer in [0, 65535], got '1979-05-27'"),
    ("[limits]\nstall_s = nan\n", "FILE: limits.stall_s must be a number in [0.1, 3600], got NaN"),
    ("[limits]\nstall_s = inf\n", "FILE: limits.stall_s must be a number in [0.1, 3600], got Infinity"),
    ("[trace]\nsample_ratio = 1.5\n", "FILE: trace.sample_ratio must be a number in [0, 1], got 1.5"),
    ("[log]\nlevel = 'loud'\n", "FILE: log.level must be one of debug, info, warning, error, got 'loud'"),
    ("[run]\ndevice = 'gpu'\n", "FILE: run.device must be cpu, cuda or cuda:N, got 'gpu'"),
    ("bundles = ['']\n", 'FILE: bundles must be a list of paths, at most 64, got [""]'),
    ("bundles = 'a'\n", "FILE: bundles must be a list of paths, at most 64, got 'a'"),
    ("[listen]\nprot = 1\n", "FILE: listen.prot is unknown; did you mean listen.port?"),
    ("[limit]\nmax_batch = 1\n", "FILE: [limit] is unknown; did you mean limits?"),
    ("port = 1\n", "FILE: port is unknown; did you mean listen.port?"),
    ("listen = 1\n", "FILE: listen must be a section [listen]"),
    ("[listen\n", "FILE must be TOML in UTF-8: Expected ']' at the end of a table declaration (at line 1, column 8)"),
]


@pytest.mark.parametrize(("text", "line"), REFUSED)
def test_a_mistake_in_the_file_is_told_with_file_field_range_and_value(file, text, line):
    path = file(text)
    with pytest.raises(ArgumentError) as error:
        load_config(path)
    assert str(error.value) == line.replace("FILE", str(path))


REFUSED_TEXTS = [
    ("HARDPATH_SERVE_LISTEN_PORT", "x", ": listen.port must be an integer in [0, 65535], got 'x'"),
    ("HARDPATH_SERVE_BATCHING_AUTO", "maybe", ": batching.auto must be true or false, got 'maybe'"),
    ("HARDPATH_SERVE_LISTEN_PROT", "1", " is no variable of a server; did you mean HARDPATH_SERVE_LISTEN_PORT?"),
    ("HARDPATH_SERVE_PORT", "8080", " is no variable of a server; did you mean HARDPATH_SERVE_LISTEN_PORT?"),
]


@pytest.mark.parametrize(("variable", "text", "line"), REFUSED_TEXTS)
def test_a_mistake_in_the_environment_is_told_with_its_variable(variable, text, line):
    with pytest.raises(ArgumentError) as error:
        load_config(None, {variable: text})
    assert str(error.value) == variable + line


def test_a_mistake_in_a_flag_is_told_with_the_flag():
    with pytest.raises(ArgumentError, match=r"^--port: listen\.port must be an integer in \[0, 65535\], got -1$"):
        load_config(None, None, {"listen.port": -1})
    with pytest.raises(ArgumentError, match=r"^--set limits\.idle_s: limits\.idle_s must be a number in .*, got 'x'$"):
        load_config(None, None, {"limits.idle_s": "x"})
    with pytest.raises(ArgumentError, match=r"^--set limits\.idle is unknown; did you mean limits\.idle_s\?$"):
        load_config(None, None, {"limits.idle": "1"})


def test_a_mistake_in_a_setting_is_told_with_the_setting_where_a_flag_has_the_field_too():
    with pytest.raises(ArgumentError, match=r"^--set listen\.port: listen\.port must be an integer .*, got 'x'$"):
        load_config(settings={"listen.port": "x"})
    with pytest.raises(ArgumentError, match=r"^--set listen\.port must be absent beside --port$"):
        load_config(flags={"listen.port": 1}, settings={"listen.port": "2"})
    configured = config_with_sources(flags={"listen.port": None}, settings={"listen.port": "2"})
    assert (configured.config.listen.port, source_of(configured, "listen.port")) == (2, "--set listen.port")


def test_a_mistake_is_told_even_where_a_later_layer_replaces_it(file):
    with pytest.raises(ArgumentError, match=r"serve\.toml: listen\.port"):
        load_config(file("[listen]\nport = -1\n"), None, {"listen.port": 1})


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(ArgumentError, match=r"cannot be read: No such file or directory$"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"receiver = '\xe9'")
    with pytest.raises(ArgumentError, match="must be TOML in UTF-8"):
        load_config(tmp_path / "latin.toml")


MISFITS = [
    ({"limits.message_bytes": 2**30}, "--set limits.message_bytes: limits.queue_bytes must be at least message_bytes"),
    (
        {"limits.queue_bytes": 2**20},
        "--set limits.queue_bytes: limits.queue_bytes must be at least message_bytes (16777216)",
    ),
    (
        {"limits.queue_requests": 9, "limits.concurrent_calls": 8},
        "--set limits.queue_requests and --set limits.concurrent_calls: limits.concurrent_calls must be at least",
    ),
    (
        {"limits.max_batch": 100, "limits.samples_per_stream": 99},
        "--max-batch and --set limits.samples_per_stream: limits.samples_per_stream must be at least max_batch (100)",
    ),
    ({"tls.key": "key.pem"}, "--tls-key: tls.certificate must be given beside key"),
    ({"tls.certificate": "c.pem"}, "--tls-certificate: tls.key must be given beside certificate"),
    ({"tls.client_ca": "ca.pem"}, "--tls-client-ca: tls.client_ca must be absent without certificate and key"),
    ({"bundles": ["a", "a"]}, "BUNDLE: bundles must be named once each, got a, a"),
    (
        {"auth.tokens": "t.toml", "listen.host": "0.0.0.0"},
        "--host and --tokens: auth.tokens must have tls.certificate and tls.key beside them",
    ),
]


@pytest.mark.parametrize(("flags", "line"), MISFITS)
def test_fields_that_do_not_fit_each_other_are_told_with_their_sources(flags, line):
    with pytest.raises(ArgumentError) as error:
        load_config(None, None, flags)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        {"listen.host": "127.0.0.1"},
        {"listen.host": "::1"},
        {"listen.host": "localhost"},
        {"listen.host": "0.0.0.0", "auth.allow_plaintext": True},
        {"listen.host": "0.0.0.0", "tls.certificate": "c.pem", "tls.key": "k.pem"},
    ],
)
def test_tokens_are_allowed_on_loopback_with_tls_and_where_it_is_said_that_a_proxy_ends_it(given):
    assert load_config(None, None, {"auth.tokens": "t.toml", **given}).auth.tokens == Path("t.toml")


def test_a_collectors_password_is_refused_and_not_repeated():
    with pytest.raises(ArgumentError, match="without a password") as error:
        load_config(None, {"HARDPATH_SERVE_TRACE_OTLP_ENDPOINT": "http://user:secret@host:4317"})
    assert "secret" not in str(error.value)


def test_the_models_themselves_refuse_what_the_layers_refuse():
    with pytest.raises(ValidationError):
        ServerConfig.model_validate({"unknown": 1})
    with pytest.raises(ValidationError):
        ServerConfig().listen.port = 1


PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).map(
    lambda name: f"/{name}"
)


@given(bundles=st.lists(PATHS, unique_by=Path, max_size=3), port=st.integers(0, 65535), stall=st.floats(0.1, 3600))
def test_what_is_shown_is_toml_that_gives_the_same_configuration_again(tmp_path_factory, bundles, port, stall):
    flags = {"bundles": bundles, "listen.port": port, "limits.stall_s": stall, "listen.metrics_port": port}
    configured = config_with_sources(None, None, flags)
    path = tmp_path_factory.mktemp("shown") / "serve.toml"
    path.write_text(config_as_toml(configured), encoding="utf-8", newline="")
    assert load_config(path) == configured.config


def test_what_is_shown_says_where_each_field_came_from_and_means_the_same_from_anywhere(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file("bundles = ['a']\n")
    shown = config_as_toml(config_with_sources(Path("serve.toml"), {"HARDPATH_SERVE_AUTH_TOKENS": "t.toml"}, {}))
    assert f'bundles = ["{tmp_path}/a"]  # serve.toml' in shown
    assert f'tokens = "{tmp_path}/t.toml"  # HARDPATH_SERVE_AUTH_TOKENS' in shown
    assert "port = 50051  # default" in shown
    assert "# metrics_port is absent  # default" in shown
    assert tomllib.loads(shown)["listen"]["port"] == 50051


@given(text=st.text(max_size=30))
def test_any_text_is_a_toml_value(text):
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return  # no TOML file can hold half of a surrogate pair
    assert tomllib.loads(f"x = {toml_value(text)}")["x"] == text


def test_every_field_has_a_description_a_range_and_a_variable_of_its_own():
    assert len({field.variable for field in FIELDS.values()}) == len(FIELDS)
    for key, field in FIELDS.items():
        assert field.variable.startswith(PREFIX)
        assert field.description.endswith("."), key
        assert field.allowed, key
        suffix = key.rpartition("_")[2]
        unit = {"bytes": "ytes", "s": "econds", "us": "icroseconds"}.get(suffix)
        assert unit is None or unit in field.description, key


def test_every_flag_sets_a_field():
    assert set(FLAGS) <= set(FIELDS)


def test_every_default_is_allowed():
    for field in FIELDS.values():
        assert (
            field.read(list(field.default) if isinstance(field.default, tuple) else field.default, "x") == field.default
        )


def test_the_documentation_holds_the_table_of_all_fields():
    assert markdown_table() in DOCS.read_text(encoding="utf-8"), f"put this into {DOCS}:\n{markdown_table()}"


def test_every_key_that_a_file_may_hold_goes_on_being_known():
    now = list(FIELDS)
    if os.environ.get("HARDPATH_REGENERATE"):
        GOLDEN.write_text("\n".join(sorted({*GOLDEN.read_text().splitlines(), *now})) + "\n", encoding="utf-8")
    assert sorted(now) == GOLDEN.read_text(encoding="utf-8").splitlines(), "HARDPATH_REGENERATE=1 adds what is new"
