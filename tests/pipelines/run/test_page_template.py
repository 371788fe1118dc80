import base64
import hashlib
import re

import jinja2
import pytest

from pipelines.run.page_template import render_page

VALUES = {"title": "<b>mine</b>"}


@pytest.fixture
def pages(monkeypatch):
    """Templates of these tests in place of those of the package."""
    from pipelines.run import page_template

    text = "<style>{{ style }}</style><script>{{ script }}</script>{{ policy }}|{{ title }}"
    loader = jinja2.DictLoader({"page.html": text, "broken.html": "{{ nothing }}"})
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    monkeypatch.setattr(page_template, "_templates", lambda: made)


def render(template):
    return render_page(template, VALUES, styles=["page.css"], script="page.js", more_policy="connect-src 'self'")


def test_values_are_escaped_and_style_and_script_stand_inside(pages):
    page, _ = render("page.html")
    assert page.endswith("|&lt;b&gt;mine&lt;/b&gt;")
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]
    assert "{" in style
    assert "&#" not in style


def test_the_policy_allows_just_the_style_and_the_script_of_the_page(pages):
    page, policy = render("page.html")
    style, script = re.search(r"<style>(.*)</style><script>(.*)</script>", page, re.DOTALL).groups()
    for directive, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "; connect-src 'self'; " in policy


def test_a_name_that_nobody_gave_is_an_error(pages):
    with pytest.raises(jinja2.UndefinedError):
        render("broken.html")
