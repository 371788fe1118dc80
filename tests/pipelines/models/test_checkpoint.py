import resource

import pytest
import safetensors.torch
import torch
from torch import nn

from pipelines.models.checkpoint import load_state, load_weights, save_state, save_weights
from tcam.errors import DataError, WeightsError
from tests.helpers.tiny import files_of


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(network(), path, {"epoch": 3, "classes": ["on", "007"]})
    return path


def test_weights_and_facts_read_back(tmp_path):
    torch.manual_seed(0)
    saved, loaded = network().to(memory_format=torch.channels_last), network()
    path = tmp_path / "deep" / "weights.safetensors"
    save_weights(saved, path, {"epoch": 3, "classes": ["on", "007"], "score": None})
    assert load_weights(loaded, path) == {"epoch": 3, "classes": ["on", "007"], "score": None}
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_the_same_weights_and_facts_are_the_same_bytes_and_any_reader_opens_them(tmp_path):
    model, path = network(), tmp_path / "weights.safetensors"
    facts = {f"fact{i}": {"b": i, "a": [i]} for i in range(12)}
    written = set()
    for order in (facts, dict(reversed(facts.items()))):
        for _ in range(3):  # the library draws a new order at every call
            save_weights(model, path, order)
            written.add(path.read_bytes())
    assert len(written) == 1
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path):
    weights, state = tmp_path / "weights.safetensors", tmp_path / "resume.pt"
    save_weights(network(), weights, {})
    save_state(state, {"fingerprint": "f1"})
    before = files_of(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # the system then refuses what goes beyond, midway
    try:
        with pytest.raises(DataError, match=r"cannot write .*weights\.safetensors: File too large; free space"):
            save_weights(network(width=300), weights, {})
        with pytest.raises(DataError, match=r"cannot write .*resume\.pt: File too large; free space"):
            save_state(state, {"tensor": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_of(tmp_path) == before


def test_missing_and_damaged_weights_are_said_plainly(tmp_path, weights):
    with pytest.raises(WeightsError, match=r"cannot read the weights .*absent.*; train the run again or resume it"):
        load_weights(network(), tmp_path / "absent.safetensors")
    for content in (b"", b"hello", weights.read_bytes()[:-4]):
        weights.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot read the weights") as caught:
            load_weights(network(), weights)
        assert caught.value.exit_code == 5


def test_weights_of_another_network_are_refused_with_the_layer(weights):
    with pytest.raises(WeightsError, match=r"was made for another network: .*size mismatch for 0\.weight") as caught:
        load_weights(network(width=4), weights)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"made for another network: .*Missing key.*2\.weight"):
        load_weights(network().append(nn.Linear(1, 1)), weights)
    with pytest.raises(WeightsError, match=r"made for another network: .*Unexpected key.*1\.weight"):
        load_weights(network()[:1], weights)


def test_a_file_that_others_wrote_is_refused_not_a_crash(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(network().state_dict(), path, {"format": "pt"})
    with pytest.raises(WeightsError, match="cannot read the weights"):
        load_weights(network(), path)


def test_a_state_comes_back_for_its_own_inputs_only(tmp_path):
    path = tmp_path / "resume.pt"
    assert load_state(path, "f1") is None
    save_state(path, {"fingerprint": "f1", "tensor": torch.arange(3), "best": {"x": 1.5}})
    state = load_state(path, "f1")
    assert state is not None
    assert torch.equal(state["tensor"], torch.arange(3))
    assert state["best"] == {"x": 1.5}
    assert load_state(path, "f2") is None


def test_a_damaged_state_says_what_to_do(tmp_path):
    path = tmp_path / "resume.pt"
    save_state(path, {"fingerprint": "f1", "tensor": torch.zeros(1000)})
    for content in (b"", b"hello", path.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"cannot resume from .*resume\.pt: .*; delete it to start the stage again"
        ):
            load_state(path, "f1")


def test_a_state_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "resume.pt"
    torch.save({"fingerprint": "f1", "code": print}, path)
    with pytest.raises(WeightsError, match="cannot resume from"):
        load_state(path, "f1")
