import copy
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import ValidationError, utils
from pydantic import BaseModel, ConfigDict
from pydantic import ValidationError as ModelError

from serve.config.layers import FLAGS, load_config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
KUBERNETES = "1.37"
TLS = DEPLOY / "kubernetes" / "tls"
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
]
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


def one(name, kind=None):
    (found,) = (d for d in read(BASE / name) if kind is None or d["kind"] == kind)
    return found


def pod():
    return one("deployment.yaml")["spec"]["template"]


def containers():
    """The server's container, as each of the two ways to deploy it has it, with the time that its pod is given to end."""
    runtime = read(DEPLOY / "kserve" / "servingruntime.yaml")[0]
    predictor = read(DEPLOY / "kserve" / "inferenceservice.yaml")[0]["spec"]["predictor"]
    return [
        (pod()["spec"]["containers"][0], pod()["spec"]["terminationGracePeriodSeconds"]),
        (runtime["spec"]["containers"][0], predictor["terminationGracePeriodSeconds"]),
    ]


def test_every_file_is_part_of_the_whole():
    kustomization = read(BASE / "kustomization.yaml")[0]
    files = {file.name for file in BASE.glob("*.yaml")} - NO_OBJECTS
    assert set(kustomization["resources"]) == files
    overlay = read(TLS / "kustomization.yaml")[0]
    assert {patch["path"] for patch in overlay["patches"]} == {f.name for f in TLS.glob("*.yaml")} - NO_OBJECTS
    (plain,), (secured,) = kustomization["configMapGenerator"], overlay["configMapGenerator"]
    assert secured == plain | {"behavior": "replace"}


def test_what_selects_the_pods_finds_them():
    labels = pod()["metadata"]["labels"].items()
    selectors = [
        one("deployment.yaml")["spec"]["selector"]["matchLabels"],
        one("pdb.yaml")["spec"]["selector"]["matchLabels"],
        one("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        *(service["spec"]["selector"] for service in read(BASE / "services.yaml")),
        *(spread["labelSelector"]["matchLabels"] for spread in pod()["spec"]["topologySpreadConstraints"]),
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_ports_are_named_alike_everywhere():
    ports = {port["name"]: port["containerPort"] for port in pod()["spec"]["containers"][0]["ports"]}
    for service in read(BASE / "services.yaml"):
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
    for rule in one("networkpolicy.yaml")["spec"]["ingress"]:
        assert all(port["port"] in ports for port in rule["ports"])


def test_the_server_listens_where_the_containers_say():
    config = load_config(BASE / "serve.toml")
    assert config.listen.host == "0.0.0.0"
    ports = {port["name"]: port["containerPort"] for port in containers()[0][0]["ports"]}
    assert ports == {"grpc": config.listen.port, "metrics": config.listen.metrics_port}
    flags = dict(argument.split("=") for argument in containers()[1][0]["args"][1:])
    assert set(flags) <= set(FLAGS.values())
    assert int(flags["--port"]) in [port["containerPort"] for port in containers()[1][0]["ports"]]
    runtime = read(DEPLOY / "kserve" / "servingruntime.yaml")[0]["spec"]
    assert runtime["annotations"]["prometheus.kserve.io/port"] == flags["--metrics-port"]


@pytest.mark.parametrize("number", [0, 1], ids=["deployment", "kserve"])
def test_probes_ask_the_port_of_grpc(number):
    container, _ = containers()[number]
    probes = [container[name]["grpc"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert probes == [load_config(BASE / "serve.toml").listen.port] * 3


@pytest.mark.parametrize("number", [0, 1], ids=["deployment", "kserve"])
def test_a_pod_has_time_to_drain(number):
    container, seconds = containers()[number]
    lifecycle = load_config(BASE / "serve.toml").lifecycle
    # Half of the drain once more, for a process that starts to stop late.
    drain = 1.5 * (lifecycle.drain_delay_s + lifecycle.grace_s)
    assert seconds >= container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain


def test_the_server_reads_the_file_that_is_mounted():
    container, _ = containers()[0]
    (folder,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "config")
    assert container["args"][1] == f"--config={folder}/serve.toml"
    (volume,) = (volume for volume in pod()["spec"]["volumes"] if volume["name"] == "config")
    (generated,) = read(BASE / "kustomization.yaml")[0]["configMapGenerator"]
    assert volume["configMap"] == {"name": generated["name"]}
    assert generated["files"] == ["serve.toml"]


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


@pytest.mark.parametrize("number", [0, 1], ids=["deployment", "kserve"])
def test_a_container_may_do_nothing_that_it_need_not(number):
    container, _ = containers()[number]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    both = pod()["spec"]["securityContext"] | security if number == 0 else security
    assert both["runAsNonRoot"]
    assert both["seccompProfile"] == {"type": "RuntimeDefault"}
    assert str(both["runAsUser"]) == re.search(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.M)[1]


@pytest.mark.parametrize("number", [0, 1], ids=["deployment", "kserve"])
def test_threads_come_from_whole_cores(number):
    resources = containers()[number][0]["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"].isdigit()


def test_the_autoscaler_scales_the_servers_by_what_the_adapter_offers():
    spec = one("hpa.yaml")["spec"]
    (metric,) = spec["metrics"]
    (rule,) = read(BASE / "adapter-rules.yaml")[0]["rules"]
    deployment = one("deployment.yaml")
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert re.fullmatch(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])
    target = {"apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert spec["scaleTargetRef"] == target
    assert "replicas" not in deployment["spec"]


def test_prometheus_finds_the_metrics():
    (common,) = read(BASE / "kustomization.yaml")[0]["labels"]
    (service,) = (s for s in read(BASE / "services.yaml") if s["metadata"]["name"] == "hardpath-metrics")
    monitor = one("servicemonitor.yaml")["spec"]
    labels = service["metadata"]["labels"] | common["pairs"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert [e["port"] for e in monitor["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]


def test_clients_balance_their_calls_themselves():
    (service,) = (s for s in read(BASE / "services.yaml") if s["metadata"]["name"] == "hardpath")
    assert service["spec"]["clusterIP"] == "None"


def test_the_bundle_is_mounted_where_it_is_served_from_and_cannot_be_written():
    spec = pod()["spec"]
    (container,) = spec["containers"]
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "bundle")
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "bundle")
    assert mount == {"name": volume["name"], "mountPath": container["args"][0], "readOnly": True}
    claim = {"claimName": one("bundle.yaml")["metadata"]["name"], "readOnly": True}
    assert volume["persistentVolumeClaim"] == claim


def test_the_image_is_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (image,) = read(BASE / "kustomization.yaml")[0]["images"]
    assert image == {"name": pod()["spec"]["containers"][0]["image"], "newTag": version}
    assert containers()[1][0]["image"] == f"hardpath:{version}"
