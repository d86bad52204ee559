"""Densities in sixty decimal digits, by the textbook formulas: the truth of the tests.

Nothing here is clever, and nothing is shared with the package: gamma functions by
Stirling's series far out, the normal distribution by its power series or continued
fraction, derivatives by central differences whose error is below the fortieth digit.
"""

from decimal import Decimal as D
from decimal import getcontext
from fractions import Fraction
from functools import cache
from math import comb

getcontext().prec = 60
getcontext().Emin = -(10**17)
getcontext().Emax = 10**17
STEP = D("1e-11")


def atan(x):
    x = D(x)
    folds = 0
    while abs(x) > D("0.05"):
        x, folds = x / (1 + (1 + x * x).sqrt()), folds + 1
    total, power, k = D(0), x, 1
    while abs(power) > D("1e-70") * max(abs(x), D("1e-300")):
        total += power / k
        power, k = -power * x * x, k + 2
    return total * 2**folds


PI = 4 * atan(D(1))


@cache
def bernoulli(n):
    found = [Fraction(1)]
    for m in range(1, n + 1):
        found.append(-sum(comb(m + 1, k) * found[k] for k in range(m)) / (m + 1))
    return found[n]


@cache
def coefficients():
    out = []
    for k in range(1, 26):
        b = bernoulli(2 * k)
        out.append(D(b.numerator) / D(b.denominator) / (2 * k * (2 * k - 1)))
    return out


def lgamma(z):
    z, product = D(z), D(1)
    while z < 60:
        product, z = product * z, z + 1
    series = sum(c / z ** (2 * k + 1) for k, c in enumerate(coefficients()))
    return (z - D("0.5")) * z.ln() - z + (2 * PI).ln() / 2 + series - product.ln()


def mexpm1(x):
    """1 - exp(-x), x > 0."""
    if x > D("1e-3"):
        return 1 - (-x).exp()
    total, term, k = D(0), x, 1
    while abs(term) > D("1e-75") * x:
        total += term
        k += 1
        term = -term * x / k
    return total


def normal(x):
    """The normal distribution function."""
    density = (-x * x / 2).exp() / (2 * PI).sqrt()
    if x > 6:
        return 1 - normal(-x)
    if x < -6:
        value = -x
        for k in range(800, 0, -1):
            value = -x + k / value
        return density / value
    total, term, k = D(0), x, 1
    while abs(term) > D("1e-70"):
        total += term
        k += 2
        term = term * x * x / k
    return D("0.5") + density * total


def cauchy(x):
    """The Cauchy distribution function."""
    if x < 0:
        return atan(-1 / x) / PI
    return D("0.5") + atan(x) / PI


PROBABILITY = {  # link -> p and q without cancellation
    "logit": (lambda t: 1 / (1 + (-t).exp()), lambda t: 1 / (1 + t.exp())),
    "probit": (normal, lambda t: normal(-t)),
    "cloglog": (lambda t: mexpm1(t.exp()), lambda t: (-t.exp()).exp()),
    "loglog": (lambda t: (-(-t).exp()).exp(), lambda t: mexpm1((-t).exp())),
    "cauchit": (cauchy, lambda t: cauchy(-t)),
    "log": (lambda t: t.exp(), lambda t: mexpm1(-t)),
    "identity": (lambda t: t, lambda t: 1 - t),
}
MEAN = {
    "log": lambda t: t.exp(),
    "sqrt": lambda t: t * t,
    "identity": lambda t: t,
    "inverse": lambda t: 1 / t,
    "1/mu^2": lambda t: 1 / t.sqrt(),
    "logit": PROBABILITY["logit"][0],
}


def choose(m, y):
    return lgamma(m + 1) - lgamma(y + 1) - lgamma(m - y + 1)


def times_log(y, p):
    return y * p.ln() if y else D(0)


def binomial(y, eta, phi, m, link):
    p, q = (f(eta) for f in PROBABILITY[link])
    return choose(m, y) + times_log(y, p) + times_log(m - y, q)


def betabinomial(y, eta, phi, m, link):
    p, q = (f(eta) for f in PROBABILITY[link])
    size = phi.exp()
    a, b = p * size, q * size
    rising = lgamma(y + a) - lgamma(a) + lgamma(m - y + b) - lgamma(b)
    return choose(m, y) + rising - lgamma(m + size) + lgamma(size)


def poisson(y, eta, phi, m, link):
    mu = MEAN[link](eta)
    return times_log(y, mu) - mu - lgamma(y + 1)


def negative_binomial(y, mu, size):
    rising = lgamma(y + size) - lgamma(size) - lgamma(y + 1)
    return rising + size * (size / (size + mu)).ln() + times_log(y, mu / (size + mu))


def nbinom2(y, eta, phi, m, link):
    return negative_binomial(y, MEAN[link](eta), phi.exp())


def nbinom1(y, eta, phi, m, link):
    mu = MEAN[link](eta)
    return negative_binomial(y, mu, mu / phi.exp())


def gamma(y, eta, phi, m, link):
    mu, k = MEAN[link](eta), (-phi).exp()
    return k * (k * y / mu).ln() - y.ln() - k * y / mu - lgamma(k)


def inversegaussian(y, eta, phi, m, link):
    mu, dispersion = MEAN[link](eta), phi.exp()
    constant = -(2 * PI * dispersion * y**3).ln() / 2
    return constant - (y - mu) ** 2 / (2 * dispersion * mu**2 * y)


def beta(y, eta, phi, m, link):
    p, q = (f(eta) for f in PROBABILITY[link])
    size = phi.exp()
    a, b = p * size, q * size
    constant = lgamma(size) - lgamma(a) - lgamma(b)
    return constant + (a - 1) * y.ln() + (b - 1) * (1 - y).ln()


