"""hardpath.v1 only grows. The golden file holds every method, field and enum value that clients may have been built with.

HARDPATH_REGENERATE=1 adds what is new to the golden file; what is gone stays in it, and fails.
"""

import importlib
import os
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

import serve.pb
from link.manifest import SCHEMA_VERSION, Manifest

GOLDEN = Path(__file__).parent / "golden" / "hardpath.v1.txt"
PACKAGE = "hardpath.v1"


def descriptors():
    """Of the files of hardpath.v1, from the stubs that the server runs with."""
    stubs = Path(serve.pb.__file__).parent
    found = sorted(stubs.glob("hardpath/v1/*_pb2.py"))
    return [importlib.import_module(f"serve.pb.hardpath.v1.{file.stem}").DESCRIPTOR for file in found]


def surface(files):
    """What a peer can depend on, a line each, in order."""
    lines = []
    for file in files:
        assert file.package == PACKAGE
        for service in file.services_by_name.values():
            lines += [f"rpc {service.full_name}.{method.name} {signature(method)}" for method in service.methods]
        for message in file.message_types_by_name.values():
            lines += fields(message)
        for enum in file.enum_types_by_name.values():
            lines += [f"value {enum.full_name}.{value.name} = {value.number}" for value in enum.values]
    return sorted(lines)


def signature(method):
    of_client, of_server = ("stream " * streams for streams in (method.client_streaming, method.server_streaming))
    return f"({of_client}{method.input_type.full_name}) returns ({of_server}{method.output_type.full_name})"


def fields(message):
    lines = [f"field {message.full_name}.{field.name} = {field.number} {kind(field)}" for field in message.fields]
    for inner in message.nested_types:
        lines += fields(inner)
    for enum in message.enum_types:
        lines += [f"value {enum.full_name}.{value.name} = {value.number}" for value in enum.values]
    return lines


def kind(field):
    """Type on the wire and in generated code: what one side may not change alone."""
    names = {
        value: name.removeprefix("TYPE_").lower() for name, value in descriptor_pb2.FieldDescriptorProto.Type.items()
    }
    held = field.message_type or field.enum_type
    group = field.containing_oneof
    words = [
        "repeated" if field.is_repeated else "",
        "optional" if group is not None and group.name == f"_{field.name}" else "",
        names[field.type] if held is None else held.full_name,
        f"of {group.name}" if group is not None and group.name != f"_{field.name}" else "",
    ]
    return " ".join(filter(None, words))


def golden():
    return GOLDEN.read_text(encoding="utf-8").splitlines()


def test_nothing_that_a_client_was_built_with_has_changed():
    now = surface(descriptors())
    if os.environ.get("HARDPATH_REGENERATE"):
        GOLDEN.write_text("\n".join(sorted({*golden(), *now})) + "\n", encoding="utf-8")
    gone = sorted(set(golden()) - set(now))
    new = sorted(set(now) - set(golden()))
    assert not gone, f"hardpath.v1 must keep what it has; deprecate it, or put the change into hardpath.v2: {gone}"
    assert not new, f"new in hardpath.v1; run this test with HARDPATH_REGENERATE=1 and commit {GOLDEN.name}: {new}"


def made_up(**changes):
    """A small file of hardpath.v1, with a change."""
    given = {"field": "seed", "number": 5, "type": "TYPE_INT64", "repeated": False, "value": "KIND_RAW", **changes}
    proto = descriptor_pb2.FileDescriptorProto(
        name=f"{sorted(changes.items())}.proto", package=PACKAGE, syntax="proto3"
    )
    message = proto.message_type.add(name="Request")
    message.field.add(
        name=given["field"],
        number=given["number"],
        type=given["type"],
        label="LABEL_REPEATED" if given["repeated"] else "LABEL_OPTIONAL",
    )
    if "added" in changes:
        message.field.add(name=changes["added"], number=9, type="TYPE_BOOL", label="LABEL_OPTIONAL")
    enum = proto.enum_type.add(name="Kind")
    enum.value.add(name="KIND_UNSPECIFIED", number=0)
    enum.value.add(name=given["value"], number=1)
    method = proto.service.add(name="Service").method.add(
        name="Call", input_type=f".{PACKAGE}.Request", output_type=f".{PACKAGE}.Request"
    )
    method.server_streaming = changes.get("streams", False)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return pool.FindFileByName(proto.name)


@pytest.mark.parametrize(
    "change",
    [
        {"number": 6},
        {"field": "seeds"},
        {"type": "TYPE_INT32"},
        {"repeated": True},
        {"value": "KIND_BYTES"},
        {"streams": True},
    ],
)
def test_a_change_that_would_break_a_client_is_seen(change):
    assert set(surface([made_up()])) - set(surface([made_up(**change)]))


def test_an_addition_breaks_nobody():
    assert set(surface([made_up()])) < set(surface([made_up(added="include_llr")]))


def test_the_schema_version_of_bundles_is_the_one_that_the_policy_speaks_of():
    policy = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert f"`schema_version` {SCHEMA_VERSION}" in policy
    assert Manifest.model_config["extra"] == "forbid"
