"""Calls that are refused for their token are seen by whoever runs the server."""

import grpc
import pytest

from serve.pb.hardpath.v1 import admin_pb2
from serve.pb.hardpath.v1.admin_pb2_grpc import AdminServiceStub
from serve.security.tokens import new_token


def test_refusals_for_a_token_are_counted_and_logged_with_their_peer(serving, bundle_path, tmp_path, caplog):
    operator, camera = new_token("operator", ["infer", "admin"]), new_token("camera", ["infer"])
    (tmp_path / "tokens.toml").write_text(f"{operator.line}\n{camera.line}\n")
    caplog.set_level("INFO")
    with serving(bundle_path, auth={"tokens": tmp_path / "tokens.toml"}) as server:
        statistics = AdminServiceStub(server.channel).GetStatistics

        def ask(token):
            metadata = [("authorization", f"Bearer {token}")] if token else []
            return statistics(admin_pb2.GetStatisticsRequest(), metadata=metadata)

        for token, code in (
            ("", "UNAUTHENTICATED"),
            ("guess", "UNAUTHENTICATED"),
            (camera.token, "PERMISSION_DENIED"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                ask(token)
            assert refused.value.code().name == code
        assert ask(operator.token).statistics.failures.denied == 3
    lines = [record for record in caplog.records if record.getMessage() == "call ended" and hasattr(record, "code")]
    assert [line.code for line in lines][:1] == ["UNAUTHENTICATED"]
    assert {line.code for line in lines} == {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert {line.method for line in lines} == {"hardpath.v1.AdminService/GetStatistics"}
    assert all(line.peer.startswith("ipv4:127.0.0.1") for line in lines)
    assert camera.token not in caplog.text
