"""One fit shared among devices: two forced ones, and those of two processes."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from doors import shares

import jaxglmm as jg

LONGEST = 400  # seconds, after which processes that wait for each other are ended

SCRIPT = """
    import json
    import sys
    {before}
    import jax
    import numpy as np
    import pandas as pd
    import jaxglmm as jg
    from jaxglmm.integrate import pieces

    rng = np.random.default_rng(1)
    n, J = 1600, 160
    share = rng.exponential(size=J) + 0.1
    g = rng.choice(J, n, p=share / share.sum())
    even, h = np.repeat(np.arange(J), 10), rng.integers(0, 20, n)
    few, many = rng.integers(0, 7, n), rng.integers(0, 400, n)
    x = rng.normal(size=n)
    b = rng.normal(size=J)
    eta = 0.3 * x + b[g] + 0.5 * rng.normal(size=20)[h] + rng.normal(size=7)[few] / 2
    y = eta + rng.normal(size=n)
    c = (rng.random(n) < 1 / (1 + np.exp(-eta))) * 1.0
    k = rng.poisson(np.exp(eta / 2)) * 1.0
    data = pd.DataFrame(dict(x=x, g=g, e=even, h=h, f=few, many=many, y=y, c=c, k=k))
    own = jax.local_devices()[:1]
    poisson = dict(family="poisson")
    models = dict(
        linear=(jg.lmm, "y ~ x + (x | g)", {{}}),
        linear_crossed=(jg.lmm, "y ~ x + (1 | g) + (1 | h)", {{}}),
        one_factor=(jg.glmm, "c ~ x + (1 | g)", {{}}),
        crossed=(jg.glmm, "k ~ x + (1 | g) + (1 | h)", poisson),
        even=(jg.glmm, "c ~ x + (1 | e)", {{}}),
        in_pieces=(jg.glmm, "k ~ x + (x | g)", poisson),
        sparse=(jg.glmm, "k ~ x + (x | g) + (1 | many) + (1 | f)", poisson),
        nodes=(jg.glmm, "c ~ x + (1 | g)", dict(method=jg.AGQ(5))),
        dispersion=(jg.glmm, "k ~ x + (1 | g)", dict(family=jg.NegativeBinomial())),
        link=(jg.glmm, "c ~ x + (1 | h)", dict(family=jg.Binomial("probit"))),
    )

    def said(fit):
        effects = [float(np.abs(b).sum()) for b in fit.estimates.b]
        return [fit.criterion, *fit.coef.tolist(), *fit.theta.tolist(), *effects]

    def covariance(fit):
        return fit.vcov.to_numpy().ravel().tolist()

    found = {{}}
    for name in {names}:
        fit, formula, settings = models[name]
        pieces.LEAST, pieces.A_LEVEL = (64, 0) if name == "in_pieces" else (65_536, 2)
        pieces.LONG = pieces.LEAST
        alone = fit(formula, data, **settings)
        with jg.on_devices("all"):
            shared = fit(formula, data, **settings)
            base = shared.engine.base
            leaves = jax.tree.leaves(base)
            rows = getattr(base, "rows", None)
            among = max(len(x.sharding.device_set) for x in leaves)
            cut = any(not x.is_fully_replicated for x in leaves)
            numbers = [*said(shared), *shared.se.tolist()]
        # outside each process is on its own, and may ask what others do not
        later = covariance(shared if {asks} else alone)
        found[name] = dict(
            one=[*said(alone), *alone.se.tolist(), *covariance(alone)],
            all=[*numbers, *later],
            rows=type(rows).__name__,
            listed=getattr(rows, "entry", None) is not None,
            among=among,
            cut=cut,
        )
    print(json.dumps(found), flush=True)
"""

TOGETHER = """
    import jax
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    import importlib
    importlib.import_module("SHARES").LEAST = 100
""".replace("SHARES", shares.__name__)


def run(before, names, *each, devices=1, asks="True"):
    """What processes print, one for each list of arguments; none outlives the call."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
    lines = textwrap.dedent(SCRIPT).replace("{before}", textwrap.dedent(before))
    source = lines.format(asks=asks, names=names)
    end = time.monotonic() + LONGEST
    started = [
        subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for arguments in each
    ]
    try:
        said = [p.communicate(timeout=max(end - time.monotonic(), 1)) for p in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, err) in zip(started, said, strict=True):
        assert process.returncode == 0, err[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def check(found):
    for name, model in found.items():
        assert model["among"] == 2, name
        assert model["cut"], name
        np.testing.assert_allclose(
            model["all"], model["one"], rtol=1e-10, atol=1e-10, err_msg=name
        )
    if "sparse" in found:
        assert found["sparse"]["listed"]
        assert not found.get("crossed", {}).get("listed")
    return {name: model["rows"] for name, model in found.items()}


BOTH = ("linear", "linear_crossed", "one_factor", "crossed")
MORE = ("even", "in_pieces", "sparse", "nodes", "dispersion", "link")


@pytest.mark.slow
@pytest.mark.parametrize("names", [BOTH, MORE])
def test_two_devices(names):
    kinds = check(run("pass", names, (), devices=2)[0])
    for name in {"one_factor", "in_pieces", "nodes"} & set(names):
        assert kinds[name] == "CutOneFactor"
    for name in {"crossed", "sparse"} & set(names):
        assert kinds[name] == "CutArrow"


@pytest.mark.slow
def test_two_processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    asks = "jax.process_index() == 0"
    for found in run(TOGETHER, BOTH, (address, "0"), (address, "1"), asks=asks):
        check(found)


def test_no_such_device():
    with pytest.raises(jg.ModelError, match="devices="), jg.on_devices("tpu"):
        pass
