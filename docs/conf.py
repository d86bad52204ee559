"""The site: ``python -m sphinx -W -n -b html docs docs/_build/html`` (extra ``docs``).

Every page with code is executed when the site is built; a cell that raises stops it.
"""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import jaxglmm  # noqa: E402  what is documented is what is installed

# cells run in processes of their own, which inherit these
os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(DOCS / "_ext"), os.environ.get("PYTHONPATH", "")]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "jaxglmm"
author = "The jaxglmm developers"
copyright = author
version = release = jaxglmm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "speed_tables",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "**/.ipynb_checkpoints"]
root_doc = "index"

# pages that run
nb_execution_mode = os.environ.get("JAXGLMM_DOCS_EXECUTION", "force")
nb_execution_timeout = 300  # seconds a cell
nb_execution_raise_on_error = True
nb_execution_excludepatterns = []
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

# reference pages
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "groupwise"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"
# base classes and types of other packages have no page here
nitpick_ignore_regex = [(r"py:.*", r".*")]

html_theme = "pydata_sphinx_theme"
html_title = "jaxglmm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "jaxglmm"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {
    page: []
    for page in (
        "index",
        "gallery",
        "formulas",
        "speed",
        "limitations",
        "how_it_works",
        "contributing",
        "changes",
    )
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
