"""What a model's file says of its frames and of sampling, and what is made of it."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from hi3d_core.diffusion.sampling import SOLVERS
from hi3d_core.model_defaults import OFFICIAL, ModelDefaults, SampleSettings, read_defaults
from hi3d_core.orbit import OrbitConfig, generate_orbit
from hi3d_core.refine import RefineConfig, refine_orbit
from hi3d_core.weights.convert import convert
from hi3d_core.weights.load import load_video_model
from hi3d_core.weights.mismatch import CheckpointMismatch
from training.weights_naming import metadata_of, state_of

from .tiny_models import tiny_model

SMALL = ModelDefaults(64, (1.0, 1.5), "heun", 2)


def save(model, path, metadata):
    tensors = {name: tensor.clone().contiguous() for name, tensor in state_of(model).items()}
    save_file(tensors, path, {**metadata_of(model), **metadata})
    return path


def test_the_authors_models_are_sampled_as_theirs():
    assert OFFICIAL["orbit"].choose() == SampleSettings(512, "euler", 25, (1.0, 2.5))
    assert OFFICIAL["refiner"].choose() == SampleSettings(1024, "euler", 25, (1.0, 2.0))
    assert tiny_model("orbit").defaults is OFFICIAL["orbit"]
    assert tiny_model("refiner").defaults is OFFICIAL["refiner"]
    assert not OFFICIAL["orbit"].is_small and SMALL.is_small


def test_what_is_given_wins_and_the_rest_is_the_models():
    assert SMALL.choose() == SampleSettings(64, "heun", 2, (1.0, 1.5))
    assert SMALL.choose(128, None, 7, (2.0, 3.0)) == SampleSettings(128, "heun", 7, (2.0, 3.0))
    # The number of steps belongs to the model's solver; another has its own.
    assert SMALL.choose(solver="fast").steps == SOLVERS["fast"].steps
    assert SMALL.choose(solver="heun").steps == 2
    with pytest.raises(ValueError, match="no solver 'rk4'"):
        SMALL.choose(solver="rk4")


def test_metadata_comes_back():
    for each in (SMALL, dataclasses.replace(SMALL, steps=None)):
        assert read_defaults(each.to_metadata(), "orbit") == each
    assert read_defaults({"hi3d_stage": "orbit"}, "orbit") is None
    told = {"frame_size": "256", "sampling": '{"steps": 8}'}
    assert read_defaults(told, "refiner") == ModelDefaults(256, (1.0, 2.0), "euler", 8)


BAD = [
    ("frame_size", "0"),
    ("frame_size", "100"),
    ("frame_size", "-128"),
    ("frame_size", "1e3"),
    ("frame_size", "٦٤"),
    ("frame_size", "9" * 5000),
    ("frame_size", "8192"),
    ("frame_size", ""),
    ("sampling", "{"),
    ("sampling", "[]"),
    ("sampling", "[" * 100_000),
    ("sampling", '{"seed": 3}'),
    ("sampling", '{"steps": 0}'),
    ("sampling", '{"steps": 1e3}'),
    ("sampling", '{"steps": true}'),
    ("sampling", '{"steps": 1001}'),
    ("sampling", '{"steps": ' + "9" * 5000 + "}"),
    ("sampling", '{"solver": "rk4"}'),
    ("sampling", '{"solver": ["euler"]}'),
    ("sampling", '{"guidance": 2}'),
    ("sampling", '{"guidance": [1]}'),
    ("sampling", '{"guidance": [1, NaN]}'),
    ("sampling", '{"guidance": [1, Infinity]}'),
    ("sampling", '{"guidance": [-1, 2]}'),
    ("sampling", '{"guidance": ["1", "2"]}'),
]


@pytest.mark.parametrize(("key", "text"), BAD)
def test_metadata_that_makes_no_sense_is_named(key, text):
    with pytest.raises(ValueError, match=r"frame_size|sampling|steps|solver|guidance") as raised:
        read_defaults({**SMALL.to_metadata(), key: text}, "orbit")
    assert len(str(raised.value)) < 6000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Both stages with defaults of their own."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        stage: save(tiny_model(stage), folder / f"{stage}.safetensors", SMALL.to_metadata())
        for stage in ("orbit", "refiner")
    }


def test_a_loaded_model_is_sampled_as_its_file_says(files):
    model = load_video_model(files["orbit"], "orbit")
    assert model.defaults == SMALL
    picture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))

    def painted(*config):
        generator = torch.Generator().manual_seed(1)
        return generate_orbit(model, picture, 0.0, *config, generator=generator)

    named = OrbitConfig(size=64, steps=2, solver="heun", guidance=(1.0, 1.5))
    assert torch.equal(painted(), painted(named))
    assert not torch.equal(painted(), painted(OrbitConfig(guidance=(1.0, 2.5))))
    with pytest.raises(ValueError, match="expected 128 x 128"):
        painted(OrbitConfig(size=128))


def test_a_loaded_refiner_too(files):
    model = load_video_model(files["refiner"], "refiner")
    generator = torch.Generator().manual_seed(0)
    frames, picture = torch.rand(16, 32, 32, 3, generator=generator), torch.rand(64, 64, 3)
    depths = torch.rand(16, 8, 8, generator=generator)

    def refined(*config):
        return refine_orbit(
            model,
            frames,
            picture,
            0.0,
            *config,
            generator=torch.Generator().manual_seed(1),
            depths=depths,
        )

    named = RefineConfig(size=64, steps=2, solver="heun", guidance=(1.0, 1.5))
    assert refined().shape == (16, 64, 64, 3)
    assert torch.equal(refined(), refined(named))


def test_a_file_whose_metadata_is_damaged_is_named(tmp_path):
    path = save(tiny_model("orbit"), tmp_path / "bad.safetensors", {"frame_size": "1000"})
    with pytest.raises(CheckpointMismatch, match=r"bad\.safetensors is damaged: frame_size"):
        load_video_model(path, "orbit")


def test_a_converted_copy_says_the_same(files, tmp_path):
    (copy,) = convert(files["orbit"], tmp_path / "copy.safetensors", image_encoder_inside=True)
    assert load_video_model(copy, "orbit").defaults == SMALL


def test_other_peoples_keys_of_that_name_say_nothing(tmp_path):
    """Only a file that says it is ours is asked."""
    from .test_weights_load import UNSEEN, official

    path = tmp_path / "first_stage.safetensors"
    save_file(official(tiny_model("orbit")), path, {"frame_size": json.dumps("huge")})
    model = load_video_model(path, "orbit", unseen=UNSEEN)
    assert model.own_defaults is None and model.defaults is OFFICIAL["orbit"]
