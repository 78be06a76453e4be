"""Calls that do not wait: `async_infer`, gathered coroutines, gRPC streams, and giving up."""

import asyncio
import queue
import threading

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from serving import PATIENCE, Reader, wait_until
from tritonclient.utils import InferenceServerException

ADDED = np.float32([1, 10, 100, 1000])


def rows(number):
    return np.full((1, 4), number, np.float32)


@pytest.fixture(scope="module")
def http(server):
    with triton_http.InferenceServerClient(server.http, concurrency=8, network_timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def grpc(server):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        yield client


def add_row(module, number):
    tensor = module.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(rows(number))
    return [tensor]


def test_async_infer_over_http(http):
    pending = [http.async_infer("add_row", add_row(triton_http, number)) for number in range(50)]
    for number, request in enumerate(pending):
        result = request.get_result(timeout=PATIENCE)
        np.testing.assert_array_equal(result.as_numpy("y"), rows(number) + ADDED)


def test_async_infer_over_http_tells_of_failures(http):
    good = http.async_infer("add_row", add_row(triton_http, 1))
    bad = http.async_infer("no_such_model", add_row(triton_http, 1))
    with pytest.raises(InferenceServerException, match="Request for unknown model"):
        bad.get_result(timeout=PATIENCE)
    np.testing.assert_array_equal(good.get_result(timeout=PATIENCE).as_numpy("y"), rows(1) + ADDED)


def test_async_infer_over_grpc(grpc):
    answers = queue.Queue()
    for number in range(50):
        grpc.async_infer("add_row", add_row(triton_grpc, number), lambda result, error: answers.put((result, error)),
                         request_id=str(number))
    seen = set()
    for _ in range(50):
        result, error = answers.get(timeout=PATIENCE)
        assert error is None, error
        number = int(result.get_response().id)
        np.testing.assert_array_equal(result.as_numpy("y"), rows(number) + ADDED)
        seen.add(number)
    assert seen == set(range(50))


def test_gathered_coroutines(client):
    if not client.is_aio:
        pytest.skip("only asyncio clients have coroutines")

    async def all_at_once():
        calls = [client.client.infer("add_row", [client.input("x", "FP32", rows(n))]) for n in range(100)]
        return await asyncio.gather(*calls)

    for number, result in enumerate(client.run(all_at_once())):
        np.testing.assert_array_equal(result.as_numpy("y"), rows(number) + ADDED)


def test_answers_of_a_stream_come_in_order(grpc):
    answers = queue.Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)))
    try:
        for number in range(100):
            grpc.async_stream_infer("add_row", add_row(triton_grpc, number), request_id=str(number))
        for number in range(100):
            result, error = answers.get(timeout=PATIENCE)
            assert error is None, error
            assert result.get_response().id == str(number)
            np.testing.assert_array_equal(result.as_numpy("y"), rows(number) + ADDED)
    finally:
        grpc.stop_stream()


def test_a_failure_does_not_end_a_stream(grpc):
    answers = queue.Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)))
    try:
        grpc.async_stream_infer("add_row", add_row(triton_grpc, 1))
        grpc.async_stream_infer("no_such_model", add_row(triton_grpc, 2))
        wrong = triton_grpc.InferInput("x", [1, 4], "INT32")
        wrong.set_data_from_numpy(np.zeros((1, 4), np.int32))
        grpc.async_stream_infer("add_row", [wrong])
        grpc.async_stream_infer("add_row", add_row(triton_grpc, 3))
        received = [answers.get(timeout=PATIENCE) for _ in range(4)]
    finally:
        grpc.stop_stream()
    assert [error is None for _, error in received] == [True, False, False, True]
    assert received[1][1].message().startswith("Request for unknown model")
    assert "INT32" in received[2][1].message() and "FP32" in received[2][1].message()
    np.testing.assert_array_equal(received[3][0].as_numpy("y"), rows(3) + ADDED)


def test_a_stream_that_is_compressed(grpc):
    answers = queue.Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm="gzip")
    try:
        grpc.async_stream_infer("add_row", add_row(triton_grpc, 5))
        result, error = answers.get(timeout=PATIENCE)
    finally:
        grpc.stop_stream()
    assert error is None, error
    np.testing.assert_array_equal(result.as_numpy("y"), rows(5) + ADDED)


def test_a_stream_of_asyncio(grpc_client):
    if not grpc_client.is_aio:
        pytest.skip("the other client has its own streams")

    async def requests():
        for number in range(20):
            name = "no_such_model" if number == 7 else "add_row"
            yield {"model_name": name, "inputs": [grpc_client.input("x", "FP32", rows(number))], "request_id": str(number)}

    async def read():
        received = []
        async for result, error in grpc_client.client.stream_infer(requests()):
            received.append((result, error))
        return received

    received = grpc_client.run(read())
    assert len(received) == 20
    for number, (result, error) in enumerate(received):
        if number == 7:
            assert error.message().startswith("Request for unknown model")
        else:
            assert error is None, error
            np.testing.assert_array_equal(result.as_numpy("y"), rows(number) + ADDED)


