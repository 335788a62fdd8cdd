"""What is in a bundle, and what is on this machine."""

from __future__ import annotations

import importlib.util
import platform
import re
from importlib import metadata
from typing import Any, Final

from link.bundle import Bundle
from link.interface import TensorSpec
from link.manifest import Manifest, Mode, TaskSpec
from link.provenance import code_version

EXTRAS: Final = ("cpu", "gpu", "sweep", "sim", "train", "text", "quality", "image", "hub", "serve", "radio")


def describe(manifest: Manifest) -> str:
    """A bundle in one line."""
    return f"{manifest.name} version {manifest.version}, {describe_task(manifest.task)}; {describe_sent(manifest)}" + (
        f"; {1 + len(manifest.receivers)} receivers" if manifest.receivers else ""
    )


def describe_task(task: TaskSpec) -> str:
    """What a receiver answers."""
    question = "" if task.question is None else f", question {task.question}"
    answers = f"{len(task.classes)} classes" if task.text is None else f"texts of up to {task.positions} pieces"
    return f"task {task.name}{question}, {answers}"


def describe_sent(manifest: Manifest, *, tokens: bool = True) -> str:
    """What a sample is sent as; of a single mode, with its tokens or without."""
    if len(manifest.modes) == 1:
        return describe_mode(manifest.modes[0], tokens=tokens)
    sizes = [mode.num_symbols for mode in manifest.modes]
    chosen = "a router that is told the SNR" if manifest.routed else "the sample"
    if manifest.takes_mode:
        chosen += " unless the caller does,"
    return f"one of {len(sizes)} modes of {min(sizes)} to {max(sizes)} symbols, chosen by {chosen} and sent in a header"


def describe_mode(mode: Mode, *, tokens: bool = True) -> str:
    """What a mode sends."""
    labels = f"{mode.tokens} tokens of {mode.index_bits} bits, " if tokens else ""
    return f"{labels}{mode.num_bits} bits in {mode.num_symbols} symbols of {mode.order}-QAM"


def details(bundle: Bundle) -> str:
    """A bundle in a paragraph a part."""
    manifest, made = bundle.manifest, bundle.manifest.provenance
    accuracy = ", ".join(f"{snr} dB {100 * value:.2f} %" for snr, value in made.accuracy.items())
    libraries = ", ".join(f"{name} {version}" for name, version in made.libraries.items())
    lines = [
        f"bundle       {bundle.path}",
        f"             {describe(manifest)}",
        *([f"classes      {', '.join(manifest.task.classes)}"] if manifest.task.text is None else []),
        f"LLR          {manifest.llr.convention}, {manifest.llr.demapper} demapper, clipped at {manifest.llr.clip:g}",
    ]
    if manifest.header is not None:
        header = manifest.header
        lines += [
            *(
                f"mode {number:<7} {describe_mode(mode)}{', the default' if number == manifest.default_mode else ''}"
                for number, mode in enumerate(manifest.modes)
            ),
            f"header       {header.code}, {header.repeats} repeats, one for {header.frame_samples} samples, lost below "
            f"{header.threshold:g}",
        ]
    if manifest.receivers:
        of = {spec.name: spec.task for spec in manifest.receivers} | {manifest.receiver_name: manifest.task}
        lines += [f"receiver     {name}: {describe_task(of[name])}" for name in manifest.receiver_names]
    for kind, graph in (("transmitter", manifest.transmitter), ("receiver", manifest.receiver)):
        lines += [
            f"{kind:12} {graph.file}, sha256 {graph.sha256[:16]}",
            *(f"   in        {_tensor(spec)}" for spec in graph.inputs),
            *(f"   out       {_tensor(spec)}" for spec in graph.outputs),
        ]
    if manifest.tokenizer is not None:
        spec = manifest.tokenizer
        lines += [
            f"texts        {spec.file}, sha256 {spec.sha256[:16]}",
            f"   in        {spec.text}: a text, cut or padded to {spec.length} tokens, becomes {' and '.join(spec.becomes)}",
        ]
    lines += [
        f"trained      recipe {made.recipe.get('name')}, seed {made.seed}, epoch {made.epoch} ({made.phase}), "
        f"T {made.temperature:g}, hardpath {made.code_version}",
        f"             hard accuracy on validation: {accuracy}",
        f"             checkpoint sha256 {made.checkpoint_sha256[:16]}; {libraries}",
    ]
    return "\n".join(lines)


def diagnosis() -> dict[str, Any]:
    """Versions, providers, and for each extra what is missing."""
    extras = {extra: _missing(extra) for extra in EXTRAS}
    return {
        "hardpath": code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "onnxruntime_providers": _providers(),
        "extras": {extra: {"installed": not missing, "missing": missing} for extra, missing in extras.items()},
        "versions": _versions(),
    }


def diagnosis_text(found: dict[str, Any]) -> str:
    """The diagnosis for a screen."""
    lines = [
        f"hardpath {found['hardpath']}, Python {found['python']}, {found['platform']}",
        f"ONNX Runtime providers: {', '.join(found['onnxruntime_providers']) or 'none, it is not installed'}",
    ]
    for extra, state in found["extras"].items():
        mend = f"missing {', '.join(state['missing'])}: pip install 'hardpath[{extra}]'"
        lines.append(f"  {extra:6} {'ok' if state['installed'] else mend}")
    if not any(found["extras"][extra]["installed"] for extra in ("cpu", "gpu")):
        lines.append("Nothing can be encoded or decoded: install one of hardpath[cpu] and hardpath[gpu], never both.")
    lines.append(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    return "\n".join(lines)


def _requirements(extra: str | None) -> list[str]:
    """Packages of an extra, those of the extras that it brings along among them."""
    names: list[str] = []
    for requirement in metadata.requires("hardpath") or []:
        wanted = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if (wanted.group(1) if wanted else None) != extra:
            continue
        own = re.match(r"hardpath\[([^\]]+)\]", requirement)
        match = re.match(r"[A-Za-z0-9_.-]+", requirement)
        if own:
            names += [name for brought in own.group(1).split(",") for name in _requirements(brought.strip())]
        elif match:
            names.append(match.group())
    return names


def _missing(extra: str) -> list[str]:
    """Packages of an extra that are not there; the extra itself, where the installation does not know of it."""
    if extra not in (metadata.metadata("hardpath").get_all("Provides-Extra") or []):
        return [f"hardpath[{extra}]"]
    return [name for name in _requirements(extra) if _version(name) is None]


def _versions() -> dict[str, str]:
    names = [name for extra in (None, *EXTRAS) for name in _requirements(extra)]
    return {name: version for name in names if (version := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    from link.session import onnx_runtime

    providers: list[str] = onnx_runtime().get_available_providers()
    return providers


def _tensor(spec: TensorSpec) -> str:
    limits = "" if spec.low is None and spec.high is None else f" in [{spec.low}, {spec.high}]"
    return f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.shape))}]{limits} {spec.description}".rstrip()
