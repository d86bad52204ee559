"""One fit shared among devices: two forced ones."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import jaxglmm as jg

SCRIPT = """
    import json
    import sys
    {before}
    import jax
    import numpy as np
    import pandas as pd
    import jaxglmm as jg

    rng = np.random.default_rng(1)
    n, J = 960, 120
    g, h = np.repeat(np.arange(J), 8), rng.integers(0, 20, n)
    x = rng.normal(size=n)
    eta = 0.3 * x + rng.normal(size=J)[g] + 0.5 * rng.normal(size=20)[h]
    y = eta + rng.normal(size=n)
    c = (rng.random(n) < 1 / (1 + np.exp(-eta))) * 1.0
    data = pd.DataFrame({{"x": x, "g": g, "h": h, "y": y, "c": c}})
    own = jax.local_devices()[:1]
    found = {{}}
    for kind in ("all", "one"):
        with jg.on_devices("all" if kind == "all" else own):
            fits = [
                jg.lmm("y ~ x + (x | g)", data),
                jg.lmm("y ~ x + (1 | g) + (1 | h)", data),
                jg.glmm("c ~ x + (1 | g)", data),
                jg.glmm("c ~ x + (1 | g) + (1 | h)", data),
            ]
        found[kind] = [
            [f.criterion, *f.coef.tolist(), *f.theta.tolist()]
            + [float(np.abs(b).sum()) for b in f.estimates.b]
            for f in fits
        ]
        base = fits[0].engine.base
        shards = {{len(x.sharding.device_set) for x in jax.tree.leaves(base)}}
        found[kind + " devices"] = max(shards)
        cut = any(not x.is_fully_replicated for x in jax.tree.leaves(base))
        found[kind + " cut"] = cut
    print(json.dumps(found))
"""


def started(before, *arguments, devices=1):
    flag = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
    source = textwrap.dedent(SCRIPT).format(before=before)
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def check(process):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-2000:]
    found = json.loads(out.splitlines()[-1])
    assert found["all devices"] == 2
    assert found["one devices"] == 1
    assert found["all cut"]
    for one, both in zip(found["one"], found["all"], strict=True):
        np.testing.assert_allclose(both, one, rtol=1e-10, atol=1e-10)


def test_two_devices():
    check(started("pass", devices=2))


def test_no_such_device():
    with pytest.raises(jg.ModelError, match="devices="), jg.on_devices("tpu"):
        pass
