"""Worksheet functions over HTTP on this machine: JSON in, JSON out, JAX kept warm.

    POST /GLMM_POISSON   {"args": [y, x, groups, ...]}
    -> 200 {"result": [[...], ...]}  or  200 {"result": "Invalid input: ..."}
    POST /GLMM_POISSON   {"y": ..., "x": ..., "groups": ...}
    -> 200 {"result": [[...], ...]}  or  422 {"error": "Invalid input: ...", ...}
    GET /                what is served

Ranges are lists of rows, [[2], [3]]; a list of cells, [2, 3], is a column. A text is a
result for the cell of a spreadsheet, which asks by position; for a program, which asks
by name, it is an error.

Who may ask: programs on this machine. The server listens on the loopback address,
answers only requests that were addressed to it (a page elsewhere could point a name of
its own here), refuses pages of other origins unless they are named, and may ask for a
token. A request that is too large, no JSON, or none of ours gets an error and does no
harm to the next. Connections are read by many threads; models are fitted one by one,
for they use all processors anyway.
"""

from __future__ import annotations

import hmac
import json
import math
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

MOST_BYTES = 32 * 2**20
MOST_CELLS = 5_000_000
READERS = 32  # connections that are read at once; more wait in line
PATIENCE = 10.0  # seconds for a client to send its request
LISTEN = ("127.0.0.1", "localhost")
LOOPBACK = (*LISTEN, "[::1]")


class Refused(Exception):
    """A request that gets an error: its status, why, and more of the answer."""

    def __init__(self, status: HTTPStatus, text: str, **more: Any):
        super().__init__(text)
        self.status, self.text, self.more = status, text, more


class Server(HTTPServer):
    """The server; ``serve_forever`` runs it, ``shutdown`` stops it.

    Args:
        host: address to listen on; a loopback address.
        port: 0 takes a free one (``url`` says which).
        token: what a request has to carry, as ``Authorization: Bearer TOKEN``.
        origins: of web pages that may ask, such as "https://addin.xlwings.org".
        most_bytes: largest request.

    >>> server = Server(port=0)
    >>> server.url.startswith("http://127.0.0.1:")
    True
    >>> server.server_close()
    """

    request_queue_size = 4096
    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        token: str | None = None,
        origins: Iterable[str] = (),
        most_bytes: int = MOST_BYTES,
    ):
        self.token, self.origins = token, frozenset(origins)
        self.most_bytes = int(most_bytes)
        self.busy = threading.Lock()
        # many that wait for their clients, no work to share: not ``runtime.executors``
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="jaxglmm")
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a reader."""
        self._readers.submit(self._read, request, client_address)

    def _read(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except (OSError, ValueError):  # the client went away in the middle
            pass
        finally:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing to print: what went wrong was answered, or nobody is there."""

    def server_close(self) -> None:
        """Stop listening and let readers end."""
        super().server_close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def start(self) -> threading.Thread:
        """Serve in a thread of its own."""
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        return thread

    def warm_up(self) -> None:
        """Compile what a first formula would wait for."""
        from jaxglmm.spreadsheet.sheets import call

        y = [[2], [3], [5], [1], [2], [4]]
        x = [[1], [2], [3], [1], [2], [3]]
        groups = [[1], [1], [1], [2], [2], [2]]
        binary = [[int(v > 2)] for (v,) in y]
        for name, values in (("GLMM_POISSON", y), ("GLMM_BINOMIAL", binary)):
            with self.busy:
                call(name, [values, x, groups])


