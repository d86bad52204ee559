"""The server of worksheet functions: answers, refusals, and what it survives."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxglmm.spreadsheet import glmm_poisson
from jaxglmm.spreadsheet.server import Server

Y = [[2], [3], [5], [1], [2], [4]]
X = [[1], [2], [3], [1], [2], [3]]
G = [[1], [1], [1], [2], [2], [2]]
POST = b"POST /GLMM_POISSON HTTP/1.1\r\nHost: localhost\r\n"
ARGS = [Y, X, G, None, None, None, "laplace"]


@pytest.fixture(scope="module")
def server():
    made = Server(port=0, most_bytes=20_000_000)
    made.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def guarded():
    made = Server(port=0, token="secret", origins=["https://addin.example"])
    made.start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server, path="/GLMM_POISSON", body=None, method="POST", headers=None):
    """Status, JSON (or None), headers."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    data = body if isinstance(body, bytes | str) or body is None else json.dumps(body)
    connection.request(method, path, data, headers or {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None, answer.headers


def still_serves(server, headers=None):
    status, found, _ = ask(server, body={"args": ARGS}, headers=headers)
    return status == 200 and len(found["result"]) == 8


def test_a_function_by_position_and_by_name(server):
    expected = glmm_poisson(Y, X, G, method="laplace")
    status, found, headers = ask(server, body={"args": ARGS})
    assert status == 200
    assert found["result"] == expected
    assert headers["Content-Type"].startswith("application/json")
    named = {"y": Y, "x": X, "groups": G, "method": "laplace"}
    assert ask(server, path="/glmm_poisson", body=named)[1]["result"] == expected


def test_flat_lists_are_columns(server):
    expected = glmm_poisson(Y, X, G, method="laplace")
    flat = [[cell for (cell,) in rows] for rows in (Y, X, G)]
    named = dict(zip(("y", "x", "groups"), flat, strict=True))
    found = ask(server, body={**named, "method": "laplace"})
    assert found[:2] == (200, {"result": expected})
    mixed = [flat[0], X, flat[2], *ARGS[3:]]
    assert ask(server, body={"args": mixed})[1]["result"] == expected
    text = ask(server, body={"args": [flat[0], X, flat[2][:2]]})[1]["result"]
    assert text.startswith("Invalid input: y and groups")


def test_programs_get_errors_as_statuses(server):
    """A formula in a cell shows its text; who asks by name is told by the status."""
    for body, text in (
        ({"y": Y, "x": X, "groups": G[:2]}, "Invalid input: y and groups"),
        ({"y": Y, "z": X}, "there is no argument z."),
        ({"y": Y, "x": X}, "groups is missing."),
    ):
        status, found, _ = ask(server, body=body)
        assert status == 422
        assert text in found["error"]
        assert found["result"] == found["error"]
    assert still_serves(server)


def test_what_is_served(server):
    status, found, _ = ask(server, "/", method="GET")
    assert status == 200
    assert found["functions"][:2] == ["GLMM_POISSON", "GLMM_BINOMIAL"]
    assert ask(server, "/", method="HEAD")[:2] == (200, None)
    assert ask(server, "/nothing", method="GET")[0] == 404


def test_texts_are_results(server):
    status, found, _ = ask(server, body={"args": [Y, X, G[:2]]})
    assert status == 200
    assert found["result"].startswith("Invalid input: y and groups")
    found = ask(server, body='{"args": [[[NaN], [1]], [[1], [2]], [[1], [2]]]}')[1]
    assert found["result"] == "Invalid input: y[0][0] must be finite."
    found = ask(server, body={"args": [Y, [[1.0] * 100_000] * 6, G]})[1]
    assert "100001 coefficients for 6 rows" in found["result"]
    found = ask(server, body={"args": [Y, X]})[1]
    assert found["result"] == "Invalid input: groups is missing."
    found = ask(server, body={"y": Y, "z": X})[1]
    assert found["result"] == "Invalid input: there is no argument z."


BAD = [
    ({"body": "{"}, 400, "not JSON"),
    ({"body": b"\xff\xfe"}, 400, "not JSON"),
    ({"body": "[" * 100_000}, 400, "not JSON"),
    ({"body": "[1]"}, 400, "must be an object"),
    ({"body": '{"args": 3}'}, 400, "must be a list"),
    ({"path": "/EVAL", "body": "{}"}, 404, "no function 'EVAL'"),
    ({"body": b" " * 20_000_001}, 413, "at most 20000000"),
    ({"body": json.dumps({"args": [[[1] * 5_000_001]]})}, 413, "cells"),
    ({"headers": {"Host": "evil.example"}, "body": "{}"}, 403, "evil.example"),
    (
        {"headers": {"Origin": "https://evil.example"}, "body": "{}"},
        403,
        "allow-origin",
    ),
    ({"headers": {"Origin": "null"}, "body": "{}"}, 403, "null"),
    ({"method": "OPTIONS"}, 403, "web pages"),
]


@pytest.mark.parametrize(("request_", "status", "text"), BAD)
def test_bad_requests_do_no_harm(server, request_, status, text):
    found = ask(server, **request_)
    assert found[0] == status
    assert text in found[1]["error"]
    assert still_serves(server)


def test_methods_that_are_not_there(server):
    for method in ("PUT", "DELETE", "PATCH"):
        connection = http.client.HTTPConnection(*server.server_address[:2])
        connection.request(method, "/GLMM_POISSON")
        assert connection.getresponse().status == 501
        connection.close()
    assert still_serves(server)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x01\x02\r\n\r\n",
        POST + b"\r\n",
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99\r\n\r\n{",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_broken_connections(server, raw):
    with socket.create_connection(server.server_address[:2], timeout=5) as s:
        s.sendall(raw)  # and hang up
    assert still_serves(server)


def test_a_token_is_asked_for(guarded):
    body = {"args": ARGS}
    assert ask(guarded, body=body)[0] == 401
    wrong = {"Authorization": "Bearer public"}
    status, found, headers = ask(guarded, body=body, headers=wrong)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "token" in found["error"]
    assert still_serves(guarded, {"Authorization": "Bearer secret"})


def test_named_origins_may_ask(guarded):
    origin = {"Origin": "https://addin.example"}
    status, _, headers = ask(guarded, method="OPTIONS", headers=origin)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == "https://addin.example"
    assert "Authorization" in headers["Access-Control-Allow-Headers"]
    both = {**origin, "Authorization": "Bearer secret"}
    status, _, headers = ask(guarded, body={"args": ARGS}, headers=both)
    assert status == 200
    assert headers["Access-Control-Allow-Origin"] == "https://addin.example"
    other = {"Origin": "https://other.example", "Authorization": "Bearer secret"}
    status, _, headers = ask(guarded, body={"args": ARGS}, headers=other)
    assert status == 403
    assert headers["Access-Control-Allow-Origin"] is None


def test_a_thousand_at_once(server):
    """All connections are open before the first is answered; none is lost."""
    body = json.dumps({"args": ARGS}).encode()
    head = (
        b"POST /GLMM_POISSON HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    n = 1000
    resource = pytest.importorskip("resource")
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < 2 * n + 200:  # both ends of every connection are in this process
        if 0 < most < 2 * n + 200:
            pytest.skip(f"{most} open files are allowed, {2 * n + 200} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * n + 200, most))
    expected = glmm_poisson(Y, X, G, method="laplace")
    with server.busy:  # hold the first answers back
        sockets = []
        for _ in range(n):
            s = socket.create_connection(server.server_address[:2], timeout=120)
            s.sendall(head + body)
            sockets.append(s)

    def read(s):
        pieces = []
        while piece := s.recv(65536):
            pieces.append(piece)
        s.close()
        top, _, data = b"".join(pieces).partition(b"\r\n\r\n")
        return top.split()[1], json.loads(data)["result"]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(read, sockets))
    assert len(answers) == n
    assert {status for status, _ in answers} == {b"200"}

    # the first are computed in NumPy, the others by a program made meanwhile
    def apart(result):
        cells = [x for row in result for x in row]
        numbers = [x if isinstance(x, float) else np.nan for x in cells]
        return [x for x in cells if not isinstance(x, float)], np.array(numbers)

    texts, numbers = apart(expected)
    for _, result in answers:
        assert apart(result)[0] == texts
        np.testing.assert_allclose(apart(result)[1], numbers, rtol=1e-9, atol=1e-12)


def test_many_clients_in_turn(server):
    with ThreadPoolExecutor(40) as pool:
        futures = [pool.submit(still_serves, server) for _ in range(200)]
        assert all(f.result() for f in futures)


def test_the_command(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxglmm", "serve", "--port", "0", "--no-warm-up"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAXGLMM_TOKEN": "abc"},
    )
    try:
        said = iter(process.stderr.readline, "")
        line = next(text for text in said if "http://" in text)
        port = int(line.rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/", headers={"Authorization": "Bearer abc"})
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "stopped" in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()


def test_the_command_stays_on_this_machine(capsys):
    from doors import main

    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "only this machine" in capsys.readouterr().err


def test_ports_that_cannot_be_had(server, capsys):
    from doors import main

    taken = server.server_address[1]
    assert main(["serve", "--port", "99999"]) == 2
    assert "between 0 and 65535" in capsys.readouterr().err
    assert main(["serve", "--port", str(taken)]) == 2
    assert "--port 0 takes a free one" in capsys.readouterr().err


def test_warming_up_compiles_while_others_ask():
    made = Server(port=0)
    made.start()
    thread = threading.Thread(target=made.warm_up)
    thread.start()
    assert ask(made, "/", method="GET")[0] == 200
    thread.join(120)
    assert not thread.is_alive()
    made.shutdown()
    made.server_close()
