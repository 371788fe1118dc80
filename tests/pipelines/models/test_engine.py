import pytest

from pipelines.models.engine import Model
from tcam.errors import ConfigError


def test_a_class_is_asked_for_by_its_name_or_not_at_all():
    model = Model(None, ("cat", "dog"), (8, 8), threshold=0.5, presence=None, memory_limit_mb=1.0, about={})
    assert [model.label_of(name) for name in (None, "cat", "dog")] == [None, 0, 1]
    with pytest.raises(ConfigError, match="--class cow: the run knows cat, dog"):
        model.label_of("cow")


def test_of_many_classes_an_error_names_some():
    names = tuple(f"c{i}" for i in range(300))
    model = Model(None, names, (8, 8), 0.5, None, 100.0, {})
    with pytest.raises(ConfigError, match=r"--class cow: the run knows c0, c1, .*, c19 and 280 more$"):
        model.label_of("cow")
