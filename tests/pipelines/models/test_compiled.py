"""Compiling takes half a minute of a slow processor: few tests, small networks."""

import pickle
import shutil
from itertools import repeat

import numpy as np
import pytest
import torch

from pipelines.models.compiled import compile_localizer
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, build_network
from pipelines.streaming.network_threads import network_threads
from tests.helpers.tiny import CPU, SIDE, tiny_config


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.slow
@pytest.mark.parametrize(("threads", "together"), [("each", 2), ("all", 1)])
def test_a_network_is_compiled_once_whichever_thread_calls(threads, together, two_threads):
    config = tiny_config("model.levels_used=2", "model.decoder=pixels")  # fewer layers to compile
    network = build_network(config.model, 2, decoder=True, seed=0).eval()
    plain = PackedLocalizer.pack(NetworkLocalizer(network, "decoder", CPU)).unpack()
    frames = np.random.default_rng(0).integers(0, 255, (3, 3, SIDE, SIDE), np.uint8)
    compiled = compile_localizer(plain, (SIDE, SIDE), batch=3, threads=threads)
    assert (compiled.threads, torch.get_num_threads()) == (threads, 2)
    expected = plain.find(frames, None)
    with torch._dynamo.config.patch(error_on_recompile=True):
        here = compiled.find(frames, None)
        np.testing.assert_allclose(here.maps, expected.maps, atol=1e-5)
        np.testing.assert_array_equal(here.labels, expected.labels)
        with network_threads(compiled.threads, 4) as (pool, count):
            assert count == together
            for found in pool.map(compiled.find, [frames] * 5, repeat(1)):
                np.testing.assert_array_equal(found.maps, here.maps)
        np.testing.assert_array_equal(compiled.find(frames[:2], None).maps, here.maps[:2])
        pixel_by_pixel = np.ascontiguousarray(frames.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(compiled.find(pixel_by_pixel, None).maps, here.maps)
    copied = pickle.loads(pickle.dumps(compiled.pack())).unpack()
    assert (copied.threads, copied.batch) == (threads, 3)
    np.testing.assert_array_equal(copied.find(frames, None).maps, here.maps)
