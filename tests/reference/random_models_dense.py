"""Log-likelihoods of random models where R has none, or stopped early: a dense search.

Laplace's approximation written out with dense matrices, observed information, from
several starts; nothing of jaxglmm is used. ``python random_models_dense.py
random_models.json [number ...]`` puts the best into the file: of the numbers
given and of inverse Gaussian models, which glmmTMB 1.1.5 lacks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parent))
from random_models import COUNT, G, H, N, Model, model

STARTS = (0.3, 0.6, 0.1, 1.0)  # standard deviations of the random effects
MOST_STEPS = 100
LEVEL = 1.0  # slopes up to which an end is next to a maximum


def log_density(one: Model, y, phi, eta):
    """Of the rows; phi is a logarithm."""
    kind, mu = one.kind, jnp.exp(eta)
    if (kind, one.link) == ("binomial", "cloglog"):
        m = one.columns["m"]
        choose = gammaln(m + 1) - gammaln(y + 1) - gammaln(m - y + 1)
        return choose + y * jnp.log(-jnp.expm1(-mu)) - (m - y) * mu
    if kind == "beta":
        mu, size = 1 / (1 + jnp.exp(-eta)), jnp.exp(phi)
        a, b = mu * size, (1 - mu) * size
        out = gammaln(size) - gammaln(a) - gammaln(b)
        return out + (a - 1) * jnp.log(y) + (b - 1) * jnp.log1p(-y)
    if kind == "invgauss":
        square = y / mu**2 - 2 / mu + 1 / y
        return 0.5 * (phi - jnp.log(2 * jnp.pi * y**3) - jnp.exp(phi) * square)
    if kind == "bernoulli":
        return y * eta - jnp.logaddexp(0.0, eta)
    if kind == "nbinom1":
        a = jnp.exp(phi)
        r = mu / a
        out = gammaln(y + r) - gammaln(r) - gammaln(y + 1)
        return out + y * (phi - jnp.log1p(a)) - r * jnp.log1p(a)
    raise SystemExit(f"no density of {kind} ({one.link})")


def negative(one: Model) -> tuple[Callable, int, np.ndarray]:
    """-Laplace's log-likelihood of (beta, theta, phi), len(beta), which are theta."""
    c = one.columns
    apart = "||" in one.random
    x = (c["x"] - (0.0 if apart else c["x"].mean())) / c["x"].std()
    X = [np.ones(N), x, c["z"]] if "x" in one.fixed else [np.ones(N), c["z"]]
    X, offset = np.column_stack(X), c.get("o", np.zeros(N))
    y = c["k"] if one.kind == "binomial" else c["y"]
    Z, ones = [np.eye(G)[c["g"]]], [np.arange(G)]
    free = [(ones[0], ones[0])]
    if "x |" in one.random:
        Z.append(Z[0] * x[:, None])
        free.append((G + ones[0], G + ones[0]))
        free += [] if apart else [(G + ones[0], ones[0])]
    if "| h)" in one.random:
        Z.append(np.eye(H)[c["h"]])
        last = sum(z.shape[1] for z in Z) - H + np.arange(H)
        free.append((last, last))
    Z, p, m = np.concatenate(Z, axis=1), X.shape[1], len(free)
    q = Z.shape[1]

    def value(psi):
        L = jnp.zeros((q, q))
        for (i, j), t in zip(free, psi[p : p + m], strict=True):
            L = L.at[i, j].set(t)
        ZL, base = Z @ L, offset + X @ psi[:p]
        first = jax.grad(lambda e: log_density(one, y, psi[-1], e).sum())

        def joint(u):
            eta = base + ZL @ u
            return log_density(one, y, psi[-1], eta).sum() - 0.5 * u @ u

        def precision(u):
            eta = base + ZL @ u
            w = -jax.jvp(first, (eta,), (jnp.ones(N),))[1]
            return (ZL.T * w) @ ZL + jnp.eye(q)

        def step(state):
            u, k, _ = state
            g = ZL.T @ first(base + ZL @ u) - u
            values, V = jnp.linalg.eigh(precision(u))
            d = V @ ((V.T @ g) / jnp.maximum(jnp.abs(values), 0.1))
            size = 0.5 ** jnp.arange(12.0)
            there = jnp.nan_to_num(jax.vmap(lambda t: joint(u + t * d))(size), nan=-1e300)
            up = there.max() > joint(u)
            new = u + jnp.where(up, size[jnp.argmax(there)], 0.0) * d
            return new, k + 1, jnp.where(up, g @ d, 0.0)

        def more(state):
            return (state[1] < MOST_STEPS) & (state[2] > 1e-14)

        u, _, _ = jax.lax.while_loop(more, step, (jnp.zeros(q), 0, jnp.array(1.0)))
        M = precision(u)
        out = 0.5 * jnp.linalg.slogdet(M)[1] - joint(u)
        return jnp.where(jnp.linalg.eigvalsh(M)[0] > 0, out, 1e10)

    return jax.jit(value), p, np.array([float((i == j).all()) for i, j in free])


def best(one: Model) -> float:
    """The highest log-likelihood of all starts that end at a maximum.

    Where log|M| runs off, next to a mode that vanishes, the approximation is as high as
    one likes and has none.
    """
    value, p, diagonal = negative(one)
    rng, lowest = np.random.default_rng(one.number), np.inf
    for sd in STARTS:
        beta = 0.1 * rng.normal(size=p)
        if one.link == "log":
            level = np.log(one.columns["y"].mean())
            beta[0] += level - np.mean(one.columns.get("o", 0.0))
        theta = np.where(diagonal == 1.0, sd, 0.1 * rng.normal(size=len(diagonal)))
        at = np.concatenate([beta, theta, [1.0]])

        def cost(psi):
            out = float(value(psi))
            return out if np.isfinite(out) else 1e10

        for method, options in (
            ("Nelder-Mead", {"maxfev": 600}),
            ("BFGS", {"gtol": 1e-7}),
            ("BFGS", {"gtol": 1e-7}),
        ):
            found = minimize(cost, at, method=method, options=options)
            at = found.x
        if np.abs(found.jac).max() < LEVEL:
            lowest = min(lowest, found.fun)
    return -lowest


def main(file: Path, numbers: list[int]) -> None:
    """Into the file of R's answers."""
    jax.config.update("jax_enable_x64", True)
    answers = json.loads(file.read_text())
    lacking = [i for i in range(COUNT) if str(i) not in answers]
    for i in numbers + [i for i in lacking if model(i).kind == "invgauss"]:
        found, r = best(model(i)), answers.get(str(i), {}).get("loglik", -np.inf)
        print(i, model(i).kind, found, r, flush=True)
        if found > r:
            answers[str(i)] = {"loglik": found, "software": "dense search"}
        ordered = dict(sorted(answers.items(), key=lambda item: int(item[0])))
        file.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(a) for a in sys.argv[2:]])
