"""`RewardConfig`: presets, YAML, and mistakes that are named."""

import dataclasses

import numpy as np
import pytest

import dpad_fast as df


@pytest.mark.parametrize("name", ["dpad", "dpad-released", "seg-zero", "vision-reasoner"])
def test_presets_survive_plain_data(name, tmp_path):
    import yaml

    config = df.RewardConfig.preset(name)
    assert config.name == name
    assert df.RewardConfig.from_dict(config.to_dict()) == config
    path = tmp_path / "reward.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    assert df.RewardConfig.from_yaml(path) == config


def test_default_is_the_paper():
    assert df.RewardConfig() == df.RewardConfig.preset("dpad")


def test_yaml_names_a_preset_and_overrides_it():
    config = df.RewardConfig.from_yaml(
        "preset: dpad-released\nshape: margin\nweights:\n  iou: 2\nmodel_size: [840, 840]\n"
    )
    assert (config.name, config.shape, config.weight("iou"), config.weight("box_l1")) == (
        "dpad-released",
        "margin",
        2,
        1,
    )
    assert config.model_size == (840, 840)
    assert not config.gate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shpae": "margin"}, "unknown reward setting 'shpae'; did you mean 'shape'.*Known settings: name, terms"),
        ({"preset": "dpd"}, "unknown preset 'dpd'; known presets: dpad, dpad-released"),
        ({"preset": "dpad", "alpa": 1}, "unknown reward setting 'alpa'"),
        ({"shape": "cubic"}, "shape must be one of binary, released"),
        ({"terms": ["iou", "giou"]}, r"terms\[1\] is 'giou'"),
        ({"terms": ["iou", "iou"]}, "each only once"),
        ({"terms": []}, "at least one"),
        ({"terms": "iou"}, "must be a list of names"),
        ({"weights": {"giou": 1}}, r"weights\['giou'\] names no term"),
        ({"weights": {"iou": float("nan")}}, r"weights\['iou'\] must be a finite number"),
        ({"weights": {"iou": True}}, r"weights\['iou'\] must be a finite number"),
        ({"tau": float("inf")}, "tau must be a finite number"),
        ({"weights": {"iou": 1e300}}, r"weights\['iou'\] must be a finite number up to 1e30, got 1e\+300"),
        ({"alpha": 1e308}, r"alpha must be a finite number up to 1e30, got 1e\+308"),
        ({"iou_threshold": 10**400}, "iou_threshold must be a finite number up to 1e30, got 1000"),
        ({"gate": 1}, "gate must be true or false"),
        ({"tags": ["answer", "think"]}, "tags must be"),
        ({"max_objects": 0}, "max_objects must be a whole number from 1 to 1000, got 0"),
        ({"max_objects": 10_000}, "max_objects must be a whole number from 1 to 1000, got 10000"),
        ({"max_objects": True}, "max_objects must be a whole number from 1 to 1000, got True"),
        ({"model_size": [840]}, "model_size must be"),
        ({"model_size": 840}, "model_size must be .*got 840"),
        ({"model_size": "84"}, "model_size must be .*got '84'"),
        ({"model_size": [True, 840]}, "model_size must be"),
        ({"model_size": [840.5, 840]}, "model_size must be"),
        ({"terms": ["mask_iou"]}, "needs geometry='mask'"),
        ({"terms": ["accuracy"]}, "does not go with terms"),
        ({"answer": "objects"}, "does not go with terms"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        df.RewardConfig.from_dict(values)


def test_yaml_must_be_a_mapping(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- dpad\n")
    with pytest.raises(ValueError, match="must be a mapping"):
        df.RewardConfig.from_yaml(path)


def test_mask_geometry_replaces_the_box_terms():
    config = df.RewardConfig.preset("dpad", geometry="mask", weights={"iou": 2.0, "discriminative": 3.0})
    assert config.terms == ("think_format", "answer_format", "mask_iou", "discriminative")
    assert config.weights == {"discriminative": 3.0}


def test_replace_and_frozen():
    config = df.RewardConfig.preset("dpad").replace(shape="sigmoid")
    assert config.shape == "sigmoid"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.shape = "binary"


def test_sizes_may_be_numpy_numbers():
    config = df.RewardConfig(model_size=(np.int64(840), np.int32(420)))
    assert config.model_size == (840, 420)
    assert all(type(side) is int for side in config.model_size)  # plain data, for YAML and JSON


def test_the_largest_weights_leave_no_nan():
    """Beyond float32 a weight was infinite, and times a term of 0 it was NaN."""
    config = df.RewardConfig.preset("seg-zero", weights={"iou": 1e30, "box_l1": -1e30})
    batch = df.RewardScorer(config).score(["nothing"], [df.Target(box=(1, 2, 30, 40), points=((2, 3), (4, 5)))])
    assert batch.total.tolist() == [0]
