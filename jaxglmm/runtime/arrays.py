"""One source for two machines: ``jnp`` and ``lax`` of compiled programs, or of NumPy.

A program for a shape not seen before takes seconds to compile and a millisecond to run.
Where a fit is small it is over sooner if the same functions run on the host, operation
by operation, in NumPy. So the modules between Design and Fitted take ``jnp`` and
``lax`` from here: inside ``on_host`` they are NumPy and Python's loops, everywhere else
JAX's own. ``runtime.stored`` decides which it is.

What differs from NumPy is said here once: a matrix that is not positive definite gives
NaN and no exception, loops are Python's, and an array is changed by ``.at`` as a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxglmm.runtime import duals, host
from jaxglmm.runtime.duals import Dual, dual, level_of, primal
from jaxglmm.runtime.host import is_host

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jax import lax, nn
    from jax.scipy import special


class _Either:
    """A module of JAX whose functions are others on the host."""

    def __init__(self, device: Any, numpy: Any, own: dict[str, Any]):
        self._device, self._numpy, self._own = device, numpy, own

    def __getattr__(self, name: str) -> Any:
        device = getattr(self._device, name)
        own = self._own
        here = own[name] if name in own else getattr(self._numpy, name, None)
        if isinstance(here, _Either):
            found: Any = here
        elif isinstance(device, type) or not callable(device):
            found = device
        else:
            found = _either(device, here)
        self.__dict__[name] = found
        return found


def _either(device: Callable[..., Any], here: Callable[..., Any] | None) -> Any:
    rule = RULES.get(device.__name__)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not is_host():
            return device(*args, **kwargs)
        if rule is not None and rule.concerns(args):
            return rule(*args, **kwargs)
        if here is None:
            raise NotImplementedError(f"{device.__name__} has no equal in NumPy")
        return here(*args, **kwargs)

    return call


# Rules of differentiation -------------------------------------------------------------


COMPLEX = np.dtype(complex)


class Rule:
    """What a function makes of a ``Dual`` or of numbers with a complex step."""

    def __init__(self, function: Callable[..., Any], complex_too: bool = False):
        self.function, self.complex_too = function, complex_too

    def concerns(self, args: tuple[Any, ...]) -> bool:
        """Whether NumPy's function would not do."""
        for x in args:  # asked before every operation: the usual types first
            kind = type(x)
            if kind is np.ndarray or kind is np.float64:
                if self.complex_too and x.dtype == COMPLEX:
                    return True
            elif kind is list or kind is tuple:
                for y in x:
                    if type(y) is Dual:
                        return True
            elif kind is Dual or (self.complex_too and kind is np.complex128):
                return True
        return False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def elementwise(function: Callable[..., Any], slope: Callable[[Any], Any]) -> Any:
    """The rule of a function of one variable, from its derivative.

    A complex step is carried by the derivative as well: NumPy's functions of complex
    numbers are not exact where those of real numbers are (``log1p``).
    """

    def call(x: Any) -> Any:
        if isinstance(x, Dual):
            return dual(function(x.value), slope(x.value) * x.tangent, x.level)
        if np.iscomplexobj(x):
            return function(x.real) + 1j * (x.imag * slope(x.real))
        return function(x)

    return call


def by_order(plain: Callable[..., Any], device: Callable[..., Any]) -> Any:
    """A function f(x, k), the k-th derivative of one, that knows its own derivative.

    plain: the formulas; device: the same with JAX's rule of differentiation.
    """

    def call(x: Any, order: int) -> Any:
        if not is_host():
            return device(x, order)
        rule = elementwise(lambda z: call(z, order), lambda z: call(z, order + 1))
        special = isinstance(x, Dual) or np.iscomplexobj(x)
        return rule(x) if special else plain(x, order)

    return call


def _linear(name: str) -> Callable[..., Any]:
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        own = getattr(jnp, name)
        return Dual(
            own(x.value, *args, **kwargs), own(x.tangent, *args, **kwargs), x.level
        )

    return call