def gaussian(y, eta, phi, m, link):
    z = (y - MEAN[link](eta)) / phi.exp()
    return -(2 * PI).ln() / 2 - phi - z * z / 2


def student(df):
    def density(y, eta, phi, m, link):
        z, v = (y - MEAN[link](eta)) / phi.exp(), D(df)
        constant = lgamma((v + 1) / 2) - lgamma(v / 2) - (v * PI).ln() / 2
        return constant - phi - (v + 1) / 2 * (1 + z * z / v).ln()

    return density


def cumulative(theta):
    """Categories between thresholds."""

    def density(y, eta, phi, m, link):
        F, S = PROBABILITY[link]
        y = int(y)
        if y == 0:
            return F(theta[0] - eta).ln()
        b = theta[y - 1] - eta
        if y == len(theta):
            return S(b).ln()
        a = theta[y] - eta
        return (F(a) - F(b) if a + b < 0 else S(b) - S(a)).ln()

    return density


def derivatives(density, y, eta, phi, m, link):
    """(l, s, w, w1) as floats."""
    y, eta, phi, m = D(y), D(eta), D(phi), D(m)
    at = [density(y, eta + k * STEP, phi, m, link) for k in (-3, -2, -1, 0, 1, 2, 3)]
    first = (at[6] - 9 * at[5] + 45 * at[4] - 45 * at[2] + 9 * at[1] - at[0]) / 60
    second = (
        2 * (at[6] + at[0]) - 27 * (at[5] + at[1]) + 270 * (at[4] + at[2]) - 490 * at[3]
    ) / 180
    third = (8 * (at[1] - at[5]) + 13 * (at[4] - at[2]) + at[6] - at[0]) / -8
    return tuple(
        float(v) for v in (at[3], first / STEP, -second / STEP**2, -third / STEP**3)
    )


# Families with two dispersion parameters: closures over natural values


@cache
def tweedie_factor(y, dispersion, power):
    """log of the sum of the series, without 1 / y."""
    a = (2 - power) / (power - 1)
    log_z = a * y.ln() - a * (power - 1).ln() - (1 + a) * dispersion.ln()
    log_z -= (2 - power).ln()
    m = ((2 - power) * y.ln()).exp() / (dispersion * (2 - power))
    start = max(1, int(m))

    def term(j):
        return (j * log_z - lgamma(j + 1) - lgamma(j * a)).exp()

    total = D(0)
    for step in (1, -1):
        j = start if step == 1 else start - 1
        while j >= 1:
            value = term(D(j))
            total += value
            if value < total * D("1e-45"):
                break
            j += step
    return total.ln()


def tweedie(dispersion, power):
    dispersion, power = D(dispersion), D(power)

    def density(y, eta, phi, m, link):
        log_mu, q = MEAN[link](eta).ln(), 2 - power
        inside = -(q * log_mu).exp() / q
        if y == 0:
            return inside / dispersion
        inside -= y * ((1 - power) * log_mu).exp() / (power - 1)
        return inside / dispersion - y.ln() + tweedie_factor(y, dispersion, power)

    return density


def student_estimated(sigma, df):
    sigma, df = D(sigma), D(df)

    def density(y, eta, phi, m, link):
        z = (y - MEAN[link](eta)) / sigma
        constant = lgamma((df + 1) / 2) - lgamma(df / 2) - (df * PI).ln() / 2
        return constant - sigma.ln() - (df + 1) / 2 * (1 + z * z / df).ln()

    return density


def lognormal(sigma):
    sigma = D(sigma)

    def density(y, eta, phi, m, link):
        mu = MEAN[link](eta)
        v = (1 + (sigma / mu) ** 2).ln()
        z = y.ln() - mu.ln() + v / 2
        return -y.ln() - (2 * PI * v).ln() / 2 - z * z / (2 * v)

    return density


def skewnormal(sigma, alpha):
    sigma, alpha = D(sigma), D(alpha)
    delta = alpha / (1 + alpha * alpha).sqrt()
    omega = sigma / (1 - 2 * delta * delta / PI).sqrt()

    def density(y, eta, phi, m, link):
        z = (y - MEAN[link](eta)) / omega + delta * (2 / PI).sqrt()
        tail = normal(alpha * z).ln()
        return D(2).ln() - omega.ln() - (2 * PI).ln() / 2 - z * z / 2 + tail

    return density


def genpois(dispersion):
    root = D(dispersion).sqrt()

    def density(y, eta, phi, m, link):
        a, b = MEAN[link](eta) / root, 1 - 1 / root
        A = a + b * y
        return a.ln() + (y - 1) * A.ln() - A - lgamma(y + 1)

    return density


@cache
def log_factorial(y):
    return lgamma(D(y) + 1)


def compois(dispersion):
    """Lambda by Newton's method, the sums term by term."""
    nu = 1 / D(dispersion)

    def sums(t):
        # terms of 1e-70 of the largest are left out
        total, first, second, largest, y = D(0), D(0), D(0), D(0), 0
        while True:
            term = (t * y - nu * log_factorial(y)).exp()
            total, first, second = total + term, first + y * term, second + y * y * term
            largest = max(largest, term)
            if term < largest * D("1e-70"):
                return total, first / total, second / total
            y += 1

    def density(y, eta, phi, m, link):
        mu = MEAN[link](eta)
        t = (nu * (mu + D("0.1")).ln()) if mu > 1 else mu.ln()
        for _ in range(60):
            total, mean, square = sums(t)
            step = (mu.ln() - mean.ln()) * mean / (square - mean * mean)
            t += max(min(step, D(1)), D(-1))
            if abs(step) < D("1e-35"):
                break
        total = sums(t)[0]
        return t * y - nu * log_factorial(int(y)) - total.ln()

    return density
