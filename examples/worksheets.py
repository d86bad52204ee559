# %% [markdown]
# # Worksheet functions: the documented examples, and three ways into a spreadsheet
#
# Lists of rows in, a list of rows out; whatever is wrong comes back as a text. The
# eight calls are those of the reference documentation, arguments by position as their
# formulas have them: in three of them a scalar stands where `x_random` would, and is
# understood.

# %%
import http.client
import json
import math

from jaxglmm.spreadsheet import clmm, glmm_binomial, glmm_poisson, lmm, mmrm
from jaxglmm.spreadsheet.server import Server


def column(*values):
    return [[v] for v in values]


def show(title, table):
    print(title)
    for row in table:
        cells = (f"{c:.4g}" if isinstance(c, float) else str(c) for c in row)
        print("   ", *(c.ljust(15) for c in cells if c != "None"))


# %% Counts
groups = column(1, 1, 1, 2, 2, 2)
x = column(1, 2, 3, 1, 2, 3)
half = column(1, 1.5, 2, 1, 1.5, 2)
poisson = [
    glmm_poisson(column(2, 3, 5, 1, 2, 4), x, groups),
    glmm_poisson(column(5, 7, 10, 3, 5, 8), x, groups, x),
    glmm_poisson(column(10, 12, 15, 8, 10, 13), half, groups, 0.1),
    glmm_poisson(column(3, 6, 9, 2, 4, 6), x, groups, False),
]

# %% Zeros and ones
groups3 = column(1, 1, 2, 2, 3, 3)
dose = column(1, 2, 1.5, 2.5, 3, 1.2)
slopes = column(1, 1, 1.5, 1.5, 2, 2)
one, two = column(0, 1, 0, 1, 1, 0), column(0, 1, 1, 0, 1, 1)
binomial = [
    glmm_binomial(one, dose, groups3),
    glmm_binomial(two, dose, groups3, slopes),
    glmm_binomial(one, dose, groups3, False),
    glmm_binomial(two, dose, groups3, slopes, True, 0.1),
]

# %% Every one gives a table of finite numbers
for name, tables in (("GLMM_POISSON", poisson), ("GLMM_BINOMIAL", binomial)):
    for k, table in enumerate(tables, 1):
        show(f"{name}, example {k}", table)
        assert isinstance(table, list)
        assert all(len(row) == 9 for row in table)
        assert all(math.isfinite(c) for row in table for c in row if type(c) is float)
assert [len(t) for t in poisson + binomial] == [8, 9, 8, 7, 8, 9, 7, 9]

# %% [markdown]
# Without priors the variance of the groups would be zero in all of them, and the slope
# of the first binomial one infinite: that is what maximum likelihood says of six rows.

# %%
flat = glmm_poisson(column(2, 3, 5, 1, 2, 4), x, groups, method="laplace")
assert flat[4][3] == 0.0
assert poisson[0][4][3] > 0.3

# %% [markdown]
# Ordered categories have thresholds in the place of an intercept; repeated measures
# have visits in the place of random effects. `GLMM_ZINB` (counts with added zeros)
# takes the arguments of `GLMM_POISSON`.

# %%
grades = column("low", "mid", "high", "low", "low", "high", "mid", "mid")
doses, wards = column(1, 2, 3, 1, 2, 3, 3, 1), column(1, 1, 1, 1, 2, 2, 2, 2)
ordered = clmm(grades, doses, wards, levels=["low", "mid", "high"])
show("CLMM", ordered)
assert [row[1] for row in ordered[2:4]] == ["low|mid", "mid|high"]

scores = column(5.1, 6.0, 4.2, 5.5, 6.3, 6.6, 4.9, 4.4)
second = [["week 4"], *column(0, 1, 0, 1, 0, 1, 0, 1)]
patients, weeks = column(1, 1, 2, 2, 3, 3, 4, 4), column(*[2, 4] * 4)
repeated = mmrm(scores, second, patients, weeks)
show("MMRM", repeated)
assert [row[1] for row in repeated[4:6]] == ["2", "4"]

# %% Errors are texts in a cell
text = glmm_poisson(column(2, 3, 5, 1, 2, 4), x, column(1, 2))
print(text)
assert text == "Invalid input: y and groups must have the same number of rows."

# %% [markdown]
# A spreadsheet asks a server on the same machine (`jaxglmm serve`); this is what the
# LibreOffice add-in and the clients in `examples/spreadsheets` send.

# %%
server = Server(port=0)
server.start()
connection = http.client.HTTPConnection(*server.server_address[:2])
y = column(2.1, 3.0, 5.2, 1.4, 2.2, 4.1)
body = json.dumps({"args": [y, x, column("a", "a", "a", "b", "b", "b")]})
connection.request("POST", "/LMM", body)
answer = json.load(connection.getresponse())["result"]
connection.close()
server.shutdown()
server.server_close()
show("LMM, over HTTP", answer)
assert answer == lmm(y, x, column("a", "a", "a", "b", "b", "b"))
