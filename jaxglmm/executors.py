"""Executors of other engines, for ``executor=``: Dask, Ray, Spark and MPI.

Any ``concurrent.futures.Executor`` will do (``ProcessPoolExecutor``, loky's); these are
for engines that have another way to run a function. They are thin: the engine
schedules, moves what is to be fitted, and runs again what a dying worker leaves.

>>> import jaxglmm as jg
>>> from dask.distributed import Client  # doctest: +SKIP
>>> jg.fit_many(formula, table, by="id",
...             executor=jg.executors.dask(Client()))  # doctest: +SKIP
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

from jaxglmm._errors import ArgumentError
from jaxglmm.runtime import engines

__all__ = ["dask", "mpi", "ray", "spark"]


def dask(client: Any = None, **options: Any) -> Executor:
    """Run on the workers of a Dask cluster.

    Args:
        client: a ``distributed.Client``; None for the one that is current.
        options: of its ``submit``, such as ``workers`` or ``resources``.

    Returns:
        An executor, for ``executor=``; the client stays the caller's.

    Raises:
        ArgumentError: ``distributed`` is not installed, there is no client, or
            ``client`` is none.

    Example:
        >>> from dask.distributed import Client  # doctest: +SKIP
        >>> pool = jg.executors.dask(Client(n_workers=2))  # doctest: +SKIP
    """
    distributed = engines.needed("distributed", "dask")
    if client is None:
        try:
            client = distributed.get_client()
        except ValueError:
            raise ArgumentError(
                "there is no Dask client yet: make one, Client(n_workers=4) or "
                "Client(address), and pass it to jg.executors.dask(client)"
            ) from None
    if not callable(getattr(client, "get_executor", None)):
        raise ArgumentError(
            f"jg.executors.dask takes a distributed.Client, not {_shown(client)}"
        )
    return engines.DaskExecutor(client, options)


def ray(**options: Any) -> Executor:
    """Run as tasks of Ray, with the data in its object store.

    Args:
        options: of the tasks, such as ``num_cpus``, ``num_gpus`` or ``resources``.

    Returns:
        An executor, for ``executor=``. Ray is started by the first task, with what the
        environment says, unless ``ray.init`` was called before.

    Raises:
        ArgumentError: ``ray`` is not installed.

    Example:
        >>> pool = jg.executors.ray(num_cpus=2)  # doctest: +SKIP
    """
    return engines.RayExecutor(engines.needed("ray", "ray"), options)


def spark(session: Any = None, width: int | None = None) -> Executor:
    """Run as jobs of Spark, one Arrow task each.

    Args:
        session: a ``SparkSession``, classic or Connect; None for the active one.
        width: jobs under way at a time; None for twice the session's default
            parallelism.

    Returns:
        An executor, for ``executor=``; the session stays the caller's.

    Raises:
        ArgumentError: ``pyspark`` is not installed, there is no session, or ``session``
            is none.

    Example:
        >>> pool = jg.executors.spark(session)  # doctest: +SKIP
    """
    sql = engines.needed("pyspark.sql", "spark")
    session = sql.SparkSession.getActiveSession() if session is None else session
    if session is None:
        raise ArgumentError(
            "there is no Spark session yet: make one, SparkSession.builder."
            "getOrCreate(), and pass it to jg.executors.spark(session)"
        )
    if not callable(getattr(session, "range", None)):
        raise ArgumentError(
            f"jg.executors.spark takes a SparkSession, not {_shown(session)}"
        )
    return engines.SparkExecutor(session, width)


def mpi(**options: Any) -> Executor:
    """Run in the other processes of an MPI job.

    Args:
        options: of ``mpi4py.futures.MPIPoolExecutor``, such as ``max_workers``.

    Returns:
        That executor. Start the program by ``mpiexec -n 8 python -m mpi4py.futures
        program.py``, and call ``shutdown`` (or use ``with``) at its end.

    Raises:
        ArgumentError: ``mpi4py``, or the MPI library that it looks for, is not there.

    Example:
        >>> with jg.executors.mpi() as pool:  # doctest: +SKIP
        ...     jg.fit_many(formula, table, by="id", executor=pool)
    """
    futures = engines.needed("mpi4py.futures", "mpi")
    try:
        engines.needed("mpi4py.MPI", "mpi")
    except RuntimeError as error:  # no library
        raise ArgumentError(
            f"jg.executors.mpi needs an MPI library, Open MPI or MPICH: {error}"
        ) from error
    return futures.MPIPoolExecutor(**options)


def _shown(given: Any) -> str:
    return f"{type(given).__module__}.{type(given).__name__}"
