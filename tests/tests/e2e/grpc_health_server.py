"""A gRPC server with the health service of grpcio-health-checking, and a call shop.Cart/Add.
Prints its port, then does what each line of its input says and answers with a line. With
three arguments it speaks TLS: its certificate, its key, and who signs those of clients."""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

counts = {"calls": 0, "checks": 0}


class Health(health.HealthServicer):
    def Check(self, request, context):
        counts["checks"] += 1
        return super().Check(request, context)


def add(request, context):
    counts["calls"] += 1
    return request


servicer = Health()
server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
handlers = {"Add": grpc.unary_unary_rpc_method_handler(add)}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Cart", handlers)])
if len(sys.argv) > 1:
    certificate, key, clients = (open(name, "rb").read() for name in sys.argv[1:])
    credentials = grpc.ssl_server_credentials([(key, certificate)], clients, True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
for line in sys.stdin:
    match line.split():
        case ["set", service, status]:
            value = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
            servicer.set(service, value)
            print("set", flush=True)
        case ["count", what]:
            print(counts[what], flush=True)
