import pytest

from pipelines.config.fingerprint import settings_that_count
from pipelines.config.schema import ClassifierSettings


def settings(**changes):
    return ClassifierSettings.model_validate(changes).model_dump(mode="json")


def test_without_a_baseline_neither_its_name_nor_any_constants_count():
    plain = settings_that_count(settings())
    assert not {"baseline", "hide_and_seek", "cutmix", "adl"} & plain.keys()
    assert plain["lr"] == 1e-3
    assert settings_that_count(settings(adl={"levels": 2}, cutmix={"probability": 0.5})) == plain
    assert settings_that_count(settings(lr=0.5)) != plain


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("adl", {"adl": {"levels": 2}}, {"cutmix": {"probability": 0.5}}),
        ("cutmix", {"cutmix": {"probability": 0.5}}, {"adl": {"levels": 2}}),
        ("hide_and_seek", {"hide_and_seek": {"hide": 0.25}}, {"adl": {"levels": 2}}),
    ],
)
def test_the_constants_of_a_baseline_count_with_it_alone(name, own, other):
    known = settings_that_count(settings(baseline=name))
    assert known["baseline"] == name
    assert settings_that_count(settings(baseline=name, **other)) == known
    assert settings_that_count(settings(baseline=name, **own)) != known
