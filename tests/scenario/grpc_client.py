#!/usr/bin/env python3
"""A gRPC client of curated that shares nothing with ours: Debian's python3-grpcio, messages by protoc --python_out.
grpc_client.py SOCKET HOST:PORT CERTIFICATES PROTO_FOLDER: health, reflection and status on both ways in."""
import os
import subprocess
import sys
import tempfile

try:
    import grpc
    from google.protobuf import descriptor_pb2
except ImportError as e:
    print(e, "(apt-get install python3-grpcio python3-protobuf)")
    sys.exit(77)

SERVICE = "arancini.control.v1.Control"


def read(path):
    with open(path, "rb") as f:
        return f.read()


def status_of(channel, pb):
    call = channel.unary_unary(f"/{SERVICE}/GetStatus", request_serializer=lambda m: m.SerializeToString(),
                               response_deserializer=pb.Status.FromString)
    return call(pb.GetStatusRequest(), timeout=10)


def check(channel, pb):
    # HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1: SERVING}
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=10) == b"\x08\x01"
    assert health(b"\x0a" + bytes([len(SERVICE)]) + SERVICE.encode(), timeout=10) == b"\x08\x01"
    # ServerReflectionRequest{file_containing_symbol = 4}: the answer holds a FileDescriptorProto of our file.
    reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    answer = next(reflect(iter([b"\x22" + bytes([len(SERVICE)]) + SERVICE.encode()]), timeout=10))
    for method in ("GetStatus", "WatchStatus", "Restart", "Drain", "Reload"):
        assert method.encode() in answer, f"reflection does not know {method}"
    status = status_of(channel, pb)
    assert {p.name for p in status.processes} >= {"curated", "publishd", "ingestd@0", "ingestd@1"}, status
    assert all(p.version == status.version and p.pid > 0 for p in status.processes if p.name != "nats-server"), status
    watch = channel.unary_stream(f"/{SERVICE}/WatchStatus", request_serializer=lambda m: m.SerializeToString(),
                                 response_deserializer=pb.Status.FromString)
    stream = watch(pb.WatchStatusRequest(interval_ms=100), timeout=20)
    seen = [next(stream).uptime_s for _ in range(3)]
    stream.cancel()
    assert seen == sorted(seen), seen


def main():
    path, address, certs, protos = sys.argv[1:5]
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(["protoc", f"--proto_path={protos}", f"--python_out={out}", "control.proto"], check=True)
        sys.path.insert(0, out)
        import control_pb2 as pb
        assert isinstance(pb.DESCRIPTOR.serialized_pb, bytes) and descriptor_pb2
        with grpc.insecure_channel("unix:" + path) as channel:
            check(channel, pb)
        noc = grpc.ssl_channel_credentials(read(os.path.join(certs, "ca.pem")), read(os.path.join(certs, "noc.key")),
                                           read(os.path.join(certs, "noc.pem")))
        with grpc.secure_channel(address, noc) as channel:
            check(channel, pb)
        guest = grpc.ssl_channel_credentials(read(os.path.join(certs, "ca.pem")), read(os.path.join(certs, "guest.key")),
                                             read(os.path.join(certs, "guest.pem")))
        with grpc.secure_channel(address, guest) as channel:
            try:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
                raise AssertionError("a name that is not allowed was served")
            except grpc.RpcError as e:
                assert e.code() == grpc.StatusCode.PERMISSION_DENIED and "control.allow_names" in e.details(), e
        for why, credentials in (("no certificate", grpc.ssl_channel_credentials(read(os.path.join(certs, "ca.pem")))),
                                 ("another CA", grpc.ssl_channel_credentials(
                                     read(os.path.join(certs, "ca.pem")), read(os.path.join(certs, "stranger.key")),
                                     read(os.path.join(certs, "stranger.pem"))))):
            with grpc.secure_channel(address, credentials) as channel:
                try:
                    status_of(channel, pb)
                    raise AssertionError(f"served with {why}")
                except grpc.RpcError as e:
                    assert e.code() == grpc.StatusCode.UNAVAILABLE, e
    print("python3-grpcio", grpc.__version__ + ": health, reflection, status and its stream, on the socket and with mTLS")


main()