class Handler(BaseHTTPRequestHandler):
    """One request, one answer, and the connection is closed."""

    server: Server  # type: ignore[assignment]
    server_version = "jaxglmm"
    sys_version = ""
    timeout = PATIENCE
    unread: int | None = None  # of the body; None where nobody has asked for it

    def do_GET(self) -> None:
        """What is served."""
        self._answer(self._about)

    def do_HEAD(self) -> None:
        """The same without a body."""
        self._answer(self._about, body=False)

    def do_POST(self) -> None:
        """Evaluate a function."""
        self._answer(self._evaluate)

    def do_OPTIONS(self) -> None:
        """A browser asks beforehand whether its page may."""
        self._answer(lambda: None)

    def _answer(self, work: Any, body: bool = True) -> None:
        self.close_connection = True
        try:
            self._check()
            found = work()
            status = HTTPStatus.NO_CONTENT if found is None else HTTPStatus.OK
        except Refused as refused:
            status, found = refused.status, {"error": refused.text, **refused.more}
        except OSError:  # the client is gone, or too slow
            return
        except Exception as error:  # whatever it is, the next request is served
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            found = {"error": f"{type(error).__name__}: {error}"}
        self._send(status, found, body)
        self._drain()

    def _send(self, status: HTTPStatus, found: Any, body: bool) -> None:
        data = b"" if found is None else json.dumps(found, allow_nan=False).encode()
        self.send_response(status)
        if found is not None:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self._allow()
        if status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if body and data:
            self.wfile.write(data)

    def _allow(self) -> None:
        """Tell a browser that its page may read the answer."""
        origin = self.headers.get("Origin") if self.headers else None
        if origin is None or origin not in self.server.origins:
            return
        self.send_header("Access-Control-Allow-Origin", origin)
        self.send_header("Vary", "Origin")
        self.send_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "Content-Type, Authorization")
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.send_header("Access-Control-Max-Age", "600")

    # Who may ask ----------------------------------------------------------------------

    def _check(self) -> None:
        host = _host(self.headers.get("Host", ""))
        if host not in LOOPBACK and host != str(self.server.server_address[0]):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"requests for {host or 'no host'} are not answered",
            )
        origin = self.headers.get("Origin")
        if origin is not None and origin not in self.server.origins:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"pages of {origin} may not ask; start the server with --allow-origin "
                f"{origin} if they should",
            )
        if self.command == "OPTIONS":
            if origin is None:
                raise Refused(HTTPStatus.FORBIDDEN, "OPTIONS is for web pages")
            return
        self._check_token()

    def _check_token(self) -> None:
        wanted = self.server.token
        if wanted is None:
            return
        given = self.headers.get("Authorization", "")
        kind, _, value = given.partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(
            value.strip().encode(), wanted.encode()
        ):
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong: send Authorization: Bearer TOKEN",
            )

    # What is asked --------------------------------------------------------------------

    def _about(self) -> dict[str, Any]:
        from jaxglmm._version import __version__
        from jaxglmm.spreadsheet.sheets import ARGUMENTS, FUNCTIONS, OWN

        if urlsplit(self.path).path not in ("/", "/health"):
            raise Refused(HTTPStatus.NOT_FOUND, "GET / says what is served")
        return {
            "jaxglmm": __version__,
            "functions": list(FUNCTIONS),
            "arguments": list(ARGUMENTS),
            "own": {name: list(names) for name, names in OWN.items()},
        }

    def _evaluate(self) -> dict[str, Any]:
        from jaxglmm.spreadsheet.sheets import FUNCTIONS, call

        name = urlsplit(self.path).path.strip("/").upper()
        if name not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise Refused(
                HTTPStatus.NOT_FOUND, f"no function {name!r}; there are {known}"
            )
        arguments = columns(name, self._arguments())
        with self.server.busy:
            found = call(name, arguments)
        if isinstance(found, str) and isinstance(arguments, dict):
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, found, result=found)
        return {"result": finite(found)}

    def _arguments(self) -> Any:
        try:
            value = json.loads(self._body())
        except (ValueError, RecursionError) as error:
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}"
            ) from None
        if not isinstance(value, dict):
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                'the body must be an object: {"args": [y, x, groups, ...]}',
            )
        given = value.get("args", value)
        if not isinstance(given, list | dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "args must be a list")
        if cells(given) > MOST_CELLS:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"more than {MOST_CELLS} cells are not taken",
            )
        return given

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is None or not length.isdigit():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if int(length) > self.server.most_bytes:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {length} bytes; at most {self.server.most_bytes} are "
                "taken",
            )
        self.unread = 0
        return self.rfile.read(int(length))

    def _drain(self) -> None:
        """Read what a refused client still sends, or it would not see the answer."""
        length = self.headers.get("Content-Length", "0") if self.headers else "0"
        left = int(length) if length.isdigit() and self.unread is None else 0
        self.wfile.flush()
        end = time.monotonic() + PATIENCE
        try:
            while left > 0 and time.monotonic() < end:
                piece = self.rfile.read1(min(left, 2**16))
                if not piece:
                    break
                left -= len(piece)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: spreadsheets ask often."""


def _host(header: str) -> str:
    """The host of a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower()


def cells(value: Any) -> int:
    """How many cells arguments have, roughly."""
    values = value.values() if isinstance(value, dict) else value
    total = 0
    for item in values:
        if isinstance(item, list):
            total += sum(len(r) if isinstance(r, list) else 1 for r in item)
        else:
            total += 1
    return total


def columns(function: str, given: Any) -> Any:
    """Arguments with flat lists of cells, in the place of a range, as columns."""
    from jaxglmm.spreadsheet.sheets import RANGES, arguments_of

    def column(name: str, value: Any) -> Any:
        flat = isinstance(value, list) and not any(isinstance(v, list) for v in value)
        return [[v] for v in value] if flat and name in RANGES else value

    if isinstance(given, dict):
        return {name: column(name, value) for name, value in given.items()}
    named = [*arguments_of(function), *[""] * len(given)]
    return [column(n, v) for n, v in zip(named, given, strict=False)]


def finite(found: Any) -> Any:
    """A table as JSON has it: what is no number is empty."""
    if not isinstance(found, list):
        return found
    return [
        [None if isinstance(c, float) and not math.isfinite(c) else c for c in row]
        for row in found
    ]
