"""Documentation, alerts and dashboard: they name what there is, and all of it."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

import serve
from serve.results import RadioState
from serve.telemetry.collector import TRITON_REASONS, StatisticsCollector
from serve.telemetry.statistics import Statistics

ROOT = Path(serve.__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text()
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
SCRAPE = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "hardpath.json"
NAME = re.compile(r"\b(?:nv_inference|hardpath|process)_[a-z_]+\b")


class Family(NamedTuple):
    kind: str
    labels: frozenset[str]
    series: frozenset[str]


def collected():
    """Each family of the endpoint, all of whose series exist."""
    statistics = Statistics()
    statistics.loaded("digits", 1)
    link = statistics.operation("digits.link")
    link.executed(1)
    link.sent(1, 1, 1, 12.0, "awgn")
    statistics.radio = lambda: RadioState("loopback", True, 1, 1, 1, 1, 1, 1)
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(statistics.snapshot))
    ProcessCollector(registry=registry)
    return {
        family.name: Family(
            family.type,
            frozenset(name for sample in family.samples for name in sample.labels) - {"le"},
            frozenset(sample.name for sample in family.samples),
        )
        for family in registry.collect()
    }


FAMILIES = collected()
SERIES = frozenset().union(*(family.series for family in FAMILIES.values()))


def rows(header):
    """Cells of a table of the document, its code marks taken off."""
    table = DOCUMENT.partition(f"\n{header}\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert table, header
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def test_the_table_of_metrics_is_that_of_the_collector():
    table = {
        name: Family(
            kind, frozenset(filter(None, labels.split(", "))), FAMILIES[name].series if name in FAMILIES else ""
        )
        for name, kind, labels, _ in rows("| metric | kind | labels | what it counts |")
    }
    assert table == FAMILIES


def test_the_table_of_causes_is_that_of_the_collector():
    table = {
        cause: reason
        for cause, reason, _, _ in rows("| `cause` | Triton's `reason` | gRPC | what became of the request |")
    }
    assert table == TRITON_REASONS


def test_the_documents_questions_are_about_series_that_there_are():
    questions = DOCUMENT.partition("Useful questions:")[2].partition("Buckets of durations")[0]
    asked = NAME.findall(questions)
    assert len(asked) >= 6
    assert set(asked) <= SERIES


def alerts():
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]


def labels_of(expression):
    """Labels that an expression selects or groups by, but for those that Prometheus adds itself."""
    selected = re.findall(r"([a-z_]+)=~?\"", expression)
    grouped = re.findall(r"by \(([^)]*)\)", expression)
    return {*selected, *(name.strip() for group in grouped for name in group.split(","))} - {"instance", "le"}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_names_series_and_labels_that_there_are_and_says_what_it_is(rule):
    asked = set(NAME.findall(rule["expr"]))
    assert asked
    assert asked <= SERIES
    known = frozenset().union(*(family.labels for family in FAMILIES.values() if family.series & asked))
    assert labels_of(rule["expr"]) <= known
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= known | {"instance"}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_causes_that_an_alert_selects_exist(rule):
    assert set(re.findall(r'cause="(\w+)"', rule["expr"])) <= set(TRITON_REASONS)


def test_every_alert_is_in_the_document():
    assert [row[0] for row in rows("| alert | when | what to do |")] == [rule["alert"] for rule in alerts()]


def test_the_scrape_configuration_asks_the_default_port_and_loads_the_alerts():
    from serve.telemetry.metrics import HOST, PORT

    found = yaml.safe_load(SCRAPE.read_text())
    (job,) = found["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{HOST}:{PORT}"]}]
    assert "metrics_path" not in job, "/metrics is Prometheus' own default"
    assert [SCRAPE.parent / name for name in found["rule_files"]] == [ALERTS]


def test_the_dashboard_names_series_that_there_are_and_no_panel_twice():
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in NAME.findall(target["expr"])}
    assert len(asked) >= 10
    assert asked <= SERIES
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)
