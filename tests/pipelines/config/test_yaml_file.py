import pytest
from pydantic import ValidationError

from pipelines.config.schema import RunConfig
from pipelines.config.yaml_file import apply_override, explain, read_yaml
from tcam.errors import ConfigError


def test_a_file_holds_nested_settings_and_an_empty_one_none(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 3\nmodel: {backbone: resnet18}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"seed": 3, "model": {"backbone": "resnet18"}}
    (tmp_path / "b.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "b.yaml") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "x.yaml is not YAML: "),
        (b"- 1\n- 2\n", "must hold settings as 'key: value' lines, found a list"),
        (b"\xff\xfe\x00", "cannot read the config .*x.yaml"),
        (None, "cannot read the config .*x.yaml"),
    ],
)
def test_a_file_that_holds_no_settings_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)


def test_an_override_is_read_as_yaml_and_makes_the_groups_it_names():
    values = {"model": {"backbone": "resnet50"}}
    for override in ("model.backbone=resnet18", "a.b.c=[1, 2]", "seed=7", "name=a=b", "odd={"):
        apply_override(values, override)
    assert values == {
        "model": {"backbone": "resnet18"},
        "a": {"b": {"c": [1, 2]}},
        "seed": 7,
        "name": "a=b",
        "odd": "{",
    }


@pytest.mark.parametrize("override", ["seed", "=3", ""])
def test_an_override_of_another_form_is_refused(override):
    with pytest.raises(ConfigError, match=r"--set wants key=value such as classifier\.epochs=10"):
        apply_override({}, override)


def test_a_single_value_is_no_group():
    with pytest.raises(ConfigError, match=r"--set seed\.x=1: 'seed' is one value, not a group of settings"):
        apply_override({"seed": 3}, "seed.x=1")


def told(values):
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(values)
    return explain(caught.value, RunConfig, None)


def test_an_unknown_setting_lists_the_known_ones_and_the_nearest():
    text = told({"classifier": {"epoch": 3}})
    assert text.startswith("unknown setting 'classifier.epoch': did you mean 'epochs'? known here: ")
    assert ", batch, " in text
    assert "did you mean" not in told({"zzz": 3})


def test_a_value_out_of_range_is_told_with_what_was_found():
    text = told({"classifier": {"epochs": 0}})
    assert text == "setting 'classifier.epochs': input should be greater than 0, found 0"
