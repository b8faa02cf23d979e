"""Every form in which a stage's weights come, made from small networks and loaded back."""

import dataclasses
import json
import logging

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hi3d_core.networks.aesthetic import AestheticConfig, build_aesthetic
from hi3d_core.networks.depth_network import build_depth_network
from hi3d_core.video_model import VideoModel
from hi3d_core.weights.convert import convert
from hi3d_core.weights.load import load_video_model
from hi3d_core.weights.mismatch import CheckpointMismatch
from hi3d_core.weights.parts import PARTS

from .official_naming import to_official
from .tiny_models import ENCODER, TINY_DEPTH, filled, tiny_model

UNSEEN = {
    "unet": {"head_channels": 8},
    "image_encoder": {"heads": 2},
    "aesthetic": {"heads": 2},
    "depth": {"heads": 2},
}
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "conditioning_vae": "conditioner.embedders.3.encoder.",
    "image_encoder": "conditioner.embedders.0.open_clip.model.visual.",
    "aesthetic": "conditioner.embedders.1.",
    "depth": "conditioner.embedders.2.model.model.",
}


def networks_of(model):
    found = {field.name: getattr(model, field.name) for field in dataclasses.fields(VideoModel)}
    del found["stage"]
    return {name: network for name, network in found.items() if network is not None}


def settings_of(name, network):
    if name in ("vae", "conditioning_vae"):
        from .tiny_models import VAE

        return VAE
    if name == "image_encoder":
        return ENCODER
    if name == "aesthetic":
        return SCORER
    return network.settings


SCORER = AestheticConfig(**{**vars(ENCODER), "activation": "quick_gelu"}, head=(8, 4, 1))


@pytest.fixture(scope="module")
def orbit():
    generator = torch.Generator().manual_seed(1)
    return dataclasses.replace(
        tiny_model("orbit"), aesthetic=filled(build_aesthetic(SCORER), generator)
    )


@pytest.fixture(scope="module")
def refiner():
    generator = torch.Generator().manual_seed(2)
    return dataclasses.replace(
        tiny_model("refiner"), depth=filled(build_depth_network(TINY_DEPTH), generator)
    )


def official(model):
    state = {}
    for name, network in networks_of(model).items():
        sources = PARTS[name].sources(settings_of(name, network))
        for key, tensor in to_official(network, sources).items():
            state[PREFIXES[name] + key] = tensor.clone().contiguous()
    return state


def save_official(model, path, state=None):
    state = official(model) if state is None else state
    torch.save({"module": {f"module.{key}": tensor for key, tensor in state.items()}}, path)
    return path


def assert_same(found, expected, dtype=torch.float32):
    assert found.stage == expected.stage
    ours, theirs = networks_of(found), networks_of(expected)
    assert ours.keys() == theirs.keys()
    for name, network in theirs.items():
        state = ours[name].state_dict()
        for key, tensor in network.state_dict().items():
            assert state[key].dtype == dtype
            assert torch.equal(state[key], tensor.to(dtype)), (name, key)
        assert not ours[name].training
        assert not any(parameter.requires_grad for parameter in ours[name].parameters())
        assert not any(buffer.is_meta for buffer in ours[name].buffers())


@pytest.mark.parametrize("stage", ["orbit", "refiner"])
@pytest.mark.parametrize("form", ["pt", "ckpt", "safetensors", "sharded"])
def test_official_naming_in_every_form(request, tmp_path, stage, form):
    model = request.getfixturevalue(stage)
    state = official(model)
    path = tmp_path / f"weights.{form}"
    if form == "pt":
        save_official(model, path)
    elif form == "ckpt":
        torch.save({"state_dict": state, "global_step": 7}, path)
    elif form == "safetensors":
        save_file(state, path)
    else:
        names = sorted(state)
        halves = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
        for file, part in halves.items():
            save_file({name: state[name] for name in part}, tmp_path / file)
        where = {name: file for file, part in halves.items() for name in part}
        path = tmp_path / "a.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": where}))
    assert_same(load_video_model(path, stage, unseen=UNSEEN), model)


