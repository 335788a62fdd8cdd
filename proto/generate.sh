#!/bin/sh
# Write the stubs in serve/pb anew from proto/. Run from the root of the repository, with the extra `dev` installed.
set -eu
"${PYTHON:-python}" -m grpc_tools.protoc -Iserve/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. \
    proto/hardpath/v1/link.proto proto/hardpath/v1/admin.proto
