"""Fits of small data sets at their known optima, made by the dense twin."""

import numpy as np
import pytest
import twin

import jaxglmm as jg

SLEEP = "Reaction ~ Days + (Days | Subject)"
SLEEP_LAM = [[[0.966732791471446, 0.0], [0.0151690598803683, 0.230909598085307]]]
SLEEP_ML_LAM = [[[0.929225398, 0.0], [0.018165677, 0.222645421]]]


@pytest.fixture(scope="session")
def sleepstudy():
    return jg.datasets.load("sleepstudy")


@pytest.fixture(scope="session")
def sleep(sleepstudy):
    return twin.make(SLEEP, sleepstudy, SLEEP_LAM, df=[17.0, 17.0])


@pytest.fixture(scope="session")
def sleep_ml(sleepstudy):
    return twin.make(SLEEP, sleepstudy, SLEEP_ML_LAM, reml=False, df=[18.0, 18.0])


@pytest.fixture(scope="session")
def penicillin():
    return twin.make(
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        jg.datasets.load("Penicillin"),
        [1.53967752, 3.51241507],
        df=[5.486],
    )


@pytest.fixture(scope="session")
def machines():
    """Factor slopes by an unstructured 3 by 3 block, residual degrees of freedom."""
    lam = np.array([[4.2, 0, 0], [2.9, 5.4, 0], [-1.4, 2.0, 2.9]])
    data = jg.datasets.load("Machines")
    return twin.make("score ~ Machine + (Machine | Worker)", data, [lam])


@pytest.fixture(scope="session")
def singular():
    """A variance of zero: Dyestuff2."""
    return twin.make(
        "Yield ~ 1 + (1 | Batch)", jg.datasets.load("Dyestuff2"), [0.0], df=[29.0]
    )
