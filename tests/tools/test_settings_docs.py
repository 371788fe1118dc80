import re

from pipelines.config.schema import load_config
from tools.settings_docs import TARGET, render


def test_the_page_is_current():
    assert TARGET.read_text() == render(), "docs/settings.md is not current: run python tools/settings_docs.py"


def test_every_default_of_the_page_can_be_set():
    settings = render().partition("## Defaults of methods")[0]
    pairs = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", settings, re.MULTILINE)
    assert len(pairs) > 80
    assert load_config(None, [f"{key}={value}" for key, value in pairs]) == load_config(None)


def test_every_setting_says_what_it_is():
    assert re.findall(r"^\| `([\w.]+)` \| `.*` \| +\|$", render(), re.MULTILINE) == []