def test_the_encoded_picture_is_the_same_after_loading(orbit, tmp_path):
    """Constants that no file holds are filled in: the networks run."""
    from .test_orbit import make

    loaded = load_video_model(
        save_official(orbit, tmp_path / "first_stage.pt"), "orbit", unseen=UNSEEN
    )
    assert torch.equal(make(loaded), make(orbit))


def diffusers_folder(model, folder):
    """As diffusers lays a pipeline out, with transformers' folder for the encoder."""
    for name in ("unet", "vae", "image_encoder"):
        (folder / name).mkdir(parents=True)
        state = {key: each.contiguous() for key, each in getattr(model, name).state_dict().items()}
        file = "model" if name == "image_encoder" else "diffusion_pytorch_model"
        save_file(state, folder / name / f"{file}.safetensors")
    return folder


@pytest.mark.parametrize("inside", ["", "unet", "unet/diffusion_pytorch_model.safetensors"])
def test_a_diffusers_folder(orbit, tmp_path, inside):
    folder = diffusers_folder(orbit, tmp_path / "pipeline")
    loaded = load_video_model(folder / inside, "orbit", unseen=UNSEEN)
    assert_same(loaded, dataclasses.replace(orbit, aesthetic=None))


def test_networks_from_files_of_their_own(refiner, tmp_path):
    state = official(refiner)
    encoder, depth = PREFIXES["image_encoder"], PREFIXES["depth"]
    rest = {k: v for k, v in state.items() if not k.startswith((encoder, depth))}
    path = save_official(refiner, tmp_path / "second_stage.pt", rest)
    clip = {
        "visual." + key.removeprefix(encoder): tensor
        for key, tensor in state.items()
        if key.startswith(encoder)
    }
    clip["token_embedding.weight"] = torch.zeros(3, 2)
    torch.save(clip, tmp_path / "clip.bin")
    dpt = {k.removeprefix(depth): v for k, v in state.items() if k.startswith(depth)}
    torch.save(dpt, tmp_path / "dpt.pt")
    loaded = load_video_model(
        path,
        "refiner",
        image_encoder=tmp_path / "clip.bin",
        depth=tmp_path / "dpt.pt",
        unseen=UNSEEN,
    )
    assert_same(loaded, refiner)
    # Beside the checkpoint and under their usual names, they are found.
    (tmp_path / "clip.bin").rename(tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "dpt.pt").rename(tmp_path / "dpt_hybrid_384.pt")
    assert_same(load_video_model(path, "refiner", unseen=UNSEEN), refiner)
    (tmp_path / "dpt_hybrid_384.pt").unlink()
    assert load_video_model(path, "refiner", unseen=UNSEEN).depth is None
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"open_clip_pytorch_model\.bin"):
        load_video_model(path, "refiner", unseen=UNSEEN)


