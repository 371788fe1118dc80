from pathlib import Path

import pytest
import yaml

from pipelines.config.schema import RunConfig, load_config, save_config
from tcam.errors import ConfigError
from tcam.model.cam.methods import CAM_METHODS
from tcam.model.heads.pooling import POOLINGS

CONFIGS = Path(__file__).parents[3] / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


@pytest.fixture
def config_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_no_file_and_no_override_give_the_published_settings():
    config = load_config(None)
    assert config == RunConfig()
    assert (config.method, config.model.backbone, config.input.resize, config.input.crop) == (
        "tcam",
        "resnet50",
        256,
        224,
    )
    assert (config.localizer.lr, config.classifier.lr) == (1e-2, 1e-3)


def test_overrides_beat_the_file_and_the_file_beats_the_defaults(config_file):
    path = config_file("seed: 3\nclassifier: {epochs: 7, batch: 5}\n")
    config = load_config(path, ["classifier.epochs=9", "classifier.epochs=11", "localizer.seeds.kernel=5"])
    assert (config.seed, config.classifier.epochs, config.classifier.batch) == (3, 11, 5)
    assert config.localizer.seeds.kernel == 5
    assert config.localizer.batch == RunConfig().localizer.batch


def test_values_of_overrides_are_read_as_yaml():
    config = load_config(
        None,
        [
            "model.output_stride=null",
            "model.decoder_channels=[8,8]",
            "classifier.balance_classes=true",
            "classifier.lr=1e-4",
            "model.backbone_options={pad_type: same}",
        ],
    )
    assert config.model.output_stride is None
    assert config.model.decoder_channels == (8, 8)
    assert config.classifier.balance_classes is True
    assert config.classifier.lr == 1e-4  # YAML 1.1 takes 1e-4 for a string
    assert config.model.backbone_options == {"pad_type": "same"}


def test_an_empty_file_is_the_defaults(config_file):
    assert load_config(config_file("# nothing\n")) == RunConfig()


