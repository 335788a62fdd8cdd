#!/bin/sh
# Write the stubs in serve/pb anew from proto/. Run from the root of the repository, with the extra `dev` installed.
set -eu
"${PYTHON:-python}" -m grpc_tools.protoc -Iserve/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. \
    proto/hardpath/v1/link.proto proto/hardpath/v1/admin.proto proto/inference/grpc_service.proto
# The package `inference` is also tritonclient's, and one pool of descriptors cannot hold two of them: here it has its own.
sed -i.orig 's/_descriptor_pool\.Default()/_descriptor_pool.DescriptorPool()/' serve/pb/inference/grpc_service_pb2.py
rm serve/pb/inference/grpc_service_pb2.py.orig
