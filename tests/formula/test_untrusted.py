"""Formulas from elsewhere: what they may use, what they may not, and what it costs."""

import time

import numpy as np
import pandas as pd
import pytest
from doors import (
    design_from_formula,
    known_functions_only,
    parse,
    read_terms,
    recipe_from_dict,
)
from formula.frames import table

from jaxglmm import DataError, FormulaError

DATA = table().assign(day=pd.date_range("2021-01-01", periods=60), note=["%s{0}"] * 60)

KNOWN = [
    "log(z) + sqrt(z) + exp(-z) + I(z**2) + I(1/z)",
    "np.log(z) + np.where(x > 0, x, 0) + np.minimum(x, 0) + np.hypot(x, z)",
    "scale(x) + center(z) + standardize(w) + poly(z, 2) + bs(x, df=4)",
    "ns(x, df=3) + cr(z, df=3)",
    "bs(x, knots=[-1, 0, 1]) + C(a, Sum) + C(h, contr.helmert)",
    "C(b, Treatment('v')) + C(a, levels=['r', 'q', 'p'])",
    "C(a, contr.custom({'up': [-1, 0, 1], 'bend': [1, -2, 1]}))",
    "I(x > 0) + I((x > 0) & (z < 1.5)) + I(~t) + I(a == 'p')",
    "I(x - x.mean()) + I(x / x.std()) + x.clip(-1, 1)",
    "I(x - np.mean(x)) + I(x - min(x)) + abs(x) + round(z, 1)",
    "I(day.dt.day) + I(day.dt.month == 1)",
    "I(x * np.pi) + I(10**3 * x) + I(x // 1) + I(x % 2)",
    "lag(z, 0) + exp10(x) + factor(g)",
]

ATTACKS = [
    "I(x + 0*__import__('os').getpid())",
    "I(0*(run() or 0) + x)",
    "open('/etc/passwd')",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "getattr(x, 'mean')",
    "globals()",
    "I(x + 0*len(str(x)))",
    "x.to_csv('/tmp/jaxglmm-stolen')",
    "x.pipe(log)",
    "x.apply(log)",
    "x.map(log)",
    "x.__class__",
    "I(x.__class__.__base__)",
    "log(x).__class__",
    "I(().__class__)",
    "I(''.__class__)",
    "np.load('a.npy', allow_pickle=True)",
    "np.fromfile('/etc/passwd')",
    "np.savetxt('/tmp/jaxglmm-stolen', x)",
    "np.lib.npyio.np.os.getcwd()",
    "np.add.outer(x, x)",
    "np.zeros(10)",
    "np.vectorize(log)(x)",
    "np.log(x, z)",
    "np.log(x, out=z)",
    "x.clip(0, 1, inplace=True)",
    "contr.__dict__",
    "contr('a', (), {})",
    "contr.custom.__init__",
    "I((lambda: x)())",
    "I([v for v in x])",
    "I({v: 1 for v in x})",
    "I(sum(v for v in x))",
    "I((y := x))",
    "I(x if True else z)",
    "I(f'{x}')",
    "I('{0.__class__}'.format(x))",
    "I('%1000000000d' % 1)",
    "I('a' * 1000000000)",
    "I([0] * 1000000000)",
    "I(note + 'a' * 10**9)",
    "x[0]",
    "I(x[::-1])",
    "I(*x)",
    "C(a, **{'contrasts': 1})",
    "scale(x, _state={})",
    "I(10**10**10)",
    "I(x * 9**9**9**9)",
    "I(1 << 10**10)",
    "I(2**-1e300**2)",
    "poly(x, 1000000000)",
    "bs(x, df=1000000000)",
    "ns(x, df=10**9)",
    "I(await x)",
    "I(b'a')",
    "I(...)",
    "print(x)",
    "input()",
    "breakpoint()",
    "I(not x)",
]


@pytest.mark.filterwarnings("ignore::jaxglmm.RankDeficientWarning")
@pytest.mark.parametrize("right", KNOWN)
def test_known_functions_give_the_same(right):
    trusted = design_from_formula(f"y ~ {right} + (1 | g)", DATA)
    with known_functions_only():
        design = design_from_formula(f"y ~ {right} + (1 | g)", DATA)
    np.testing.assert_array_equal(design.X, trusted.X)
    assert design.x_names == trusted.x_names
    read = recipe_from_dict(trusted.recipe.to_dict())  # as from a file
    some = DATA.iloc[5:25]
    np.testing.assert_array_equal(
        read.new_rows(some).X, trusted.recipe.new_rows(some).X
    )


@pytest.mark.parametrize("right", ATTACKS)
def test_nothing_else_is_evaluated(right):
    ran = []
    context = {"run": lambda: ran.append(1)}
    before = DATA.copy()
    began = time.process_time()
    with known_functions_only():
        for formula in (
            f"y ~ {right} + (1 | g)",
            f"y ~ {right}*b + offset({right})",
            f"log({right}) ~ z",
            f"y ~ z + ({right} | g)",
        ):
            with pytest.raises((FormulaError, DataError)) as caught:
                design_from_formula(formula, DATA, context=context)
            assert "\x1b" not in str(caught.value)
    assert time.process_time() - began < 20  # and not for ever
    assert not ran
    pd.testing.assert_frame_equal(DATA, before)


