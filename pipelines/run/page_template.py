"""Fill the templates of ``pages/``: style and script are part of the page, and a content policy allows nothing else."""

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
        template: a file in ``pages/``, like ``styles`` and ``script``.
        values: the variables of the template.
        styles: style sheets, copied into the page in this order.
        script: the page's only script, copied into the page.
        more_policy: further directives; style, script and pictures inside the page are always allowed.

    Returns:
        The page, and its content security policy, which is also part of the page.
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
