"""The site: `make docs` builds it from these pages and the docstrings. A warning ends the build there."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

import pontryagin

project = "pontryagin"
author = "the pontryagin developers"
version = release = pontryagin.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "public_names"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_site"]
html_theme = "furo"
html_math_renderer = "mathml"  # what browsers draw by themselves, without a network too
html_static_path = ["figures/narrow", "site.css"]  # the first: of a figure, the variant for phones
html_css_files = ["site.css"]
html_title = f"pontryagin {release}"
myst_heading_anchors = 4
myst_fence_as_directive = {"math"}  # ```math, as forges write it
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # those of torch are not ours
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

_HERE = {"../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changes.md"}
"""Pages of the repository that the site has under another name."""


def _links(app: Sphinx, page: str, source: list[str]) -> None:
    for there, here in _HERE.items():
        source[0] = source[0].replace(f"]({there}", f"]({here}")


def _pictures(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object) -> None:
    """Figures that have a variant for phones show it there."""
    def both(image: re.Match[str]) -> str:
        if not (Path(app.srcdir) / "figures" / "narrow" / image["name"]).exists():
            return image[0]
        narrow = context["pathto"](f"_static/{image['name']}", resource=True)
        return f'<picture><source media="(max-width: 40rem)" srcset="{narrow}">{image[0]}</picture>'

    if "body" in context:
        context["body"] = re.sub(r'<img [^>]*src="[^"]*_images/(?P<name>[\w-]+\.png)"[^>]*>', both,
                                 context["body"])


def _inline_math(page: HTML5Translator, node: nodes.math) -> None:
    page.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _displayed_math(page: HTML5Translator, node: nodes.math_block) -> None:
    page.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def _mathml(formula: str, display: str) -> str:
    found = convert(formula, display=display)
    if "\\" in found:
        raise ExtensionError(f"a command of this formula is unknown to latex2mathml: {formula}")
    return found


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_displayed_math, None))
    app.connect("source-read", _links)
    app.connect("html-page-context", _pictures)
