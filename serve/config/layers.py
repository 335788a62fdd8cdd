"""A server's configuration from its layers; each wins over those before it:

    defaults  <  TOML file  <  environment, HARDPATH_SERVE_SECTION_NAME  <  flags of the command, --set among them

Each layer is checked by itself, so that a mistake is told with the file, variable or flag that made it, even where a later
layer replaces the value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from link.errors import ArgumentError
from serve.config.fields import FIELDS, PREFIX, ConfigField, nearest, toml_value
from serve.config.schema import ServerConfig

DEFAULT: Final = "default"
FLAGS: Final = {
    "bundles": "BUNDLE",
    "receiver": "--receiver",
    "listen.host": "--host",
    "listen.port": "--port",
    "listen.metrics_port": "--metrics-port",
    "limits.max_batch": "--max-batch",
    "run.device": "--device",
    "run.threads": "--threads",
    "radio.file": "--radio",
    "lifecycle.grace_s": "--grace-s",
    "lifecycle.watch": "--watch",
    "tls.certificate": "--tls-certificate",
    "tls.key": "--tls-key",
    "tls.client_ca": "--tls-client-ca",
    "auth.tokens": "--tokens",
    "log.level": "--log-level",
}
"""What the command calls a field; --set KEY=VALUE sets any."""

FILE_VARIABLE: Final = f"{PREFIX}CONFIG"
"""Names the file, where no flag does."""

_FILE_BYTES_MAX: Final = 2**20
# What Kubernetes tells each container of a Service that is named hardpath-serve.
_OF_KUBERNETES: Final = re.compile(
    r"SERVICE_(HOST|PORT(_\w+)?)=.*|PORT=\w+://.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
)


class Setting(NamedTuple):
    """A field's value, and where it came from: "default", a file, a variable or a flag."""

    key: str
    value: Any
    source: str


class Configured(NamedTuple):
    """A configuration, and where each of its fields came from, in the order of the model."""

    config: ServerConfig
    settings: tuple[Setting, ...]


