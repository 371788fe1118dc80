import json
import platform

from pipelines.run import environment
from pipelines.run.environment import describe_environment, package_versions, processor_name


def test_the_environment_names_versions_and_is_json():
    environment = json.loads(json.dumps(describe_environment()))
    assert {"tcam", "torch", "timm", "av"} <= set(environment["versions"])
    assert environment["threads"] >= 1


def test_a_package_that_is_not_there_is_said_to_be_missing(monkeypatch):
    def missing(name):
        raise environment.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.importlib.metadata, "version", missing)
    assert set(package_versions().values()) == {"not installed"}


def test_the_processor_is_named_where_the_system_does_not_tell_its_model(monkeypatch):
    assert processor_name()
    monkeypatch.setattr(environment.Path, "read_text", lambda *_, **__: "processor: 0\n")
    assert processor_name() == (platform.processor() or platform.machine())
