"""From checkpoint files to a `VideoModel`, with every tensor accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..model_defaults import ModelDefaults, read_defaults
from ..networks.official_keys import Source
from ..video_model import Stage, VideoModel
from .extras import known_extra
from .find import find_weights
from .mismatch import CheckpointMismatch
from .parts import PARTS, ROLES
from .recognise import check_stage, recognise
from .tensor_file import TensorFile, open_tensors

_log = logging.getLogger(__name__)

Unseen = Mapping[str, Mapping[str, int]]
"""Settings that no tensor's shape tells, by network: heads of attention."""

_SHOWN = 6  # names in a message
_FOLDERS = ("unet", "vae", "image_encoder")  # of a pipeline in diffusers' layout


@dataclass
class Holding:
    """Where one network lies: in `file`, its names beginning with `prefix`.

    official: whether they are the official names. settings: of the network, where the file tells
    them; else they are told from the shapes.
    """

    file: TensorFile
    prefix: str
    official: bool
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The file's names of all that begins with the prefix."""
        return {key for key in self.file.shapes if key.startswith(self.prefix)}


def load_video_model(
    path: str | Path,
    stage: Stage,
    *,
    image_encoder: str | Path | None = None,
    depth: str | Path | None = None,
    vae: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    unseen: Unseen | None = None,
) -> VideoModel:
    """Load one stage's networks, on the CPU, in evaluation mode and without gradients.

    path: the stage's checkpoint: official (.pt, .ckpt, .safetensors), written by the convert
        command, or a folder or file in diffusers' naming; sharded or not.
    image_encoder: OpenCLIP's file or SVD's `image_encoder` folder; needed where the checkpoint
        holds no encoder, and looked for beside it.
    depth, vae: likewise; a refiner without a depth network loads, and then wants depth maps.
    dtype: what the networks will compute in. Weights stored in it are mapped and not copied.
    unseen: settings that no shape tells and the file does not say, by network, if they are not the
        released weights': {"unet": {"head_channels": 8}, "image_encoder": {"heads": 4}}.

    Raises CheckpointMismatch for the wrong stage, missing tensors or other shapes, naming them and
    the file, and for metadata that makes no sense; ValueError for files that can't be read.
    """
    with ExitStack() as stack:
        holdings = find_holdings(stack, Path(path), stage, image_encoder, depth, vae)
        defaults = defaults_of(holdings["unet"].file, stage)
        used: dict[Path, set[str]] = {each.file.path: set() for each in holdings.values()}
        networks: dict[str, nn.Module] = {}
        for name in ROLES[stage]:
            holding = holdings.get(name)
            if holding is None:
                continue
            if name == "conditioning_vae" and is_copy(holding, holdings["vae"]):
                used[holding.file.path] |= holding.names
                continue
            networks[name], names = load_network(name, holding, dtype, (unseen or {}).get(name, {}))
            used[holding.file.path] |= names
        for file in {each.file.path: each.file for each in holdings.values()}.values():
            account(file, used[file.path])
    if "depth" not in networks and stage == "refiner":
        _log.info("no depth network is loaded: refining will want depth maps")
    networks.setdefault("conditioning_vae", networks["vae"])
    return VideoModel(stage, own_defaults=defaults, **cast(dict[str, Any], networks))


def defaults_of(file: TensorFile, stage: Stage) -> ModelDefaults | None:
    """What a file of ours says of its frames and of sampling; None if it says nothing.

    Raises CheckpointMismatch for what makes no sense.
    """
    if "hi3d_stage" not in file.metadata:
        return None
    try:
        return read_defaults(file.metadata, stage)
    except ValueError as error:
        raise CheckpointMismatch(f"the metadata of {file.path} is damaged: {error}") from error


