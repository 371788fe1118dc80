import pytest

from tests.helpers.python_processes import python_process

CODE = """
import sys
import torch
disable = torch.compiler.disable
from tcam import timm_import
assert not {"torch._dynamo", "torch._dynamo.utils", "torch._inductor", "sympy"} & set(sys.modules)
assert torch.compiler.disable is disable

import torchvision.ops
from torchvision.ops.roi_align import is_compile_supported as later
boxes = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
assert torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), boxes, 1).item() == 1

counters = timm_import._CompilerLater("torch._dynamo.utils").counters
from torch._dynamo.utils import counters as own, is_compile_supported
assert counters is own
assert later("cpu") == is_compile_supported("cpu")

import timm
assert timm.create_model("mobilenetv2_035", features_only=True, feature_cls="fx").feature_info.channels()
print(timm.layers.disable_compiler(lambda text: len(text))("abc"))
"""


@pytest.mark.slow
def test_the_compiler_is_imported_at_its_first_use_and_timm_works():
    with python_process(CODE, fresh=True, stdout=-1, stderr=-1, text=True) as process:
        said, error = process.communicate(timeout=300)
    assert (process.returncode, said) == (0, "3\n"), error