def load_config(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> ServerConfig:
    """The configuration; arguments and errors as for `config_with_sources`."""
    return config_with_sources(file, environ, flags, settings).config


def config_with_sources(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Configured:
    """The configuration with the source of each field.

    Parameters
    ----------
    file : Path, optional
        TOML. Relative paths in it start at its folder; those of variables and flags where the process runs.
    environ : mapping of str to str, optional
        Variables, such as os.environ; an empty one is as if it were not set. HARDPATH_SERVE_CONFIG names the file where
        `file` does not.
    flags : mapping of key to value, optional
        What the command was given; None is not given, text is parsed as a variable's.
    settings : mapping of key to str, optional
        What --set was given, parsed alike.

    Raises
    ------
    ArgumentError
        If the file cannot be read, a key is unknown or given by a flag and by --set, or a value is not allowed or does not
        fit another. The line names file, variable or flag.
    """
    flags, settings = flags or {}, settings or {}
    for key in settings:
        if flags.get(key) is not None:
            raise ArgumentError(_set(key), f"must be absent beside {FLAGS.get(key, key)}")
    environ = environ or {}
    named = environ.get(FILE_VARIABLE)
    file = Path(named) if file is None and named else file
    found: dict[str, Setting] = {}
    for layer in (_from_file(file), _from_environment(environ), _from_flags(flags), _from_flags(settings, _set)):
        found.update((setting.key, setting) for setting in layer)
    complete = tuple(found.get(key, Setting(key, field.default, DEFAULT)) for key, field in FIELDS.items())
    values: dict[str, Any] = {}
    for key, value, _ in found.values():
        section, dot, name = key.rpartition(".")
        (values.setdefault(section, {}) if dot else values)[name] = value
    try:
        return Configured(ServerConfig.model_validate(values), complete)
    except ValidationError as error:
        raise _misfit(error, complete) from None


def config_as_toml(configured: Configured) -> str:
    """The configuration as a TOML file that gives it again, with the source of each field as a comment.

    It holds no secrets: of keys and tokens the configuration has the paths alone.
    """
    lines = []
    current = ""
    for key, value, source in configured.settings:
        section, _, name = key.rpartition(".")
        if section != current:
            lines += ["", f"[{section}]"]
            current = section
        given = f"# {name} is absent" if value is None else f"{name} = {toml_value(_absolute(key, value))}"
        lines.append(f"{given}  # {_one_line(source)}")
    return "\n".join(lines) + "\n"


def _from_file(file: Path | None) -> Iterator[Setting]:
    if file is None:
        return
    folder = file.absolute().parent
    for key, value in _flat(_read(file), file):
        field = FIELDS[key]
        read = field.read(value, str(file))
        yield Setting(key, _below(folder, read) if field.holds_paths else read, str(file))


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ArgumentError(str(file), f"cannot be read: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ArgumentError(str(file), f"must hold at most {_FILE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArgumentError(str(file), f"must be TOML in UTF-8: {_one_line(str(error))}") from None


def _flat(values: Mapping[str, Any], file: Path) -> Iterator[tuple[str, Any]]:
    sections = {key.partition(".")[0] for key in FIELDS if "." in key}
    for name, value in values.items():
        if name in sections:
            if not isinstance(value, dict):
                raise ArgumentError(f"{file}: {name}", f"must be a section [{name}]")
            yield from ((_known(f"{name}.{inner}", file), item) for inner, item in value.items())
        else:
            # What belongs to a section is told with it: `port` at the top is meant for listen.port.
            of_section = [key for key in FIELDS if key.endswith(f".{name}")]
            if of_section:
                raise ArgumentError(f"{file}: {name}", f"is unknown; did you mean {of_section[0]}?")
            if name not in FIELDS and isinstance(value, dict):
                raise ArgumentError(f"{file}: [{_one_line(name)}]", f"is unknown{nearest(name, sections)}")
            yield _known(name, file), value


def _known(key: str, file: Path) -> str:
    if key not in FIELDS:
        raise ArgumentError(f"{file}: {_one_line(key)}", f"is unknown{nearest(key, FIELDS)}")
    return key


def _from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    by_variable = {field.variable: field for field in FIELDS.values()}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE or not text:
            continue
        if _OF_KUBERNETES.fullmatch(f"{variable.removeprefix(PREFIX)}={text}"):
            continue
        if variable not in by_variable:
            raise ArgumentError(variable, f"is no variable of a server{nearest(variable, by_variable)}")
        field = by_variable[variable]
        yield Setting(field.key, field.parse(text, variable), variable)


def _set(key: str) -> str:
    """What --set is called where it sets a field."""
    return f"--set {_one_line(key)}"


def _flag(key: str) -> str:
    return FLAGS.get(key) or _set(key)


def _from_flags(flags: Mapping[str, Any], source_of: Callable[[str], str] = _flag) -> Iterator[Setting]:
    for key, value in flags.items():
        if value is None:
            continue
        source = source_of(key)
        if key not in FIELDS:
            raise ArgumentError(source, f"is unknown{nearest(key, FIELDS)}")
        yield Setting(key, _flag_value(FIELDS[key], value, source), source)


def _flag_value(field: ConfigField, value: Any, source: str) -> Any:
    if isinstance(value, str):
        return field.parse(value, source)
    return field.read([str(item) for item in value] if isinstance(value, list | tuple) else value, source)


def _misfit(error: ValidationError, settings: tuple[Setting, ...]) -> ArgumentError:
    """Fields that do not fit each other, which each are allowed: named with the sources of those that were given."""
    first = error.errors()[0]
    section = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    name, _, rest = message.partition(" ")
    key = f"{section}.{name}" if section else name
    words = set(re.findall(r"[a-z_.]+", message))
    given = [
        setting.source
        for setting in settings
        if setting.source != DEFAULT and (setting.key in words or setting.key.removeprefix(f"{section}.") in words)
    ]
    return ArgumentError(f"{' and '.join(dict.fromkeys(given)) or DEFAULT}: {key}", rest)


def _below(folder: Path, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(folder / path for path in value)
    return None if value is None else folder / value


def _absolute(key: str, value: Any) -> Any:
    """A path as it is to be understood from anywhere, since a file's own start at its folder."""
    return _below(Path.cwd(), value) if FIELDS[key].holds_paths else value


def _one_line(text: str) -> str:
    return " ".join(text.split())
