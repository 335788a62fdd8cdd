"""Whether the manifest says what the checkpoint holds, and the graphs hold what the manifest says.

The manifest is compared entry by entry with the checkpoint. The graphs' constants are compared where the exporter kept
their names; where it folded them into others, the behaviour of the graphs speaks for them (`train.reception`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from link.bundle import Bundle
from link.manifest import HeaderSpec, Manifest
from train.agreement import Frozen
from train.tasks import Task, TextTask, receiver_inputs_of, text_of
from train.transceiver import Transceiver

# The manifest's decimal digits spell a float32 to the last bit.
_PRIOR_TOLERANCE: Final = 1e-7


class ContractAgreement(Frozen):
    """What the comparison of manifest, checkpoint and the graphs' constants found.

    Attributes
    ----------
    constants : tuple of str
        Constants found in the graphs by name, `file: name`.
    comparable : bool
        Whether inputs, shapes and classes agree, without which nothing else can be compared.
    findings : tuple of str
        What is different, in words.
    """

    constants: tuple[str, ...]
    comparable: bool
    findings: tuple[str, ...]


def contract_agreement(
    bundle: Bundle, model: Transceiver, task: Task, header: HeaderSpec | None = None
) -> ContractAgreement:
    """Compare a bundle's manifest, and what can be read from its graphs, with a checkpoint.

    Parameters
    ----------
    header : HeaderSpec, optional
        The checkpoint's, where it has several modes.
    """
    shapes = _shape_findings(bundle.manifest, model, task)
    findings = list(shapes)
    constants: list[str] = []
    findings += _tokenizer_findings(bundle.manifest, task)
    if not shapes:
        findings += _table_findings(bundle.manifest, model)
        if len(bundle.manifest.modes) > 1:
            findings += _differences({"header": (bundle.manifest.header, header)})
        held = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        for spec in (bundle.manifest.transmitter, bundle.manifest.receiver):
            for name, value in _named_constants(onnx.load(bundle.file(spec)), held).items():
                constants.append(f"{spec.file}: {name}")
                if not np.array_equal(value, held[name]):
                    findings.append(f"{spec.file}: its constant {name} is not the checkpoint's")
    return ContractAgreement(constants=tuple(constants), comparable=not shapes, findings=tuple(findings))


def _shape_findings(manifest: Manifest, model: Transceiver, task: Task) -> list[str]:
    recipe = model.recipe
    pairs: dict[str, tuple[Any, Any]] = {
        "task": (manifest.task.name, task.name),
        "classes": (manifest.task.classes, task.classes),
        "text": (manifest.task.text, text_of(task)),
        "inputs": (_interface(manifest.task_inputs), _interface(task.inputs)),
        "receiver's own inputs": (_interface(manifest.side_inputs), _interface(receiver_inputs_of(task))),
        "number of modes": (len(manifest.modes), len(recipe.rates)),
        "router": (manifest.routed, model.router is not None),
    }
    for number, (mode, rate) in enumerate(zip(manifest.modes, recipe.rates, strict=False)):
        of = _of_mode(manifest, number)
        pairs |= {
            f"tokens{of}": (mode.tokens, rate.tokens),
            f"codewords{of}": (mode.codewords, rate.codewords),
            f"QAM order{of}": (mode.order, rate.order),
        }
    return _differences(pairs)


def _tokenizer_findings(manifest: Manifest, task: Task) -> list[str]:
    """What the bundle makes of texts, against what the checkpoint's task does."""
    if not hasattr(task, "tokenizer"):
        return _differences({"tokenizer": (manifest.tokenizer, None)})
    text_task = cast(TextTask, task)
    made, digest = text_task.tokenizer, hashlib.sha256(text_task.tokenizer_json.encode()).hexdigest()
    if manifest.tokenizer is None:
        return [f"manifest: tokenizer is absent, the checkpoint's has sha256 {digest}"]
    spec = manifest.tokenizer
    return _differences(
        {
            "tokenizer's sha256": (spec.sha256, digest),
            "tokenizer's length": (spec.length, made.length),
            "tokenizer's padding": ((spec.pad_id, spec.pad_token), (made.pad_id, made.pad_token)),
        }
    )


def _table_findings(manifest: Manifest, model: Transceiver) -> list[str]:
    link = model.recipe
    findings = _differences(
        {
            "demapper": (manifest.llr.demapper, link.demapper),
            "clip": (manifest.llr.clip, link.llr_clip),
            "default mode": (manifest.default_mode, link.default_mode),
        }
    )
    for number, (mode, codec) in enumerate(zip(manifest.modes, model.modes, strict=True)):
        quantizer = codec.quantizer
        labels = np.asarray(mode.labels) != quantizer.labels.numpy()
        prior = ~(np.abs(np.asarray(mode.log_prior) - quantizer.log_prior.double().numpy()) <= _PRIOR_TOLERANCE)
        for name, wrong in (("labels", labels), ("log_prior", prior)):
            if wrong.any():
                findings.append(
                    f"manifest: {int(wrong.sum())} of {mode.codewords} entries of {name}{_of_mode(manifest, number)} are "
                    f"not the checkpoint's (first: codeword {int(np.argmax(wrong))})"
                )
    return findings


def _of_mode(manifest: Manifest, number: int) -> str:
    return f" of mode {number}" if len(manifest.modes) > 1 else ""


def _differences(pairs: dict[str, tuple[Any, Any]]) -> list[str]:
    return [
        f"manifest: {name} is {said!r}, the checkpoint's is {held!r}"
        for name, (said, held) in pairs.items()
        if said != held
    ]


def _interface(specs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [(spec.name, spec.dtype, spec.shape, spec.low, spec.high) for spec in specs]


def _named_constants(graph: onnx.ModelProto, held: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The weights and tables of the checkpoint that kept their names in a graph."""
    found = {}
    for initializer in graph.graph.initializer:
        name = initializer.name.removeprefix("transceiver.")
        if name in held:
            found[name] = numpy_helper.to_array(initializer)
    return found
