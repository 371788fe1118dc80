import pytest
import torch
from safetensors.torch import save_file

from tcam.errors import WeightsError
from tcam.model.weight_files import misfit, read_weights

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.zeros(2)}


def assert_same(found):
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())


def test_weights_are_read_by_layer_name_from_every_kind_of_file(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    torch.save(WEIGHTS, tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": {**WEIGHTS, "version": 1}}, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pt", "a.pth"):
        assert_same(read_weights(tmp_path / name))


def test_what_holds_no_weights_is_told_with_what_was_expected(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights at '.*none\.pt': expected a \.safetensors, \.pt or \.pth file"):
        read_weights(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(WeightsError, match=r"cannot read weights from '.*text\.pt': .*expected a state_dict"):
        read_weights(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"holds a list, expected tensors by layer name"):
        read_weights(tmp_path / "list.pt")


def test_what_does_not_fit_is_counted_and_the_first_layers_are_named():
    text = misfit("resnet18", "a.pt", ["a", "b", "c", "d"], ["e"], total=9)
    assert text.startswith(
        "weights 'a.pt' do not fit model 'resnet18': 4 of 9 layers are missing: a, b, c, ...; "
        "1 of 9 layers have another shape: e. "
    )
    assert "another shape" not in misfit("resnet18", "a.pt", ["a"], [], total=9)
