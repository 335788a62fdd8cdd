"""Sub-commands that serve links: serve, token."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hardpath.options import ReceiverName, path_of
from hardpath.terminal import ends_with, exit_at_once, note, say

commands = typer.Typer()

_BLAS_THREADS: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@commands.command()
@ends_with(" before the server was ready")
def serve(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUNDLE", help="Folders of the bundles; their names must differ.", parser=path_of),
    ] = None,
    receiver: ReceiverName = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration, TOML; flags go over it.", parser=path_of)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any field of the configuration; may be repeated."),
    ] = None,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the configuration and end.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 where absent.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 50051 where absent, 0: a free one.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the Prometheus metrics; off where absent.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Most samples in one request; 4096 where absent.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; cpu where absent.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads inside a run of a graph; 1 where absent.")] = None,
    radio: Annotated[
        Path | None,
        typer.Option(
            "--radio", metavar="FILE", help="Radio for channel `radio`, TOML; none where absent.", parser=path_of
        ),
    ] = None,
    grace_s: Annotated[
        float | None, typer.Option("--grace-s", help="Seconds that calls in flight have at the end; 10 where absent.")
    ] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Load bundles anew when they change on disk.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Certificate chain of the server.", parser=path_of)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its private key.", parser=path_of)] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authorities of the clients let in (mTLS).", parser=path_of)
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer tokens' hashes, see `hardpath token`.", parser=path_of)
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Least severity logged: debug, info, warning or error; info where absent."),
    ] = None,
) -> None:
    """Serve bundles over gRPC until SIGINT or SIGTERM, then finish what is in flight. SIGHUP: look at all files anew.

    Each field of the configuration comes from its default, the file, the environment (HARDPATH_SERVE_SECTION_FIELD) or a
    flag; the later wins.
    """
    _keep_blas_to_its_caller(os.environ)

    from serve.config.layers import FLAGS, config_as_toml, config_with_sources

    given: dict[str, Any] = {
        "bundles": tuple(bundles) if bundles else None,
        "receiver": receiver,
        "listen.host": host,
        "listen.port": port,
        "listen.metrics_port": metrics_port,
        "limits.max_batch": max_batch,
        "run.device": device,
        "run.threads": threads,
        "radio.file": radio,
        "lifecycle.grace_s": grace_s,
        "lifecycle.watch": watch,
        "tls.certificate": tls_certificate,
        "tls.key": tls_key,
        "tls.client_ca": tls_client_ca,
        "auth.tokens": tokens,
        "log.level": log_level,
    }
    assert given.keys() == FLAGS.keys()
    configured = config_with_sources(config, os.environ, given, _settings(settings or []))
    if show_config:
        say(config_as_toml(configured).rstrip())
        return
    if not configured.config.bundles:
        raise typer.BadParameter("give a bundle's folder, or `bundles` in the configuration", param_hint="BUNDLE")

    from serve.server import serve as serve_bundles
    from serve.telemetry.logs import configure

    configure(configured.config.log.format, configured.config.log.level)

    def ready(address: str) -> None:
        say(f"serving {', '.join(map(str, configured.config.bundles))} on {address}")

    if not serve_bundles(configured.config, ready=ready):
        exit_at_once()


def _keep_blas_to_its_caller(environ: MutableMapping[str, str]) -> None:
    """Let NumPy's BLAS start no threads of its own, unless somebody wants them; it looks once, when NumPy is imported.

    A server computes one run a worker, and as many at once as cores are granted. OpenBLAS would start a thread for each core
    of the affinity, whatever quota the cgroup has.
    """
    for name in _BLAS_THREADS:
        environ.setdefault(name, "1")


@commands.command()
@ends_with(" before there was a token")
def token(
    name: Annotated[str, typer.Argument(help="Whose token it is; logs have it.")],
    admin: Annotated[bool, typer.Option("--admin", help="Allow administration, too.")] = False,
) -> None:
    """Make a bearer token: itself on stdout, and on stderr the line for the server's file, which has its hash."""
    from serve.security.tokens import new_token

    made = new_token(name, ("infer", "admin") if admin else ("infer",))
    say(made.token)
    note(f"# put this into the file of --tokens:\n{made.line}")


def _settings(texts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise typer.BadParameter(f"must be KEY=VALUE, got {text!r}", param_hint="--set")
        if key in found:
            raise typer.BadParameter(f"gives {key} twice, as {found[key]!r} and {value!r}", param_hint="--set")
        found[key] = value
    return found
