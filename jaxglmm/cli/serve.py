"""Serve the worksheet functions over HTTP on this machine, and keep JAX warm.

Spreadsheets, add-ins and scripts POST to it; see ``jaxglmm.spreadsheet.server``. It
ends with Ctrl-C, or with SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading

from jaxglmm._errors import NotApplicableError
from jaxglmm.cli.progress import keep_compiled_programs

PORT = 8765
TOKEN = "JAXGLMM_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm serve``."""
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="a loopback address (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--token",
        help=f"requests have to carry it; better by the environment: {TOKEN}",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web page's origin that may ask, https://... (may be repeated)",
    )
    parser.add_argument(
        "--most-megabytes", type=float, default=32.0, metavar="MB", help="of a request"
    )
    parser.add_argument(
        "--no-warm-up", action="store_true", help="compile when first asked"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from jaxglmm.spreadsheet.server import LISTEN, Server

    if args.host not in LISTEN:
        raise NotApplicableError(
            f"--host {args.host}: only this machine is served ({' or '.join(LISTEN)}). "
            "Put a server with encryption in front of it to let others in"
        )
    if not 0 <= args.port <= 65535:
        raise NotApplicableError(f"--port {args.port} must lie between 0 and 65535")
    if not args.most_megabytes > 0:
        raise NotApplicableError("--most-megabytes must be positive")
    keep_compiled_programs()
    _many_files()
    token = args.token if args.token is not None else os.environ.get(TOKEN) or None
    size = int(args.most_megabytes * 2**20)
    try:
        server = Server(args.host, args.port, token, args.allow_origin, size)
    except OSError as error:
        raise NotApplicableError(
            f"--port {args.port}: {error.strerror or error}. It may be taken: "
            "--port 0 takes a free one"
        ) from error
    print(
        f"jaxglmm serves worksheet functions on {server.url}",
        file=sys.stderr,
        flush=True,
    )
    if not args.no_warm_up:
        threading.Thread(target=server.warm_up, daemon=True).start()
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _stop)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("jaxglmm: stopped", file=sys.stderr, flush=True)
    finally:
        server.server_close()
    return 0


def _many_files() -> None:
    """As many open connections as the system allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt
