"""Configuration of Sphinx: ``sphinx-build -W --keep-going -n docs build/site`` makes the site of these pages.

Building needs no network, nor does the site: the theme brings its scripts, and fonts are the reader's.
"""

import importlib
import typing
from enum import Enum
from typing import Any

typing.GENERATING_DOCUMENTATION = "vbpi_mix"  # type: ignore[attr-defined]
# jaxtyping then leaves its own name out of types of arrays; it asks when it is imported first.

from docutils.nodes import Element
from pydantic import BaseModel
from sphinx.application import Sphinx

import vbpi_mix

project = "vbpi_mix"
author = "the vbpi_mix developers"
copyright = author
version = release = vbpi_mix.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # Names in single backquotes become links where the reference has them, and are code where it has not.
    (r"py:obj", r".*"),
    # Annotations name what exists, but types of other packages and of unlisted modules, too.
    (r"py:(class|data)", r".*"),
    (r"py:exc", r"(?!vbpi_mix\.).*"),
]
default_role = "py:obj"
highlight_language = "none"

myst_heading_anchors = 3

autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "all"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"vbpi_mix {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False

_USUAL = 500
"""Priority at which Sphinx' own extensions listen to events."""

_plain: dict[str, list[str]] = {}


def _hide_fields(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, None] | None:
    """Show settings and results without a signature: their fields follow one by one."""
    return ("", None) if isinstance(thing, type) and issubclass(thing, BaseModel) else None


def _skip_numbers(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples that say nothing but their number."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def _drop_types(app: Sphinx, domain: str, kind: str, content: Element) -> None:
    """Do not list the arguments of a class again, whose attributes have been listed with their types."""
    signature = content.parent[0]
    if kind == "class":
        app.env.current_document.autodoc_annotations.pop(
            f"{signature['module']}.{signature['fullname']}", None
        )


def _keep(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep what a docstring of an attribute says before napoleon takes a colon in it for that of a type."""
    if what in ("attribute", "data"):
        _plain[name] = list(lines)


def _restore(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon has made of an attribute's docstring; add the default of a setting."""
    if what in ("attribute", "data"):
        lines[:] = _plain.pop(name) + _default(name)


def _default(name: str) -> list[str]:
    """Lines that give the default of a setting, where it has a plain one."""
    owner_name, _, field_name = name.rpartition(".")
    module_name, _, class_name = owner_name.rpartition(".")
    owner = getattr(importlib.import_module(module_name), class_name, None) if class_name else None
    if not (isinstance(owner, type) and issubclass(owner, BaseModel) and module_name.endswith(".config")):
        return []
    field = owner.model_fields.get(field_name)
    default = None if field is None else field.default
    if default == "" or not isinstance(default, str | int | float | Enum):  # as explained there
        return []
    return [f"Default: ``{default.value if isinstance(default, Enum) else default}``.", ""]


def setup(app: Sphinx) -> None:
    """Register what autodoc is told beyond its settings."""
    app.connect("autodoc-process-signature", _hide_fields)
    app.connect("autodoc-skip-member", _skip_numbers)
    app.connect("object-description-transform", _drop_types, priority=_USUAL - 1)
    app.connect("autodoc-process-docstring", _keep, priority=_USUAL - 1)
    app.connect("autodoc-process-docstring", _restore, priority=_USUAL + 1)
