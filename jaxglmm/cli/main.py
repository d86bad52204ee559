"""Reading the command line, and what every subcommand shares.

Exit codes: 0 done, 1 a check failed (``doctor``), 2 the request cannot be met (one line
on stderr says why), 3 a fit did not converge, 130 interrupted. Compiled programs are
kept on disk here, unlike in the library: a command is a fresh process every time.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from jaxglmm._errors import JaxGLMMError, JaxGLMMWarning
from jaxglmm._version import __version__
from jaxglmm.cli import calc, demo, doctor, fit, libreoffice, serve, warm
from jaxglmm.cli.progress import end_line

COMMANDS = (demo, fit, calc, serve, libreoffice, warm, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); the exit code."""
    args = parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _one_line
        warnings.simplefilter("always", JaxGLMMWarning)
        try:
            return args.run(args)
        except (JaxGLMMError, OSError) as error:
            say(f"jaxglmm: error: {error}")
            return 2
        except KeyboardInterrupt:
            say("jaxglmm: interrupted")
            return 130


def parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    top = argparse.ArgumentParser(prog="jaxglmm", description="Mixed models on JAX.")
    version = f"jaxglmm {__version__}"
    top.add_argument("--version", action="version", version=version)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        summary = (module.__doc__ or "").splitlines()[0]
        name = module.__name__.rsplit(".", 1)[-1]
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=getattr(module, "EXAMPLE", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def say(text: str) -> None:
    """Something for the reader, not for a pipe."""
    end_line()
    print(text, file=sys.stderr, flush=True)


def _one_line(message, category, filename, lineno, file=None, line=None) -> None:
    say(f"jaxglmm: {category.__name__}: {message}")