def test_networks_from_transformers_folders(refiner, tmp_path):
    """SVD's `image_encoder`, Intel's `dpt-hybrid-midas`: beside the checkpoint, or given."""
    encoder, depth = PREFIXES["image_encoder"], PREFIXES["depth"]
    rest = {k: v for k, v in official(refiner).items() if not k.startswith((encoder, depth))}
    path = save_official(refiner, tmp_path / "second_stage.pt", rest)
    for network, name in (
        (refiner.image_encoder, "image_encoder"),
        (refiner.depth, "dpt-hybrid-midas"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        if name == "image_encoder":
            state["vision_model.embeddings.position_ids"] = torch.arange(2)[None]
            save_file(state, tmp_path / name / "model.safetensors")
        else:
            torch.save(state, tmp_path / name / "pytorch_model.bin")
    assert_same(load_video_model(path, "refiner", unseen=UNSEEN), refiner)
    moved = (tmp_path / "dpt-hybrid-midas").rename(tmp_path / "elsewhere")
    assert_same(load_video_model(path, "refiner", depth=moved, unseen=UNSEEN), refiner)
    with pytest.raises(CheckpointMismatch, match="holds depth network, expected the image encoder"):
        load_video_model(path, "refiner", image_encoder=moved, unseen=UNSEEN)


def test_a_second_autoencoder_that_differs_is_kept(orbit, tmp_path):
    state = official(orbit)
    name = PREFIXES["conditioning_vae"] + "quant_conv.bias"
    state[name] = state[name] + 1
    loaded = load_video_model(
        save_official(orbit, tmp_path / "first_stage.pt", state), "orbit", unseen=UNSEEN
    )
    assert loaded.conditioning_vae is not loaded.vae
    difference = loaded.conditioning_vae.quant_conv.bias - loaded.vae.quant_conv.bias
    assert torch.allclose(difference, torch.ones(8))
    same = load_video_model(save_official(orbit, tmp_path / "same.pt"), "orbit", unseen=UNSEEN)
    assert same.conditioning_vae is same.vae


@pytest.mark.parametrize("stage", ["orbit", "refiner"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_converted_copy_loads_to_the_same(request, tmp_path, stage, inside):
    model = request.getfixturevalue(stage)
    source = save_official(model, tmp_path / "first_stage.pt")
    out = tmp_path / "copy" / "hi3d.safetensors"
    out.parent.mkdir()
    written = convert(source, out, dtype=None, image_encoder_inside=inside, unseen=UNSEEN)
    assert len(written) == (1 if inside else 2)
    assert sorted(out.parent.iterdir()) == sorted(written)
    source.unlink()
    assert_same(load_video_model(out, stage), model)  # the settings are in the copy
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
        held = set(file.keys())
    assert metadata["hi3d_stage"] == stage
    assert metadata["hi3d_source"] == "first_stage.pt"
    assert len(metadata["hi3d_source_sha256"]) == 64
    expected = {
        f"{name}.{key}"
        for name, network in networks_of(model).items()
        if name != "conditioning_vae" and (inside or name != "image_encoder")
        for key in network.state_dict()
    }
    assert held == expected


def test_half_precision_halves_the_file(orbit, tmp_path):
    source = save_official(orbit, tmp_path / "first_stage.pt")
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    convert(source, whole, dtype=None, image_encoder_inside=True, unseen=UNSEEN)
    convert(source, half, image_encoder_inside=True, unseen=UNSEEN)
    with safe_open(half, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert_same(load_video_model(half, "orbit", dtype=torch.float16), orbit, torch.float16)


def test_weights_that_overflow_half_precision_are_refused(orbit, tmp_path):
    state = official(orbit)
    name = PREFIXES["unet"] + "out.2.bias"
    state[name] = state[name] + 1e6
    source = save_official(orbit, tmp_path / "first_stage.pt", state)
    out = tmp_path / "half.safetensors"
    out.write_bytes(b"what was there")
    with pytest.raises(CheckpointMismatch, match=r"out\.2\.bias.*not finite in torch\.float16"):
        convert(source, out, unseen=UNSEEN)
    with pytest.raises(CheckpointMismatch, match=r"out\.2\.bias"):
        load_video_model(source, "orbit", dtype=torch.float16, unseen=UNSEEN)
    assert out.read_bytes() == b"what was there"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "first_stage.pt",
        "half.safetensors",
    ]


def test_stages_share_one_encoder_file_unless_theirs_differ(orbit, refiner, tmp_path):
    first = save_official(orbit, tmp_path / "first_stage.pt")
    same = save_official(
        refiner := dataclasses.replace(refiner, image_encoder=orbit.image_encoder),
        tmp_path / "second_stage.pt",
    )
    other = save_official(
        dataclasses.replace(refiner, image_encoder=tiny_model("orbit", seed=9).image_encoder),
        tmp_path / "other.pt",
    )
    folder = tmp_path / "models"
    folder.mkdir()
    shared = folder / "hi3d_image_encoder.safetensors"
    assert convert(first, folder / "a.safetensors", unseen=UNSEEN)[1:] == [shared]
    kept = shared.read_bytes()
    assert convert(same, folder / "b.safetensors", unseen=UNSEEN) == [folder / "b.safetensors"]
    assert convert(other, folder / "c.safetensors", unseen=UNSEEN) == [folder / "c.safetensors"]
    assert shared.read_bytes() == kept
    key = "visual_projection.weight"
    b = load_video_model(folder / "b.safetensors", "refiner", dtype=torch.float16).image_encoder
    c = load_video_model(folder / "c.safetensors", "refiner", dtype=torch.float16).image_encoder
    assert torch.equal(b.state_dict()[key], orbit.image_encoder.state_dict()[key].half())
    assert not torch.equal(b.state_dict()[key], c.state_dict()[key])


def test_converting_onto_the_source_is_refused(orbit, tmp_path):
    source = tmp_path / "first.safetensors"
    save_file(official(orbit), source)
    with pytest.raises(ValueError, match="write to another name"):
        convert(source, source, unseen=UNSEEN)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        convert(source, tmp_path / "out.pt", unseen=UNSEEN)


def test_converting_onto_any_file_that_is_read_is_refused(orbit, tmp_path):
    source = save_official(orbit, tmp_path / "first_stage.pt")
    vae = tmp_path / "vae.safetensors"
    save_file(orbit.vae.state_dict(), vae)
    kept = vae.read_bytes()
    with pytest.raises(ValueError, match="write to another name"):
        convert(source, vae, vae=vae, unseen=UNSEEN)
    assert vae.read_bytes() == kept


def test_converting_a_stage_to_the_name_of_the_encoder_is_refused(orbit, tmp_path):
    source = save_official(orbit, tmp_path / "first_stage.pt")
    with pytest.raises(ValueError, match="name of the image encoder's file"):
        convert(source, tmp_path / "hi3d_image_encoder.safetensors", unseen=UNSEEN)
    assert [file.name for file in tmp_path.iterdir()] == ["first_stage.pt"]


def test_a_unet_of_neither_stage_is_refused_by_name(tmp_path):
    path = tmp_path / "some.safetensors"
    embedding = {"time_embedding.linear_1.weight": torch.zeros(2, 2)}
    save_file(embedding, path)
    with pytest.raises(CheckpointMismatch, match=r"some\.safetensors lacks conv_in\.weight"):
        load_video_model(path, "orbit")
    save_file({**embedding, "conv_in.weight": torch.zeros(4, 4, 3, 3)}, path)
    with pytest.raises(CheckpointMismatch, match=r"some\.safetensors takes 4 channels"):
        load_video_model(path, "orbit")


def test_the_wrong_stage_is_recognised_and_said(orbit, refiner, tmp_path):
    first = save_official(orbit, tmp_path / "first_stage.pt")
    second = save_official(refiner, tmp_path / "second_stage.pt")
    with pytest.raises(CheckpointMismatch, match=r"is stage 1.*expected the refiner stage"):
        load_video_model(first, "refiner", unseen=UNSEEN)
    with pytest.raises(CheckpointMismatch, match=r"is stage 2.*expected the orbit stage"):
        load_video_model(second, "orbit", unseen=UNSEEN)
    copy = tmp_path / "copy.safetensors"
    convert(first, copy, unseen=UNSEEN)
    with pytest.raises(CheckpointMismatch, match="is stage 1"):
        load_video_model(copy, "refiner")


def test_plain_svd_is_recognised_and_said(orbit, tmp_path):
    state = {key: tensor for key, tensor in official(orbit).items() if "embedders.1." not in key}
    state["first_stage_model.decoder.up.0.block.0.time_stack.in_layers.2.weight"] = torch.zeros(1)
    path = tmp_path / "svd.safetensors"
    save_file(state, path)
    with pytest.raises(CheckpointMismatch, match="plain Stable Video Diffusion"):
        load_video_model(path, "orbit", unseen=UNSEEN)
    with pytest.raises(CheckpointMismatch, match="plain Stable Video Diffusion"):
        convert(path, tmp_path / "out.safetensors", unseen=UNSEEN)


def test_missing_tensors_are_named(orbit, tmp_path):
    state = official(orbit)
    gone = [PREFIXES["unet"] + "out.2.bias", PREFIXES["vae"] + "quant_conv.weight"]
    for name in gone:
        broken = {key: tensor for key, tensor in state.items() if key != name}
        path = save_official(orbit, tmp_path / "broken.pt", broken)
        with pytest.raises(CheckpointMismatch, match=f"broken.pt lacks {name}"):
            load_video_model(path, "orbit", unseen=UNSEEN)


def test_quantised_weights_are_refused(orbit, tmp_path):
    state = official(orbit)
    name = PREFIXES["unet"] + "out.2.weight"
    state[name] = state[name].to(torch.int8)
    path = save_official(orbit, tmp_path / "int8.pt", state)
    with pytest.raises(CheckpointMismatch, match=rf"{name}.*int8, expected floating point"):
        load_video_model(path, "orbit", unseen=UNSEEN)


def test_tensors_of_another_shape_are_named(orbit, tmp_path):
    state = official(orbit)
    name = PREFIXES["unet"] + "out.2.weight"
    state[name] = state[name][:, :5]
    path = save_official(orbit, tmp_path / "broken.pt", state)
    with pytest.raises(CheckpointMismatch, match=rf"{name} is \(4, 5, 3, 3\), expected \(4, 32"):
        load_video_model(path, "orbit", unseen=UNSEEN)


def test_known_extras_are_counted_and_unknown_ones_named(orbit, tmp_path, caplog):
    extras = {
        "model_ema.decay": "averaged weights",
        "warp_model.jpeger.compress.l1.0.shift": "training degradation",
        "conditioner.embedders.0.open_clip.model.token_embedding.weight": "text half",
    }
    state = {**official(orbit), **dict.fromkeys(extras, torch.zeros(2))}
    state["conditioner.embedders.0.open_clip.model.visual.odd"] = torch.zeros(2)
    path = save_official(orbit, tmp_path / "first_stage.pt", state)
    with caplog.at_level(logging.INFO, "hi3d_core"):
        assert_same(load_video_model(path, "orbit", unseen=UNSEEN), orbit)
    (told,) = (record.message for record in caplog.records if "tensors used" in record.message)
    assert told.count("1 of ") == 3
    for what in extras.values():
        assert what in told
    (warned,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert "1 tensors" in warned and "visual.odd" in warned


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "lora.safetensors"
    save_file({"lora.up": torch.zeros(3)}, path)
    with pytest.raises(CheckpointMismatch, match="none of Hi3D's networks"):
        load_video_model(path, "orbit")


def test_damaged_metadata_is_refused(tmp_path):
    path = tmp_path / "copy.safetensors"
    for settings in (
        "{",
        "[" * 3000,
        '{"unet": {"no_such_setting": 1}}',
        '{"unet": {"head_channels": 0}}',
        '{"unet": 3}',
    ):
        save_file(
            {"unet.conv_in.weight": torch.zeros(3)},
            path,
            metadata={"hi3d_stage": "orbit", "hi3d_settings": settings},
        )
        with pytest.raises(ValueError, match=r"copy\.safetensors"):
            load_video_model(path, "orbit")


def test_weights_in_the_wanted_format_stay_mapped(orbit, tmp_path):
    """Loading holds no second copy: writing to the file's bytes shows in the network."""
    out = tmp_path / "hi3d_orbit.safetensors"
    convert(
        save_official(orbit, tmp_path / "first_stage.pt"),
        out,
        dtype=None,
        image_encoder_inside=True,
        unseen=UNSEEN,
    )
    model = load_video_model(out, "orbit")
    owned = sum(
        parameter.untyped_storage().nbytes()
        for network in (model.unet, model.vae)
        for parameter in network.parameters()
        if not parameter.untyped_storage().is_shared() and not _is_mapped(parameter, out)
    )
    assert owned == 0


def _is_mapped(parameter, path):
    """Whether the tensor's memory lies in the process's mapping of the file."""
    from pathlib import Path

    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the system does not tell which memory is mapped from files")
    address = parameter.data_ptr()
    for line in maps.read_text().splitlines():
        if line.endswith(str(path)):
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if start <= address < end:
                return True
    return False