def _joining(name: str) -> Callable[..., Any]:
    def call(xs: Any, *args: Any, **kwargs: Any) -> Any:
        own, level = getattr(jnp, name), level_of(*xs)
        pairs = [duals.split(x, level) for x in xs]
        tangents = [np.zeros(np.shape(primal(v))) if t is None else t for v, t in pairs]
        values = [v for v, _ in pairs]
        return Dual(own(values, *args, **kwargs), own(tangents, *args, **kwargs), level)

    return call


def _of_value(name: str) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: getattr(jnp, name)(primal(x), *args, **kwargs)


def _choice(condition: Any, a: Any, b: Any) -> Any:
    a, da, b, db, level = duals.parts(a, b)
    if not level:
        return jnp.where(primal(condition), a, b)
    condition = primal(condition)
    moved = jnp.where(condition, 0.0 if da is None else da, 0.0 if db is None else db)
    return dual(jnp.where(condition, a, b), moved, level)


def _abs(x: Any) -> Any:
    return jnp.where(primal(x) < 0, -x, x)


def _maximum(a: Any, b: Any) -> Any:
    return jnp.where(primal(a) >= primal(b), a, b)


def _minimum(a: Any, b: Any) -> Any:
    return jnp.where(primal(a) <= primal(b), a, b)


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    if low is not None:
        x = jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


def _logaddexp(a: Any, b: Any) -> Any:
    return jnp.maximum(a, b) + nn.softplus(-jnp.abs(a - b))


def _arctan2(a: Any, b: Any) -> Any:
    x, dx, y, dy, level = duals.parts(a, b)
    if not level:  # a complex step
        x, dx, y, dy = np.real(a), np.imag(a), np.real(b), np.imag(b)
    size = x * x + y * y
    left = None if dx is None else dx * y / size
    moved = duals.spread(left, None if dy is None else -x * dy / size)
    if level:
        return dual(jnp.arctan2(x, y), moved, level)
    return np.arctan2(x, y) + 1j * moved


def _broadcast_arrays(*xs: Any) -> list[Any]:
    shape = np.broadcast_shapes(*(np.shape(primal(x)) for x in xs))
    return [jnp.broadcast_to(x, shape) for x in xs]


def _rules() -> dict[str, Rule]:
    own: dict[str, Callable[..., Any]] = {
        "abs": _abs,
        "maximum": _maximum,
        "minimum": _minimum,
        "clip": _clip,
        "logaddexp": _logaddexp,
        "arctan2": _arctan2,
        "broadcast_arrays": _broadcast_arrays,
    }
    slopes: dict[str, Callable[[Any], Any]] = {
        "exp": lambda x: jnp.exp(x),
        "expm1": lambda x: jnp.exp(x),
        "log": lambda x: 1.0 / x,
        "log1p": lambda x: 1.0 / (1.0 + x),
        "sqrt": lambda x: 0.5 / jnp.sqrt(x),
        "reciprocal": lambda x: -1.0 / (x * x),
        "tan": lambda x: 1.0 + jnp.tan(x) ** 2,
        "tanh": lambda x: 1.0 - jnp.tanh(x) ** 2,
        "sigmoid": lambda x: nn.sigmoid(x) * nn.sigmoid(-x),
        "softplus": lambda x: nn.sigmoid(x),
        "ndtr": lambda x: 0.3989422804014327 * jnp.exp(-0.5 * x * x),
        "erfc": lambda x: -1.1283791670955126 * jnp.exp(-x * x),
    }
    homes = {"sigmoid": "nn", "softplus": "nn", "erfc": "lax", "ndtr": "special"}
    for name, slope in slopes.items():
        home = homes.get(name, "jnp")
        own[name] = elementwise(
            lambda x, name=name, home=home: getattr(globals()[home], name)(x), slope
        )
    found = {name: Rule(function, True) for name, function in own.items()}
    found["where"] = Rule(_choice)
    for name in (
        "sum",
        "mean",
        "broadcast_to",
        "ravel",
        "swapaxes",
        "moveaxis",
        "transpose",
        "reshape",
    ):
        found[name] = Rule(_linear(name))
    for name in ("stack", "concatenate"):
        found[name] = Rule(_joining(name))
    for name in (
        "zeros_like",
        "ones_like",
        "full_like",
        "isfinite",
        "isinf",
        "isnan",
        "shape",
        "ndim",
    ):
        found[name] = Rule(_of_value(name))
    found["asarray"] = Rule(lambda x, *_: x)
    return found


