import pytest
import torch

from colocam.objective import ColocamObjective, FeatureSpace
from colocam.sampling import SequenceSampler
from pipelines.config.methods import METHODS
from pipelines.config.schema import load_config
from tcam.supervision.objective import TcamObjective
from tcam.types import PixelLabels
from tcam.video.clips import FrameSampler
from tests.helpers.clips import as_clips
from tests.pipelines.config.test_schema import CONFIGS, SHIPPED


def no_scores(frames, masks):
    raise AssertionError("this method masks no frame")


def test_tcam_trains_on_single_frames_with_its_three_terms():
    config = load_config(None, ["localizer.frame_limit=0.3", "localizer.crf.sigma_xy=50"])
    assert METHODS[config.method].clips(config.localizer) == FrameSampler(0.3)
    assert METHODS[config.method].objective(config.localizer, no_scores) == TcamObjective(
        seed_weight=1.0, crf_weight=1.2e-9, size_weight=0.01, sigma_rgb=15.0, sigma_xy=50.0
    )


def test_colocam_trains_on_sequences_with_the_joint_term():
    sequence = ("frames=3", "style=gaussian", "side=after", "spread=2.5")
    joint = ("weight=7", "adaptive=false", "sigma_rgb=9")
    overrides = [f"localizer.sequence.{text}" for text in sequence] + [f"localizer.joint.{text}" for text in joint]
    config = load_config(None, ["method=colocam", "localizer.frame_limit=0.3", *overrides])
    assert METHODS[config.method].clips(config.localizer) == SequenceSampler(
        3, style="gaussian", side="after", limit=0.3, spread=2.5
    )
    objective = METHODS[config.method].objective(config.localizer, no_scores)
    assert isinstance(objective, ColocamObjective)
    assert objective.base == METHODS["tcam"].objective(load_config(None).localizer, no_scores)
    assert (objective.joint_weight, objective.joint_sigma_rgb, objective.adaptive) == (7.0, 9.0, False)
    assert objective.features is None


def test_colocam_compares_features_and_draws_from_spread_frames_as_the_settings_say():
    joint = [f"localizer.joint.{text}" for text in ("space=features", "sigma_features=0.5", "components=3")]
    config = load_config(None, ["method=colocam", "localizer.frame_choices=5", "localizer.frame_limit=1", *joint])
    assert METHODS["colocam"].clips(config.localizer) == SequenceSampler(4, most=5)
    assert METHODS["colocam"].objective(config.localizer, no_scores).features == FeatureSpace(0.5, 3)
    without = load_config(None, ["method=colocam", "localizer.joint.weight=0", *joint])
    assert not without.localizer.joint.reads_features


TERMS = {
    "tcam": ["seeds", "crf", "size"],
    "colocam": ["seeds", "crf", "size", "joint"],
    "fcam": ["seeds", "crf", "size"],
    "pixelcam": ["seeds", "classes"],
    "negev": ["seeds", "negatives"],
    "maxmin": ["size", "foreground", "background"],
}


def score_means(frames, masks):
    """Classify by the mean of what is shown; the gradient reaches the masks."""
    return (frames * masks[:, None]).mean(dim=(2, 3))[:, :2]


def one_step(config):
    frames_per_clip = config.localizer.sequence.frames
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, frames_per_clip, 2, 32, 32, generator=generator).requires_grad_()
    frames = torch.randint(0, 256, (2, frames_per_clip, 3, 32, 32), generator=generator).to(torch.uint8)
    cams = torch.rand(2 * frames_per_clip, 32, 32, generator=generator)
    labels: PixelLabels = config.localizer.seeds.sampler()(cams, generator)
    affinity = torch.rand(2 * frames_per_clip, 5, 2, 2, generator=generator)
    maps = cams.view(2, frames_per_clip, 32, 32)
    output, batch = as_clips(logits, frames, cams=maps, affinity=affinity)
    losses = METHODS[config.method].objective(config.localizer, score_means)(output, batch, labels, barrier_t=1.0)
    losses.total.backward()
    return losses, logits.grad


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.localizer])
def test_every_method_has_its_own_terms_each_with_weight_and_count(method):
    losses, slope = one_step(load_config(None, [f"method={method}"]))
    assert list(losses.terms) == list(losses.weights) == list(losses.counts) == TERMS[method]
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_shipped_config_makes_one_step_of_the_loss(path):
    config = load_config(path)
    if config.has_localizer:
        losses, slope = one_step(config)
        assert slope.isfinite().all()
        first = "soft" if config.localizer.soft.weight else "seeds"
        assert set(losses.terms) >= {"foreground" if config.method == "maxmin" else first}
        assert ("joint" in losses.terms) == (config.method == "colocam")


def test_the_seed_sampler_is_as_the_settings_say():
    settings = load_config(
        None,
        [
            "localizer.seeds.foreground=3",
            "localizer.seeds.background=4",
            "localizer.seeds.foreground_fraction=0.5",
            "localizer.seeds.background_fraction=0.25",
            "localizer.seeds.kernel=5",
            "localizer.seeds.weighted=false",
            "localizer.seeds.region=largest",
            "localizer.seeds.box_mask=true",
            "localizer.seeds.erosion=7",
        ],
    ).localizer
    sampler = settings.seeds.sampler()
    assert (sampler.foreground, sampler.background, sampler.kernel) == (3, 4, 5)
    assert (sampler.foreground_fraction, sampler.background_fraction) == (0.5, 0.25)
    assert (sampler.weighted, sampler.region, sampler.box_mask, sampler.erosion) == (False, "largest", True, 7)


@pytest.mark.parametrize("region", ["otsu", "largest", "high_density", "frame"])
def test_every_region_a_config_allows_makes_a_sampler(region):
    settings = load_config(None, [f"localizer.seeds.region={region}"]).localizer
    assert settings.seeds.sampler().region == region
