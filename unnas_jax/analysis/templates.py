"""The templates of pages, which lie beside this file."""

import base64

import jinja2

from unnas_jax.analysis import markup

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("unnas_jax.analysis", ""),
    autoescape=True,
    undefined=jinja2.ChainableUndefined,
    finalize=lambda value: markup.readable(value) if type(value) is str else value,
    keep_trailing_newline=True,
)
"""Values are escaped; bytes in them that are not UTF-8, such as a path's, are made readable."""

TEMPLATES.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
