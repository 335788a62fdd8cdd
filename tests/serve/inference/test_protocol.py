"""Names, numbers and types of the published protocol; the table beside this file was read from tritonclient 2.66."""

import csv
import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2

from serve.pb.inference import grpc_service_pb2

TABLE = Path(__file__).with_name("published.csv")
TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
PACKAGE = "inference."


def kind(field):
    if field.message_type is None:
        kind = TYPES[field.type] if field.enum_type is None else field.enum_type.full_name.removeprefix(PACKAGE)
    elif field.message_type.GetOptions().map_entry:
        return f"map of {kind_of_values(field)}"
    else:
        kind = field.message_type.full_name.removeprefix(PACKAGE)
    return f"repeated {kind}" if field.is_repeated else kind


def kind_of_values(field):
    return kind(field.message_type.fields_by_name["value"])


def rows_of_message(message):
    if message.GetOptions().map_entry:
        return
    scope = message.full_name.removeprefix(PACKAGE)
    for field in message.fields:
        oneof = field.containing_oneof
        yield scope, field.name, str(field.number), kind(field), "" if oneof is None else oneof.name
    for nested in message.nested_types:
        yield from rows_of_message(nested)
    for enum in message.enum_types:
        yield from rows_of_enum(enum)


def rows_of_enum(enum):
    scope = enum.full_name.removeprefix(PACKAGE)
    return ((scope, value.name, str(value.number), "value", "") for value in enum.values)


def rows_of_file(file):
    for message in file.message_types_by_name.values():
        yield from rows_of_message(message)
    for enum in file.enum_types_by_name.values():
        yield from rows_of_enum(enum)
    for service in file.services_by_name.values():
        for method in service.methods:
            request = f"{'stream ' * method.client_streaming}{method.input_type.name}"
            response = f"{'stream ' * method.server_streaming}{method.output_type.name}"
            yield service.name, method.name, "0", f"{request} > {response}", ""


def test_names_numbers_and_types_are_those_of_the_table():
    with TABLE.open() as file:
        header, *table = csv.reader(file)
    assert header == ["scope", "name", "number", "type", "oneof"]
    ours = sorted(rows_of_file(grpc_service_pb2.DESCRIPTOR))
    assert ours == sorted(map(tuple, table))


def test_names_numbers_and_types_are_those_of_tritonclient():
    theirs = {row for file in (service_pb2, model_config_pb2) for row in rows_of_file(file.DESCRIPTOR)}
    assert set(rows_of_file(grpc_service_pb2.DESCRIPTOR)) <= theirs


def test_a_client_s_program_may_hold_the_same_package_of_another():
    ours = grpc_service_pb2.DESCRIPTOR
    assert ours.package == service_pb2.DESCRIPTOR.package == "inference"
    assert ours.pool is not service_pb2.DESCRIPTOR.pool


def test_the_client_brings_no_second_copy_of_the_protocol():
    program = "import sys, serve.client; sys.exit(any(name.startswith('serve.pb.inference') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