def slow_input(module, slow, seconds):
    array = slow.array(seconds)
    tensor = module.InferInput("v0", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


def finish(*streams):
    """Reads the answers of raw requests and closes their connections."""
    for stream in streams:
        with stream:
            assert Reader(stream).answer().status == 200


def test_work_whose_time_is_up_is_dropped_before_it_is_computed(server, slow, client):
    """The `timeout` parameter, in microseconds."""
    executions = int(server.statistics("slow")["execution_count"])
    running, behind = slow.keep_busy(0.4)
    with pytest.raises(InferenceServerException) as failure:
        client.call("infer", "slow", slow_input(client.module, slow, 0.001), timeout=30_000)
    assert failure.value.status() in ("504", "StatusCode.DEADLINE_EXCEEDED")
    assert "deadline" in failure.value.message()
    finish(running, behind)
    assert int(server.statistics("slow")["execution_count"]) - executions == 2 + slow.replaced, "dropped work was computed"


def test_a_timeout_that_is_long_enough(client):
    result = client.call("infer", "add_row", [client.input("x", "FP32", rows(1))], timeout=10_000_000)
    np.testing.assert_array_equal(result.as_numpy("y"), rows(1) + ADDED)


def test_the_timeout_header(server, slow):
    running, behind = slow.keep_busy(0.4)
    with slow.send(0.001, headers={"x-request-timeout-ms": "30"}) as late:
        answer = Reader(late).answer()
    assert answer.status == 504, answer
    assert "deadline" in answer.error()
    finish(running, behind)


def test_the_deadline_of_a_grpc_call(slow, grpc_client):
    running, behind = slow.keep_busy(0.4)
    with pytest.raises(InferenceServerException) as failure:
        grpc_client.call("infer", "slow", slow_input(triton_grpc, slow, 0.001), client_timeout=0.03)
    assert failure.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    finish(running, behind)


def test_a_client_that_stops_waiting_over_http(server, slow):
    running, behind = slow.keep_busy(0.4)
    with triton_http.InferenceServerClient(server.http, network_timeout=0.05) as impatient:
        with pytest.raises(OSError, match="timed out"):
            impatient.infer("slow", slow_input(triton_http, slow, 0.001))
    finish(running, behind)


def test_work_of_a_client_that_hung_up_is_not_computed(server, slow):
    executions = int(server.statistics("slow")["execution_count"])
    running, behind = slow.keep_busy(0.4)
    gone = slow.send(0.001)
    wait_until(lambda: slow.waiting() == 2, "the second request to wait")
    gone.close()
    finish(running, behind)
    finish(slow.send(0.001))
    assert int(server.statistics("slow")["execution_count"]) - executions == 3 + slow.replaced, "abandoned work was computed"


def test_a_cancelled_call_is_not_computed(server, slow, grpc):
    executions = int(server.statistics("slow")["execution_count"])
    running, behind = slow.keep_busy(0.4)
    answers = queue.Queue()
    context = grpc.async_infer("slow", slow_input(triton_grpc, slow, 0.001), lambda result, error: answers.put((result, error)))
    wait_until(lambda: slow.waiting() == 2, "the call to wait")
    context.cancel()
    result, error = answers.get(timeout=PATIENCE)
    assert result is None
    assert error.status() == "StatusCode.CANCELLED"
    finish(running, behind)
    finish(slow.send(0.001))
    assert int(server.statistics("slow")["execution_count"]) - executions == 3 + slow.replaced, "cancelled work was computed"


def test_a_cancelled_coroutine(slow, client):
    if not client.is_aio:
        pytest.skip("only asyncio clients have coroutines")
    running, behind = slow.keep_busy(0.3)

    async def give_up():
        task = asyncio.ensure_future(client.client.infer("slow", slow_input(client.module, slow, 0.001)))
        while slow.waiting() < 2:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, InferenceServerException)):
            await task

    client.run(give_up())
    finish(running, behind)


def test_a_cancelled_stream(slow, server):
    running, behind = slow.keep_busy(0.3)
    answers = queue.Queue()
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("slow", slow_input(triton_grpc, slow, 0.001))
        wait_until(lambda: slow.waiting() == 2, "the request to wait")
        stopped = threading.Thread(target=client.stop_stream, kwargs={"cancel_requests": True})
        stopped.start()
        _, error = answers.get(timeout=PATIENCE)
        stopped.join(PATIENCE)
        assert not stopped.is_alive()
    assert error.status() == "StatusCode.CANCELLED"
    finish(running, behind)


def test_a_full_queue_asks_to_come_back(server, slow, client):
    """One request runs, two wait, and there is room for no other."""
    running, behind = slow.keep_busy(0.4)
    second = slow.send(0.001)
    wait_until(lambda: slow.waiting() == 2, "the queue to be full")
    with pytest.raises(InferenceServerException) as failure:
        client.call("infer", "slow", slow_input(client.module, slow, 0.001))
    assert failure.value.status() in ("429", "StatusCode.RESOURCE_EXHAUSTED")
    assert "queue" in failure.value.message()
    with slow.send(0.001) as third:
        answer = Reader(third).answer()
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    finish(running, behind, second)
