"""The site: the Markdown pages of this folder, and a reference made of the installed package.

Nothing is fetched while it is built, and the site loads nothing from another host.
"""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpydoc.xref import DEFAULT_LINKS
from sphinx.util.inspect import stringify_signature

import morphogen

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

# Else autodoc reads the stubs of Cython modules instead of these, and stubs have no docstrings.
os.environ["SPHINX_AUTODOC_IGNORE_NATIVE_MODULE_TYPE_STUBS"] = "1"

project = "morphogen"
version = release = morphogen.__version__

extensions = [
    "myst_parser",  # the pages are Markdown
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_argparse_cli",
    "sphinx_copybutton",
]

# A name in a page or a docstring must exist. Annotations name other packages' classes, too, and
# mypy has checked them.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]
default_role = "any"
highlight_language = "none"  # of blocks that name none
myst_heading_anchors = 4

maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False  # autodoc lists them
# numpydoc's findings that are more than taste: no docstring or section, an unknown section or one
# in another order, a parameter or a value without type or description.
numpydoc_validation_checks = {
    *("GL03", "GL06", "GL07", "GL08", "SS03", "SS06", "RT01", "RT02", "RT03", "YD01"),
    *("PR01", "PR02", "PR03", "PR04", "PR07", "PR10"),
}
# The attributes of a data class are its parameters; tests/docs/test_docstrings.py looks at them.
numpydoc_validation_overrides = {"PR01": [r"Attributes\n *-"]}
numpydoc_validation_exclude = {
    r"\.KeyPacker$",  # a C class has no signature to compare with
    r"\.Wire\w+Error$",  # their base class describes the parameters
}
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
# Of the types in docstrings our own are links. Others stay words: their sites are not asked.
numpydoc_xref_aliases = {word: word for word in DEFAULT_LINKS} | {
    name: f"morphogen.{name}" for name in morphogen.__all__
}

copybutton_exclude = ".linenos, .gp, .go"  # no prompts, no outputs

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"morphogen {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b7568", "color-brand-content": "#0b7568"},
    "dark_css_variables": {"color-brand-primary": "#3cc9b7", "color-brand-content": "#3cc9b7"},
}
html_show_copyright = False

ROOT = Path(__file__).parent.parent
# Files of the repository outside docs/ that a page includes: where other pages link to them, the
# site links to that page.
INCLUDED = {
    "README.md": "docs/index.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "CHANGELOG.md": "docs/changelog.md",
    "asv_bench/README.md": "docs/asv-bench.md",
}
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def _relink(text: str, source: Path, page: Path) -> str:
    """Make links that work where a file lies in the repository work in the site.

    Parameters
    ----------
    text : str
        Markdown.
    source, page : pathlib.Path
        The file that it is of and the page that shows it, relative to the repository.
    """

    def replace(match: re.Match[str]) -> str:
        path = os.path.normpath(source.parent / match["path"])
        if (ROOT / path).is_dir():  # a forge lists it; there is no such page
            return match["text"]
        path = os.path.relpath(INCLUDED.get(path, path), page.parent)
        return f"[{match['text']}]({path}{match['anchor'] or ''})"

    return _LINK.sub(replace, text)


def _read_page(app: Sphinx, docname: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(docname)).relative_to(ROOT)
    content[0] = _relink(content[0], page, page)


def _read_included(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    source = Path(os.path.normpath(Path("docs", path)))
    content[0] = _relink(content[0], source, Path("docs", docname))


def _link_documents(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Make links of the documents that docstrings name by their path."""
    lines[:] = [re.sub(r"\bdocs/([\w-]+)\.md\b", r":doc:`\g<0> </\1>`", line) for line in lines]


def _sign_as_written(
    app: Sphinx, what: str, name: str, value: Any, options: Any, arguments: str | None, returns: Any
) -> tuple[str, None] | None:
    """Show annotations as the source has them; once evaluated, arrays fill a line each."""
    if not arguments or not callable(value):
        return None
    try:
        signature = inspect.signature(value)
    except ValueError:  # a class of Cython: the page says what it takes
        return None
    if what in ("class", "exception"):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    if what == "method" and not inspect.ismethod(value):
        _, *rest = signature.parameters.values()
        signature = signature.replace(parameters=rest)
    return stringify_signature(signature), None


def _link_short_name(
    app: Sphinx, env: BuildEnvironment, node: Element, content: TextElement
) -> Element | None:
    """Find the class that an annotation names without its module."""
    if node.get("refdomain") != "py" or node["reftype"] != "class":
        return None
    node["refspecific"] = True  # look in all modules
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "class", node["reftarget"], node, content
    )


def setup(app: Sphinx) -> None:
    """Register what is above."""
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
    app.connect("autodoc-process-docstring", _link_documents)
    app.connect("autodoc-process-signature", _sign_as_written)
    app.connect("missing-reference", _link_short_name)
