"""The templates of ``pages/`` filled: pages with style and script inside, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources

import jinja2
from markupsafe import Markup


def render_page(
    template: str, values: Mapping[str, object], *, styles: Sequence[str], script: str, more_policy: str
) -> tuple[str, str]:
    """Fill a template; every value is escaped.

    Args:
        template: file in ``pages/``; so are ``styles`` and ``script``, which come to stand inside the page.
        values: what the template names.
        styles: style sheets, one after the other.
        script: the page's only script.
        more_policy: directives beside those for its own style and script and the pictures inside it.

    Returns:
        The page, and its content security policy, which also stands in it.
    """
    pages = resources.files("pipelines").joinpath("pages")
    style = "".join(pages.joinpath(name).read_text(encoding="utf-8") for name in styles)
    code = pages.joinpath(script).read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(code)}; img-src data:; "
        f"{more_policy}; base-uri 'none'; form-action 'none'"
    )
    own = {"policy": policy, "style": Markup(style), "script": Markup(code)}  # noqa: S704 (files of this package)
    return _templates().get_template(template).render({**values, **own}), policy


@functools.cache
def _templates() -> jinja2.Environment:
    """Return the templates, each compiled once: half a second."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
