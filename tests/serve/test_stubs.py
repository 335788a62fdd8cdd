from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from serve.pb.hardpath.v1 import link_pb2
from serve.pb.inference import grpc_service_pb2

ROOT = Path(link_pb2.__file__).parents[4]


def without_json_names(messages):
    """Clear what protoc derives for a descriptor set and leaves out of stubs."""
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        without_json_names(message.nested_type)


@pytest.mark.parametrize("stubs", [link_pb2, grpc_service_pb2], ids=lambda stubs: stubs.DESCRIPTOR.package)
def test_the_stubs_are_those_of_the_proto(tmp_path, stubs):
    written = tmp_path / "descriptors"
    arguments = ["protoc", f"-Iserve/pb={ROOT / 'proto'}", f"--descriptor_set_out={written}"]
    assert protoc.main([*arguments, stubs.DESCRIPTOR.name]) == 0, "run proto/generate.sh"
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(written.read_bytes()).file
    without_json_names(file.message_type)
    assert descriptor_pb2.FileDescriptorProto.FromString(stubs.DESCRIPTOR.serialized_pb) == file, (
        "run proto/generate.sh"
    )


def test_the_package_on_the_wire_is_not_the_folder_of_the_stubs():
    assert link_pb2.DESCRIPTOR.package == "hardpath.v1"
