"""``python -m jaxglmm`` is the command ``jaxglmm``."""

from jaxglmm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
