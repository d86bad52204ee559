"""The command ``jaxglmm``: one file a subcommand, results on stdout, talk on stderr."""

from jaxglmm.cli.main import main

__all__ = ["main"]