def find_holdings(
    stack: ExitStack,
    path: Path,
    stage: Stage,
    image_encoder: str | Path | None,
    depth: str | Path | None,
    vae: str | Path | None,
) -> dict[str, Holding]:
    """Open the files that are needed and say where each network lies; closed with `stack`."""
    pipeline = _pipeline_folder(path)
    holdings: dict[str, Holding] = {}
    if pipeline is None:
        file = stack.enter_context(open_tensors(path))
        contents = recognise(file)
        check_stage(contents.stage, stage, path)
        for name, prefix in contents.prefixes.items():
            holdings[name] = Holding(
                file, prefix, contents.official, dict(contents.settings.get(name, {}))
            )
    else:
        for name in _FOLDERS:
            if (pipeline / name).is_dir():
                holdings[name] = _open_one(stack, pipeline / name, name)
        check_stage(recognise(holdings["unet"].file).stage, stage, path)
    given = {"image_encoder": image_encoder, "depth": depth, "vae": vae}
    for name, extra in given.items():
        if extra is not None and name in ROLES[stage]:
            holdings[name] = _open_one(stack, Path(extra), name)
    beside = pipeline or path
    if "image_encoder" not in holdings:
        found = find_weights("image_encoder", beside=beside)
        holdings["image_encoder"] = _open_one(stack, found, "image_encoder")
    if "depth" not in holdings and stage == "refiner":
        try:
            found = find_weights("depth", beside=beside)
        except ValueError:  # then depth maps must be given
            pass
        else:
            holdings["depth"] = _open_one(stack, found, "depth")
    if "vae" not in holdings:
        raise CheckpointMismatch(
            f"{path} holds no autoencoder: give one (SVD's vae folder has another decoder and "
            "won't do), or use the official checkpoint"
        )
    return holdings


@dataclass(frozen=True)
class Plan:
    """How one network comes out of a file: settings, where each tensor lies, the empty network."""

    holding: Holding
    settings: Any
    sources: dict[str, Source]
    network: nn.Module

    @property
    def used(self) -> set[str]:
        """Names of the file's tensors that it takes."""
        return {self.holding.prefix + source.name for source in self.sources.values()}

    def dtype(self, key: str) -> torch.dtype:
        """The number format in which the file holds a tensor of ours."""
        return self.holding.file.dtypes[self.holding.prefix + self.sources[key].name]

    def read(self, key: str, dtype: torch.dtype) -> Tensor:
        """One tensor of ours; mapped, not copied, if the file holds it in this form.

        Raises CheckpointMismatch if it does not fit into `dtype`.
        """
        name = self.holding.prefix + self.sources[key].name
        stored = self.holding.file.read(name)
        if not stored.is_floating_point():
            raise CheckpointMismatch(
                f"{name} of {self.holding.file.path} holds {stored.dtype}, expected floating "
                "point: quantised weights can't be read"
            )
        tensor = self.sources[key].extract(stored).to(dtype).contiguous()
        narrower = torch.finfo(dtype).max < torch.finfo(stored.dtype).max
        if narrower and not torch.isfinite(tensor).all():
            raise CheckpointMismatch(
                f"{name} of {self.holding.file.path} is not finite in {dtype}: use float32"
            )
        return tensor


def plan_network(name: str, holding: Holding, unseen: Mapping[str, int]) -> Plan:
    """Find all tensors of a network in a file; none is read yet.

    name: in `parts.PARTS`. unseen: settings that no shape tells.
    Raises CheckpointMismatch for missing tensors and other shapes.
    """
    part = PARTS[name]
    shapes = {
        key.removeprefix(holding.prefix): shape
        for key, shape in holding.file.shapes.items()
        if key.startswith(holding.prefix)
    }
    if holding.settings:
        settings = part.read_settings(holding.settings)
    else:
        tell = part.from_official if holding.official else part.from_ours
        try:
            settings = tell(shapes, **unseen)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise CheckpointMismatch(
                f"{holding.file.path}, {_words(name)}: {error}. Weights of another width than the "
                "released ones need what no shape tells (--set unet.head_channels=8, "
                "image_encoder.heads=4, ...)"
            ) from error
    with torch.device("meta"):
        network = part.build(settings)
    targets = network.state_dict()
    ours = {key: Source(key) for key in targets}
    sources = part.sources(settings) if holding.official else ours
    _check(holding, targets, sources, shapes, name)
    return Plan(holding, settings, sources, network)


