import pytest
import torch

from tcam.precision import at_least_float32


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_narrow_numbers_are_widened_and_others_stay(given, wanted):
    values = torch.tensor([0.5, -2.0], dtype=given)
    found = at_least_float32(values)
    assert found.dtype == wanted
    assert found.tolist() == [0.5, -2.0]


def test_gradients_pass():
    values = torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True)
    at_least_float32(values).sum().backward()
    assert values.grad.tolist() == [1.0]