def test_saved_settings_read_back_the_same(tmp_path):
    config = load_config(None, ["model.allow_missing=[layer4, fc]", "seed=5", "localizer.crf.weight=2.5e-9"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_colocam_has_its_own_published_defaults():
    config = load_config(None, ["method=colocam"])
    localizer, base = config.localizer, RunConfig().localizer
    assert (localizer.epochs, localizer.lr_step, localizer.lr, localizer.batch) == (10, 5, 1e-2, 32)
    assert (localizer.seeds.foreground, localizer.seeds.background) == (1000, 1000)
    assert (localizer.seeds.foreground_fraction, localizer.seeds.background_fraction) == (0.7, 0.1)
    assert (localizer.seeds.region, localizer.seeds.box_mask) == ("largest", True)
    assert localizer.temporal.neighbours == 0
    assert (localizer.sequence.frames, localizer.sequence.style, localizer.sequence.side) == (4, "adjacent", "before")
    assert (localizer.joint.weight, localizer.joint.adaptive, localizer.joint.sigma_rgb) == (4.0, True, 15.0)
    assert (localizer.crf, localizer.size) == (base.crf, base.size)
    others = {"method", "localizer"}
    assert config.model_dump(exclude=others) == RunConfig().model_dump(exclude=others)
    assert (base.sequence.frames, base.joint.weight) == (1, 0.0)


def test_file_and_overrides_beat_the_defaults_of_the_method(config_file):
    path = config_file("method: colocam\nlocalizer:\n  epochs: 7\n  seeds: {foreground: 20}\n")
    localizer = load_config(path, ["localizer.sequence.frames=2", "localizer.seeds.box_mask=false"]).localizer
    assert (localizer.epochs, localizer.seeds.foreground, localizer.seeds.background) == (7, 20, 1000)
    assert (localizer.sequence.frames, localizer.seeds.box_mask, localizer.lr_step) == (2, False, 5)
    assert load_config(path, ["method=tcam"]).localizer.seeds.background == 1  # nothing of colocam is left


@pytest.mark.parametrize("overrides", [(), ("localizer.epochs=3", "localizer.joint.adaptive=false")])
def test_saved_settings_of_colocam_hold_its_defaults_and_read_back_the_same(tmp_path, overrides):
    config = load_config(None, ["method=colocam", *overrides])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["localizer"]["seeds"]["foreground"] == 1000
    assert saved["localizer"]["sequence"] == {"frames": 4, "style": "adjacent", "side": "before", "spread": 1.0}


def test_fcam_draws_alike_from_an_eroded_region_one_frame_at_a_time():
    localizer, base = load_config(None, ["method=fcam"]).localizer, RunConfig().localizer
    assert (localizer.seeds.foreground, localizer.seeds.background, localizer.seeds.kernel) == (1, 1, 3)
    assert (localizer.seeds.foreground_fraction, localizer.seeds.background_fraction) == (1.0, 0.1)
    assert (localizer.seeds.weighted, localizer.seeds.region, localizer.seeds.erosion) == (False, "otsu", 11)
    assert (localizer.temporal.neighbours, localizer.size.weight, localizer.lr) == (0, 0.1, 1e-2)
    assert localizer.crf == base.crf
    negev = load_config(None, ["method=negev"]).localizer
    assert (negev.crf.weight, negev.size.weight, negev.negatives.weight) == (0.0, 0.0, 1.0)  # two terms, as published
    assert (negev.seeds, negev.temporal) == (localizer.seeds, localizer.temporal)


def test_pixelcam_classifies_pixels_of_the_trainable_encoder():
    config = load_config(None, ["method=pixelcam"])
    seeds = config.localizer.seeds
    assert (config.model.decoder, config.localizer.lr) == ("pixels", 1e-3)
    assert (seeds.foreground, seeds.background, seeds.kernel, seeds.region) == (5, 5, 1, "frame")
    assert (seeds.foreground_fraction, seeds.background_fraction, seeds.weighted) == (1.0, 0.2, True)
    assert (seeds.weight, config.localizer.crf.weight, config.localizer.size.weight) == (1.0, 0.0, 0.0)
    more = load_config(None, ["method=pixelcam", "localizer.crf.weight=1e-9", "localizer.temporal.neighbours=1"])
    assert (more.localizer.crf.weight, more.localizer.temporal.neighbours) == (1e-9, 1)


def test_maxmin_needs_no_seeds_and_refuses_to_learn_from_nothing():
    localizer = load_config(None, ["method=maxmin"]).localizer
    assert (localizer.seeds.weight, localizer.uncertainty.foreground, localizer.uncertainty.background) == (0, 1, 1)
    nothing = [f"localizer.{name}=0" for name in ("size.weight", "uncertainty.foreground", "uncertainty.background")]
    load_config(None, ["method=maxmin", *nothing[:2]])
    with pytest.raises(ConfigError, match=r"at least one of .*weight"):
        load_config(None, ["method=maxmin", *nothing])


def test_one_frame_without_the_joint_term_is_a_colocam_too():
    config = load_config(None, ["method=colocam", "localizer.sequence.frames=1", "localizer.joint.weight=0"])
    assert config.localizer.sequence.frames == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=colocam", "localizer.sequence.frames=1"],
            "settings of 'localizer': joint.weight above 0 needs sequence.frames of 2 or more: found 4 and 1",
        ),
        (
            ["method=colocam", "localizer.batch=3"],
            "sequence.frames must be at most batch, which counts frames, not sequences: found 4 and 3",
        ),
        (
            ["localizer.sequence.frames=2"],
            "localizer.sequence.frames is of method colocam: found 2 with method tcam",
        ),
        (
            ["method=cam", "localizer.sequence.frames=2", "localizer.joint.weight=1"],
            "settings: localizer.sequence.frames is of method colocam: found 2 with method cam",
        ),
        (
            ["localizer.joint.space=features"],
            "localizer.joint.space is of method colocam: found features with method tcam",
        ),
        (
            ["method=colocam", "localizer.frame_choices=3", "localizer.frame_limit=1"],
            "sequence.frames must be at most frame_choices, the frames of a shot: found 4 and 3",
        ),
        (
            ["method=colocam", "localizer.frame_choices=8"],
            "'localizer': frame_choices are spread over the whole shot and need frame_limit=1: found 8 and 0.6",
        ),
        (
            ["classifier.frame_choices=3", "classifier.frame_limit=0.9"],
            "'classifier': frame_choices are spread over the whole shot and need frame_limit=1: found 3 and 0.9",
        ),
        (["method=colocam", "localizer.joint.space=rgb"], "should be 'colour' or 'features', found 'rgb'"),
        (["method=colocam", "localizer.joint.sigma_features=0"], "sigma_features': .* greater than 0, found 0"),
        (["method=colocam", "localizer.joint.components=0"], "joint.components': .* greater than 0, found 0"),
        (["method=colocam", "localizer.joint.sigma_rgb=0"], "'localizer.joint.sigma_rgb': .* greater than 0, found 0"),
        (["method=colocam", "localizer.sequence.frames=0"], "'localizer.sequence.frames': .* greater than 0, found 0"),
        (["method=colocam", "localizer.sequence.spread=-1"], "'localizer.sequence.spread': .* greater than 0"),
        (["method=colocam", "localizer.sequence.style=x"], "should be 'adjacent', 'gaussian' or 'interval', found 'x'"),
        (["method=colocam", "localizer.sequence=4"], "setting 'localizer.sequence': .*, found 4"),
        (["method=colocam", "localizer.joint.wait=4"], "did you mean 'weight'?"),
    ],
)
def test_sequences_that_make_no_sense_are_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, overrides)
    assert "\n" not in str(caught.value)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().classifier.epochs = 2  # type: ignore[misc]  # what must fail


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clasifier.epochs=1", r"unknown setting 'clasifier': did you mean 'classifier'\? known here: method, seed"),
        (
            "classifier.epoch=1",
            r"unknown setting 'classifier.epoch': did you mean 'epochs'\? known here: epochs, batch",
        ),
        ("localizer.seeds.xyz=1", r"unknown setting 'localizer.seeds.xyz': known here: weight, foreground"),
        ("classifier.epochs=0", "setting 'classifier.epochs': input should be greater than 0, found 0"),
        ("classifier.epochs=many", "setting 'classifier.epochs': .* integer.*, found 'many'"),
        ("method=grad-cam", "'method': expected one of cam, tcam, .*, maxmin, found 'grad-cam'"),
        ("model.output_stride=7", "setting 'model.output_stride': input should be 8, 16 or 32"),
        ("classifier=3", "setting 'classifier': .*, found 3"),
        ("classifier.epochs", "--set wants key=value such as classifier.epochs=10, got 'classifier.epochs'"),
        ("=3", "--set wants key=value"),
        ("input.crop=300", "crop must be at most resize: .*300.*256"),
        ("data.test_fraction=0.9", "val_fraction and test_fraction must be below 1 in sum: .*0.15.*0.9"),
        ("localizer.seeds.kernel=4", "kernel must be odd"),
        ("localizer.seeds.erosion=10", "erosion must be odd: found 10"),
        (
            "model.decoder=resnet",
            "setting 'model.decoder': input should be 'unet', 'levels' or 'pixels', found 'resnet'",
        ),
        ("data.background=x", "settings: data.background is of method negev: found x with method tcam"),
        ("localizer.negatives.weight=1", "negatives.weight is of method negev: found 1.0 with method tcam"),
        ("localizer.uncertainty.background=2", "is of method maxmin: found 2.0 with method tcam"),
        ("cam.method=gradcan", "settings of 'cam.method': expected one of cam, gradcam, .*, found 'gradcan'"),
        ("cam.method=3", "setting 'cam.method': .*string, found 3"),
        ("model.pooling=median", "settings of 'model.pooling': expected one of wgap, gap, .*, found 'median'"),
        ("model.background=true", r"maps of its own \(gap, max, lse, wildcat\): found wgap"),
        ("model.pooling=max", "cam.method must fit model.pooling .*try cam.method=cam.*: found layercam and max"),
    ],
)
def test_a_wrong_override_is_named_in_one_line(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("method", CAM_METHODS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_all_other_pairs_of_cam_and_pooling_are_taken(method, pooling):
    if (method, pooling) != ("layercam", "max"):
        config = load_config(None, [f"cam.method={method}", f"model.pooling={pooling}"])
        assert (config.cam.method, config.model.pooling) == (method, pooling)


def test_an_override_below_a_single_value_is_refused():
    with pytest.raises(ConfigError, match="'seed' is one value, not a group of settings"):
        load_config(None, ["seed=1", "seed.more=2"])


def test_a_localizer_with_no_loss_at_all_is_refused():
    weights = [f"localizer.{name}.weight=0" for name in ("seeds", "crf", "size")]
    load_config(None, weights[:2])
    with pytest.raises(ConfigError, match=r"at least one of .*weight"):
        load_config(None, weights)


def test_a_wrong_file_is_named(config_file, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown setting 'sead' in .*config\.yaml: did you mean 'seed'\?"):
        load_config(config_file("sead: 1\n"))
    with pytest.raises(ConfigError, match=r"config\.yaml is not YAML: "):
        load_config(config_file("a: [1\nb: 2\n"))
    with pytest.raises(ConfigError, match="must hold settings as 'key: value' lines, found a list"):
        load_config(config_file("- 1\n- 2\n"))
    with pytest.raises(ConfigError, match=r"cannot read the config .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read the config"):
        load_config(binary)


def test_configs_are_shipped():
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_shipped_config_loads(path):
    assert load_config(path) != RunConfig()
