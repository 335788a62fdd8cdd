import copy
from functools import cache
from pathlib import Path
from typing import Literal

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import ValidationError, utils
from pydantic import BaseModel, ConfigDict
from pydantic import ValidationError as ModelError

from serve.config.layers import load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
KUBERNETES = "1.37"
TLS = DEPLOY / "kubernetes" / "tls"
FILL = DEPLOY / "kubernetes" / "fill.yaml"
NO_OBJECTS = {"kustomization.yaml", "adapter-rules.yaml"}
# Their schemas come with their operators, not with Kubernetes: what is used of them is written down below.
CUSTOM = {"ServingRuntime", "InferenceService", "ServiceMonitor"}
# Maps whose keys are the user's own.
FREE_MAPS = {"labels", "annotations", "matchLabels", "requests", "limits", "selector"}


def read(file):
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def merged(base, patch):
    """A strategic merge patch, as far as it is used here: lists of named things are merged by name, null takes away."""
    if isinstance(base, dict) and isinstance(patch, dict):
        changed = {key: merged(base.get(key), value) for key, value in patch.items() if value is not None}
        return {key: value for key, value in base.items() if key not in patch} | changed
    if isinstance(base, list) and isinstance(patch, list) and patch and isinstance(patch[0], dict):
        key = next(name for name in ("name", "port") if name in patch[0])
        named = {item[key]: item for item in base}
        return list((named | {item[key]: merged(named.get(item[key]), item) for item in patch}).values())
    return patch


def overlaid(patch):
    """An object of the base with a patch of the overlay."""
    file = {"Deployment": "deployment.yaml", "Service": "services.yaml"}[patch["kind"]]
    (base,) = (d for d in read(BASE / file) if d["metadata"]["name"] == patch["metadata"]["name"])
    return merged(base, patch)


OBJECTS = [
    (f"{file.relative_to(DEPLOY)}:{document['kind']}", document)
    for folder in (BASE, DEPLOY / "kserve")
    for file in sorted(folder.glob("*.yaml"))
    if file.name not in NO_OBJECTS
    for document in read(file)
] + [("fill.yaml:Pod", read(FILL)[0])]
PATCHES = [
    (f"tls:{patch['kind']}", patch) for file in ("deployment.yaml", "services.yaml") for patch in read(TLS / file)
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Metadata(Strict):
    name: str
    annotations: dict[str, str] = {}


class Format(Strict):
    name: str
    version: str | None = None
    autoSelect: bool | None = None


class RuntimeSpec(Strict):
    annotations: dict[str, str] = {}
    supportedModelFormats: list[Format]
    protocolVersions: list[Literal["v1", "v2", "grpc-v1", "grpc-v2"]]
    containers: list[dict]


class ServingRuntime(Strict):
    apiVersion: Literal["serving.kserve.io/v1alpha1"]
    kind: str
    metadata: Metadata
    spec: RuntimeSpec


class ModelSpec(Strict):
    modelFormat: Format
    protocolVersion: Literal["v1", "v2", "grpc-v1", "grpc-v2"]
    storageUri: str


class Predictor(Strict):
    minReplicas: int
    maxReplicas: int
    terminationGracePeriodSeconds: int
    model: ModelSpec


class InferenceServiceSpec(Strict):
    predictor: Predictor


class InferenceService(Strict):
    apiVersion: Literal["serving.kserve.io/v1beta1"]
    kind: str
    metadata: Metadata
    spec: InferenceServiceSpec


class LabelSelector(Strict):
    matchLabels: dict[str, str]


class Endpoint(Strict):
    port: str
    path: str
    interval: str
    scrapeTimeout: str


class MonitorSpec(Strict):
    selector: LabelSelector
    endpoints: list[Endpoint]


class ServiceMonitor(Strict):
    apiVersion: Literal["monitoring.coreos.com/v1"]
    kind: str
    metadata: Metadata
    spec: MonitorSpec


def check(document):
    """Refuse what Kubernetes' schema does not know; of custom resources, what is not written down above."""
    if document.get("kind") not in CUSTOM:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    found = globals()[document["kind"]].model_validate(document)
    if document["kind"] == "ServingRuntime":
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}
        check(pod | {"spec": {"containers": found.spec.containers}})


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once():
    patch = pytest.MonkeyPatch()
    patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    yield
    patch.undo()


def field_paths(node, path=()):
    """Path of every field that the schema names."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(key, str):
            yield (*path, key)
        if key not in FREE_MAPS or (isinstance(value, dict) and "matchLabels" in value):
            yield from field_paths(value, (*path, key))


def misspelt(document, path):
    changed = copy.deepcopy(document)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[f"{path[-1]}z"] = node.pop(path[-1])
    return changed


@pytest.mark.parametrize("document", [d for _, d in OBJECTS], ids=[name for name, _ in OBJECTS])
def test_every_object_fits_its_schema(document):
    check(document)


@pytest.mark.parametrize("document", [d for _, d in OBJECTS], ids=[name for name, _ in OBJECTS])
def test_no_field_can_be_misspelt_unnoticed(document):
    unnoticed = []
    for path in field_paths(document):
        if path == ("kind",) or path == ("apiVersion",):
            continue
        try:
            check(misspelt(document, path))
        except (ValidationError, ModelError):
            continue
        unnoticed.append(path)
    assert unnoticed == []


@pytest.mark.parametrize("patch", [p for _, p in PATCHES], ids=[name for name, _ in PATCHES])
def test_an_overlay_gives_objects_that_fit_their_schema_and_hides_no_misspelling(patch):
    check(overlaid(patch))
    for path in field_paths(patch["spec"]):
        if path[-1] == "grpc":  # which is taken away
            continue
        with pytest.raises((ValidationError, KeyError, StopIteration)):
            check(overlaid(misspelt(patch, ("spec", *path))))


def test_the_overlay_adds_tls_and_tokens_and_changes_nothing_else():
    secured = load_config(TLS / "serve.toml")
    plain = load_config(BASE / "serve.toml")
    assert secured.model_copy(update={"tls": plain.tls, "auth": plain.auth}) == plain
    (patch,) = read(TLS / "deployment.yaml")
    (container,) = overlaid(patch)["spec"]["template"]["spec"]["containers"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    wanted = {str(path.parent) for path in (secured.tls.certificate, secured.tls.key, secured.auth.tokens)}
    assert wanted <= mounted
    probe = container["livenessProbe"]["exec"]["command"]
    assert probe[:4] == ["python", "-m", "serve.probe", f"127.0.0.1:{secured.listen.port}"]
    assert f"--ca={secured.tls.certificate}" in probe
    assert "grpc" not in container["readinessProbe"]


def test_secrets_are_read_by_the_servers_group_alone():
    (patch,) = read(TLS / "deployment.yaml")
    spec = overlaid(patch)["spec"]["template"]["spec"]
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert [secret["defaultMode"] for secret in secrets] == [0o440, 0o440]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
