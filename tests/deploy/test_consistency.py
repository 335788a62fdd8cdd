"""The manifests among each other, with the server and with what is said of them."""

import json
import re
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from serve.async_server import END_S
from serve.config.layers import FLAGS, load_config
from serve.telemetry.collector import StatisticsCollector
from serve.telemetry.statistics import Statistics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
TLS = DEPLOY / "kubernetes" / "tls"
FILL = DEPLOY / "kubernetes" / "fill.yaml"
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
NO_OBJECTS = {"kustomization.yaml", "adapter-rules.yaml"}


def read(file):
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


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
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Half of the drain once more, for a process that starts to stop late.
    assert seconds >= sleep + 1.5 * (lifecycle.drain_delay_s + lifecycle.grace_s)
    # A second for the turns in which calls that come late are refused.
    assert seconds >= sleep + lifecycle.drain_delay_s + lifecycle.grace_s + END_S + 1.0


def test_the_server_reads_the_file_that_is_mounted():
    container, _ = containers()[0]
    (folder,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "config")
    assert container["args"][1] == f"--config={folder}/serve.toml"
    (volume,) = (volume for volume in pod()["spec"]["volumes"] if volume["name"] == "config")
    (generated,) = read(BASE / "kustomization.yaml")[0]["configMapGenerator"]
    assert volume["configMap"] == {"name": generated["name"]}
    assert generated["files"] == ["serve.toml"]


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


def mounted_claim(spec):
    """The claim that a pod's only container mounts, and its mount."""
    (container,) = spec["containers"]
    (volume,) = (volume for volume in spec["volumes"] if "persistentVolumeClaim" in volume)
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == volume["name"])
    return volume["persistentVolumeClaim"], mount


def test_all_serve_one_folder_of_one_claim_which_they_cannot_write():
    claim, mount = mounted_claim(pod()["spec"])
    assert claim == {"claimName": one("bundle.yaml")["metadata"]["name"], "readOnly": True}
    assert mount["readOnly"]
    bundle = PurePosixPath(pod()["spec"]["containers"][0]["args"][0]).relative_to(mount["mountPath"])
    assert len(bundle.parts) == 1, "a folder of the claim, so that another can take its name"
    predictor = read(DEPLOY / "kserve" / "inferenceservice.yaml")[0]["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == f"pvc://{claim['claimName']}/{bundle}"
    assert containers()[1][0]["args"][0] == "/mnt/models", "where KServe mounts what storageUri names"


def test_the_pod_that_fills_the_claim_writes_where_the_servers_read():
    spec = read(FILL)[0]["spec"]
    claim, mount = mounted_claim(spec)
    assert claim == {"claimName": one("bundle.yaml")["metadata"]["name"]}
    assert mount == {"name": mount["name"], "mountPath": mounted_claim(pod()["spec"])[1]["mountPath"]}
    assert one("bundle.yaml")["spec"]["accessModes"] == ["ReadWriteMany"]
    assert spec["securityContext"].items() >= pod()["spec"]["securityContext"].items()
    assert spec["containers"][0]["securityContext"] == containers()[0][0]["securityContext"]


def test_the_container_serves_the_folder_that_it_is_told_to_mount():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (target,) = re.findall(r'--volume "[^":]+:([^":]+):ro"', text)
    assert json.loads(re.search(r"^CMD (\[.*\])$", text, re.M)[1])[0] == target


def test_the_image_is_of_this_version_wherever_it_is_named():
    (image,) = read(BASE / "kustomization.yaml")[0]["images"]
    assert image == {"name": pod()["spec"]["containers"][0]["image"], "newTag": VERSION}
    whole = f"{image['name']}:{image['newTag']}"
    assert [containers()[1][0]["image"], read(FILL)[0]["spec"]["containers"][0]["image"]] == [whole, whole]
    texts = [(ROOT / "Dockerfile").read_text(encoding="utf-8"), README]
    assert [re.findall(r"docker build --tag (\S+)", text) for text in texts] == [[whole], [whole]]
    assert re.findall(r":ro\" (\S+)$", texts[0], re.M) == [whole]
    assert f"the image is `{whole}`" in README


def test_the_commands_name_files_and_objects_that_there_are():
    script = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    for folder in re.findall(r"--kustomize (\S+)", script):
        assert (ROOT / folder / "kustomization.yaml").is_file()
    for path in re.findall(r"--filename (\S+)", script):
        assert (ROOT / path).exists()
    for path in re.findall(r"`((?:kubernetes|kserve|prometheus|grafana)[\w./]*)`", README):
        assert (DEPLOY / path).exists(), path
    claim, _ = mounted_claim(read(FILL)[0]["spec"])
    assert f"hardpath-fill:{pod()['spec']['containers'][0]['args'][0]}\n" in script
    assert f"of the claim `{claim['claimName']}`" in README
    secrets = {
        volume["secret"]["secretName"]
        for volume in read(TLS / "deployment.yaml")[0]["spec"]["template"]["spec"]["volumes"]
    }
    assert set(re.findall(r"create secret \w+ (\S+)", script)) == secrets


def test_the_autoscaler_asks_for_a_metric_that_the_server_has():
    statistics = Statistics()
    statistics.loaded("digits", 1)
    statistics.operation("digits.link")
    exposed = generate_latest(_registry(statistics)).decode()
    (metric,) = one("hpa.yaml")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.search(rf"^{name}{{", exposed, re.M)
    assert f"# TYPE {name} gauge" in exposed


def _registry(statistics):
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(statistics.snapshot))
    return registry


def test_a_node_can_be_drained_and_somebody_still_answers():
    assert one("hpa.yaml")["spec"]["minReplicas"] > one("pdb.yaml")["spec"]["maxUnavailable"]
    rolling = one("deployment.yaml")["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0
    assert rolling["maxSurge"] >= 1


@pytest.mark.parametrize("number", [0, 1], ids=["deployment", "kserve"])
def test_memory_holds_the_queue_and_what_is_computed_of_it(number):
    size, unit = re.fullmatch(r"(\d+)(Mi|Gi)", containers()[number][0]["resources"]["limits"]["memory"]).groups()
    memory = int(size) * {"Mi": 2**20, "Gi": 2**30}[unit]
    assert memory >= 2 * load_config(BASE / "serve.toml").limits.queue_bytes + 256 * 2**20


def test_clients_and_prometheus_are_let_in_and_nobody_else():
    clients, prometheus = one("networkpolicy.yaml")["spec"]["ingress"]
    assert [port["port"] for port in clients["ports"]] == ["grpc"]
    assert list(clients["from"][0]) == ["podSelector"], "of the same namespace"
    assert [port["port"] for port in prometheus["ports"]] == [
        e["port"] for e in one("servicemonitor.yaml")["spec"]["endpoints"]
    ]
    assert one("networkpolicy.yaml")["spec"]["policyTypes"] == ["Ingress", "Egress"]
