"""The four clients of tritonclient behind one face, so that one test drives them all.

Nothing of a client is replaced: `Client.call` calls the client's own method, and runs what an asyncio client returns on an event
loop. Calls that should be answered at once are bounded.
"""

import asyncio

import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio

from serving import PATIENCE

MODULES = {
    "http": triton_http,
    "http.aio": triton_http_aio,
    "grpc": triton_grpc,
    "grpc.aio": triton_grpc_aio,
}


class Client:
    """One client, connected."""

    def __init__(self, kind, server):
        self.kind = kind
        self.is_http = kind.startswith("http")
        self.is_aio = kind.endswith("aio")
        self.module = MODULES[kind]
        self.loop = asyncio.new_event_loop() if self.is_aio else None
        if kind == "http":
            options = {"concurrency": 8, "connection_timeout": PATIENCE, "network_timeout": PATIENCE}
        elif kind == "http.aio":
            options = {"conn_timeout": PATIENCE}
        else:
            options = {}
        url = server.http if self.is_http else server.grpc

        async def connect():
            return self.module.InferenceServerClient(url, **options)

        self.client = self.run(connect()) if self.is_aio else self.module.InferenceServerClient(url, **options)

    def run(self, coroutine):
        """Waits for a coroutine of an asyncio client."""
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))

    def call(self, method, *arguments, **options):
        """Calls a method of the client and returns its answer."""
        answer = getattr(self.client, method)(*arguments, **options)
        return self.run(answer) if self.is_aio else answer

    def describe(self, method, *arguments, **options):
        """Calls a method that describes something, and returns a dict or list for every client."""
        return self.call(method, *arguments, **options, **({} if self.is_http else {"as_json": True}))

    def close(self):
        """Closes the client."""
        self.call("close")
        if self.loop:
            self.loop.close()

    def input(self, name, datatype, array, binary=True):
        """Returns an input of the client's own type."""
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        if self.is_http:
            tensor.set_data_from_numpy(array, binary_data=binary)
        else:
            tensor.set_data_from_numpy(array)
        return tensor

    def output(self, name, binary=True, class_count=0):
        """Returns a requested output of the client's own type."""
        options = {"class_count": class_count}
        if self.is_http:
            options["binary_data"] = binary
        return self.module.InferRequestedOutput(name, **options)

    def response(self, result):
        """Returns the head of an answer: model, version, id, parameters and outputs without their data."""
        if self.is_http:
            return result.get_response()
        return result.get_response(as_json=True)
