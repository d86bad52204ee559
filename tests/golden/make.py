"""Record what today's code answers: ``python tests/golden/make.py [file]``.

Only for a change of numbers that is meant: the diff of golden.json is what changed.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from golden.models import CASES
from golden.record import record

import jaxglmm as jg

GOLDEN = Path(__file__).parent / "golden.json"


def main(path=GOLDEN):
    """Write all records, a case a line."""
    jg.enable_compilation_cache()
    lines = [f"{json.dumps(name)}: {json.dumps(record(name))}" for name in CASES]
    Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
