"""The bar in places where tqdm has something to say of its own."""

import sys
import types

from doors import bar
from tqdm import notebook


def test_a_notebook_without_widgets_hears_nothing(monkeypatch, recwarn):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    fake = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(notebook, "IProgress", None)
    for name in ("tqdm.auto", "tqdm.autonotebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with bar(3, False, "fit") as shown:
        shown.update(3)
    assert not recwarn.list