def load_network(
    name: str, holding: Holding, dtype: torch.dtype, unseen: Mapping[str, int]
) -> tuple[nn.Module, set[str]]:
    """Build one network and fill it; returns it and the names of the tensors that it used.

    Raises CheckpointMismatch for missing tensors and other shapes.
    """
    plan = plan_network(name, holding, unseen)
    network = plan.network
    network.load_state_dict(
        {key: plan.read(key, dtype) for key in network.state_dict()}, assign=True
    )
    _fill_constants(network)
    return network.eval().requires_grad_(False), plan.used


def account(file: TensorFile, used: set[str]) -> None:
    """Log what of a file was used, which known extras it holds, and name what no one knows."""
    rest = [name for name in file.shapes if name not in used]
    extras = Counter(known_extra(name) for name in rest)
    unknown = [name for name in rest if known_extra(name) is None]
    extras.pop(None, None)
    told = "".join(f", {count} of {what}" for what, count in extras.items())
    _log.info("%s: %d tensors used%s", file.path, len(used), told)
    if unknown:
        shown = ", ".join(unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
        _log.warning(
            "%s holds %d tensors that nothing here uses: %s", file.path, len(unknown), shown
        )


def _check(
    holding: Holding,
    targets: dict[str, Tensor],
    sources: dict[str, Source],
    shapes: dict[str, tuple[int, ...]],
    name: str,
) -> None:
    missing, other = [], []
    for key, target in targets.items():
        source = sources[key]
        expected = source.official_shape(tuple(target.shape))
        if source.name not in shapes:
            missing.append(holding.prefix + source.name)
        elif tuple(shapes[source.name]) != expected:
            found = tuple(shapes[source.name])
            other.append(f"{holding.prefix + source.name} is {found}, expected {expected}")
    for problem, names in (("lacks", missing), ("has tensors of another shape:", other)):
        if names:
            shown = ", ".join(names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise CheckpointMismatch(
                f"{holding.file.path} {problem} {shown}{more} for the {_words(name)}: "
                "it may be of another model, or an incomplete copy"
            )


def _fill_constants(network: nn.Module) -> None:
    """Give buffers that no checkpoint holds their values; they were built without any."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                if name != "position_ids":
                    raise AssertionError(f"the buffer {name} has no value")
                module._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape)


def is_copy(holding: Holding, other: Holding) -> bool:
    """Whether two networks are bitwise the same, as a file's two autoencoders nearly always."""
    for key in holding.names:
        twin = other.prefix + key.removeprefix(holding.prefix)
        if twin not in other.file.shapes or not torch.equal(
            holding.file.read(key), other.file.read(twin)
        ):
            return False
    return True


def checkpoint_of(path: Path) -> Path:
    """What holds the video UNet: the path, or the part of a pipeline in diffusers' layout."""
    pipeline = _pipeline_folder(path)
    return path if pipeline is None else pipeline / "unet"


def _open_one(stack: ExitStack, path: Path, name: str) -> Holding:
    """Open a file or folder that holds one network."""
    file = stack.enter_context(open_tensors(path))
    contents = recognise(file)
    if name not in contents.prefixes:
        raise CheckpointMismatch(
            f"{path} holds {', '.join(map(_words, contents.prefixes))}, expected the {_words(name)}"
        )
    settings = dict(contents.settings.get(name, {}))
    return Holding(file, contents.prefixes[name], contents.official, settings)


def _pipeline_folder(path: Path) -> Path | None:
    """The folder of a pipeline in diffusers' layout that the path is, or lies in."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "unet").is_dir() and (path == folder or "unet" in path.parts[-2:]):
            return folder
    return None


def _words(name: str) -> str:
    words = {"unet": "video UNet", "vae": "autoencoder", "depth": "depth network"}
    return words.get(name, name.replace("_", " "))