RULES = _rules()

# Special functions --------------------------------------------------------------------


# Linear algebra -----------------------------------------------------------------------


def solve_triangular(
    L: Any, B: Any, lower: bool = False, trans: int = 0, **_: Any
) -> Any:
    """``jax.scipy.linalg.solve_triangular`` of one matrix or of a stack of them."""
    if not is_host():
        return jax.scipy.linalg.solve_triangular(L, B, lower=lower, trans=trans)
    if not np.isfinite(np.sum(L)) or not np.isfinite(np.sum(B)):
        return np.full(np.shape(B), np.nan)
    if np.ndim(L) == 2:
        return host.one_triangle(np.asarray(L), np.asarray(B), lower, trans)
    A = np.swapaxes(L, -1, -2) if trans else L
    return np.linalg.solve(np.tril(A) if lower != bool(trans) else np.triu(A), B)


def cho_solve(factor: tuple[Any, bool], B: Any) -> Any:
    """``jax.scipy.linalg.cho_solve``, lower."""
    if not is_host():
        return jax.scipy.linalg.cho_solve(factor, B)
    L = factor[0]
    return solve_triangular(L, solve_triangular(L, B, lower=True), lower=True, trans=1)


def block_diag(*blocks: Any) -> Any:
    """``jax.scipy.linalg.block_diag``."""
    if not is_host():
        return jax.scipy.linalg.block_diag(*blocks)
    from scipy.linalg import block_diag as together

    return together(*blocks)


_LINALG = _Either(
    jax.numpy.linalg,
    np.linalg,
    {
        "cholesky": host.cholesky,
        "eigh": host.eigh,
        "solve": host.or_nan(np.linalg.solve),
        "inv": host.or_nan(np.linalg.inv),
    },
)


# Indexed updates ----------------------------------------------------------------------


def put(x: Any, index: Any, values: Any) -> Any:
    """A copy of x with other values at the index."""
    if not is_host():
        return x.at[index].set(values)
    out = np.array(x, np.result_type(x, values))
    out[index] = values
    return out


def added(x: Any, index: Any, values: Any, mode: str | None = None) -> Any:
    """A copy of x with values added at the index, as often as it stands there."""
    if not is_host():
        return x.at[index].add(values, mode=mode)
    out = np.array(x, np.result_type(x, values))
    np.add.at(out, index, values)
    return out


def segment_sum(data: Any, ids: Any, n: int, indices_are_sorted: bool = False) -> Any:
    """``jax.ops.segment_sum``: sums of the rows of each number."""
    if not is_host():
        return jax.ops.segment_sum(data, ids, n, indices_are_sorted=indices_are_sorted)
    data, ids = np.asarray(data), np.asarray(ids)
    inside = (ids >= 0) & (ids < n)
    if not inside.all():
        data, ids = data[inside], ids[inside]
    if data.ndim == 1 and not np.iscomplexobj(data):
        return np.bincount(ids, data, n)
    if indices_are_sorted and len(ids) and (np.bincount(ids, minlength=n) > 0).all():
        return np.add.reduceat(data, np.searchsorted(ids, np.arange(n)), axis=0)
    out = np.zeros((n, *data.shape[1:]), data.dtype)
    np.add.at(out, ids, data)
    return out


# Loops --------------------------------------------------------------------------------


def empty_like(function: Any, *args: Any) -> Any:
    """Zeros of the shapes of a result, to start a loop with; None on the host."""
    if is_host():
        return None
    shape = jax.eval_shape(function, *args)
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shape)