def test_the_message_says_what_is_not_on_the_list():
    with known_functions_only():
        with pytest.raises(FormulaError) as caught:
            design_from_formula("y ~ I(x + 0*__import__('os').getpid())", DATA)
        for text in ("'__import__'", "not on the list", "trusted=True"):
            assert text in str(caught.value)
        with pytest.raises(FormulaError, match=r"'x\.to_csv'|'\.to_csv'"):
            design_from_formula("y ~ x.to_csv('a')", DATA)
        with pytest.raises(FormulaError, match="--trust-formula"):
            design_from_formula("y ~ I([v for v in x])", DATA)


def test_a_recipe_from_a_file_is_not_trusted():
    ran = []

    def double(v):
        ran.append(1)
        return 2 * v

    design = design_from_formula(
        "y ~ double(x) + scale(double(z)) + (double(w) || g)",
        DATA,
        context={"double": double},
    )
    saved = design.recipe.to_dict()
    ran.clear()
    with pytest.raises(FormulaError, match=r"'double' .*not saved.*functions="):
        recipe_from_dict(saved).new_rows(DATA)
    assert not ran
    given = recipe_from_dict(saved, context={"double": double})
    np.testing.assert_array_equal(given.new_rows(DATA).X, design.X)
    saved["fixed"] = saved["fixed"].replace("double(x)", "eval('0')")
    with pytest.raises(FormulaError):
        recipe_from_dict(saved, context={"double": double}).new_rows(DATA)


def test_what_was_learned_is_not_learned_again():
    saved = design_from_formula("y ~ scale(x)", DATA).recipe.to_dict()
    saved["state"] = {}
    with pytest.raises(FormulaError, match="not there"):
        recipe_from_dict(saved).new_rows(DATA.iloc[:5])


def test_python_code_may_use_python():
    offset = 3.0
    data = DATA.assign(**{"my x": DATA["x"], "day.of": DATA["z"]})
    right = "I([v for v in `my x`]) + I(max(z) + offset - day.of) + x.map(abs)"
    design = design_from_formula(f"y ~ {right}", data, context={"offset": offset})
    np.testing.assert_allclose(design.X[:, 1], DATA["x"])
    np.testing.assert_allclose(design.X[:, 2], DATA["z"].max() + 3 - DATA["z"])
    np.testing.assert_allclose(design.X[:, 3], DATA["x"].abs())


TOO_MUCH = {
    "y ~ (" + "+".join(f"v{i}" for i in range(20)) + ")**20": "1,048,575 terms",
    "y ~ " + "*".join(f"v{i}" for i in range(30)): "1,073,741,823 terms",
    "y ~ (a + b)**(c)": "whole number",
    "y ~ (a + b)**0": "whole number",
    "y ~ (a + b)**2**2": "one power",
    "y ~ (a + b)**99999999999999999999": "whole number",
    "y ~ " + "(" * 5000 + "x" + ")" * 5000: "deep inside one another",
    "y ~ I(" + "(" * 5000 + "x" + ")" * 5000 + ")": "deep inside one another",
    "y ~ I(" + "-" * 9000 + "x)": "too deep",
    "y ~ I(" + "+".join(["x"] * 9000) + ")": "too deep",
    "y ~ I(x" + ".a" * 9000 + ")": "Series",
    "y ~ x" + "+x" * 1_500_000: "characters",
    "y ~ " + "x:" * 9000 + "x + (": "not closed",
    "y ~ x\x00": "invisible character U\\+0000",
    "y ~ x\u200b": "invisible character U\\+200B",
    "y ~ I('\x00')": "cannot read",
    "y ~ x \u2212 z": "type '-'",
    "y \uff5e x": "type '~'",
    "y ~ \u201cx\u201d": "type",
    "y ~ \ud800": "U\\+D800",
    "y ~ x <- z": "comparisons",
    "y ~ (a == 'p')": r"I\(a == 'p'\)",
    "y ~ (1 + x > 0)*b": "I\\(",
    "y ~ z + x > 0": r"I\(x > 0\)",
    "y ~ !t": "I\\(",
    "y ~ x; z": "';' has no meaning",
    "y ~ 2x": "`2x`",
    "y ~ x z": "operator",
    "y ~ x$z": r"'\$' has no meaning",
    "y ~ x, z": "',' has no meaning",
    "y ~ ()": "missing",
    "y ~ (x": "not closed",
    "y ~ [x)": "unbalanced",
    "y ~ 'x": "a quote is not closed",
    "y ~ x + I('x": "a quote is not closed",
}


@pytest.mark.parametrize("formula", TOO_MUCH, ids=lambda f: ascii(f[:30]))
def test_formulas_that_are_refused(formula):
    began = time.process_time()
    with pytest.raises(FormulaError, match=TOO_MUCH[formula]) as caught:
        design_from_formula(formula, DATA)
    assert time.process_time() - began < 20
    assert len(str(caught.value)) < 2000
    assert "\x1b" not in str(caught.value)


def test_wide_tables_are_read():
    names = [f"v{i}" for i in range(3000)]
    assert len(read_terms(parse("y ~ " + " + ".join(names)).fixed)) == 3001
    assert len(read_terms("(" + " + ".join(f"`{n} `" for n in names) + ")")) == 3001
    assert len(read_terms("(" + " + ".join(names[:100]) + ")**2")) == 5051