def chosen(one: Any, a: Any, b: Any) -> Any:
    """The leaves of a where ``one`` is true, else those of b."""
    if is_host():
        return a if one else b
    return jax.tree.map(lambda x, y: jax.numpy.where(one, x, y), a, b)


# Derivatives --------------------------------------------------------------------------

STEP = 1e-40  # of the complex step: its square is nothing beside one


def jvp_rows(function: Any, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """``jax.jvp``, of elementwise functions on the host; it may be nested."""
    if not is_host():
        return jax.jvp(function, primals, tangents)
    return duals.jvp(function, primals, tangents, jax.tree)


def detached(x: Any) -> Any:
    """x as a constant: no derivative passes through it."""
    return primal(x) if is_host() else jax.lax.stop_gradient(x)


def jvp(function: Any, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """``jax.jvp``; on the host by a complex step, exact to rounding.

    f(x + ih v) = f(x) + ih f'(x) v + O(h^2) for what is made of analytic functions
    (Squire and Trapp 1998, SIAM Review 40, 110).
    """
    if not is_host():
        return jax.jvp(function, primals, tangents)
    moved = jax.tree.map(lambda x, v: x + (1j * STEP) * v, primals, tangents)
    found = function(*moved)
    return (
        jax.tree.map(np.real, found),
        jax.tree.map(lambda x: np.imag(x) / STEP, found),
    )


def grad(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``jax.grad`` of a function of few numbers (r,)."""

    def call(x: Any) -> Any:
        if not is_host():
            return jax.grad(function)(x)
        return np.array([jvp_rows(function, (x,), (e,))[1] for e in np.eye(len(x))])

    return call


def hessian(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``jax.hessian`` of a function of few numbers (r,)."""

    def call(x: Any) -> Any:
        if not is_host():
            return jax.hessian(function)(x)
        eye = np.eye(len(x))

        def second(a: Any, b: Any) -> Any:
            def slope(z: Any) -> Any:
                return jvp_rows(function, (z,), (a,))[1]

            return jvp_rows(slope, (x,), (b,))[1]

        return np.array([[second(a, b) for b in eye] for a in eye])

    return call


def grad_by_level(function: Callable[[Any], Any], M: Any) -> Any:
    """The gradient of the sum of f, of which each is of its own matrix M[:, :, ...]."""
    if not is_host():
        return jax.grad(lambda m: jax.numpy.sum(function(m)))(M)
    out = np.empty(M.shape, M.dtype)
    for index in np.ndindex(M.shape[:2]):
        unit = np.zeros(M.shape)
        unit[index] = 1.0
        out[index] = jvp_rows(function, (M,), (unit,))[1]
    return out


def linearize(function: Any, *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``jax.linearize``; on the host each direction is a ``jvp``."""
    if not is_host():
        return jax.linearize(function, *primals)
    value = function(*primals)
    return value, lambda *tangents: jvp(function, primals, tangents)[1]


if not TYPE_CHECKING:
    jnp = _Either(
        jax.numpy,
        np,
        {
            "linalg": _LINALG,
        },
    )
    nn = _Either(
        jax.nn,
        None,
        {
            "sigmoid": host.sigmoid,
            "softplus": host.softplus,
            "logsumexp": host.scipy_special("logsumexp"),
        },
    )
    special = _Either(
        jax.scipy.special,
        None,
        {"ndtr": host.scipy_special("ndtr"), "ndtri": host.scipy_special("ndtri")},
    )
    lax = _Either(
        jax.lax,
        None,
        {
            "erfc": host.scipy_special("erfc"),
            "dynamic_slice_in_dim": host.dynamic_slice,
            "while_loop": host.while_loop,
            "fori_loop": host.fori_loop,
            "cond": host.cond,
            "scan": host.scan,
            "map": host.map_,
            "stop_gradient": lambda x: x,
            "optimization_barrier": lambda x: x,
            "linalg": _Either(jax.lax.linalg, None, {"cholesky": host.cholesky}),
        },
    )
