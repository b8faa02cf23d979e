"""What both diffusion stages cost: seconds, memory and FLOPs by number format and option.

    python benchmarks/bench_sampling.py [--device cuda] [--dtypes fp16 bf16 fp32] [--repeats 5]
                                        [--stages orbit refiner] [--compiled] [--tiny]
                                        [--out benchmarks/results/sampling_....json]

The networks have the released ones' size and random weights. On a GPU everything is timed: after a
warm-up, synchronised, median and quartiles, and the most memory that torch held. Without one, on
the meta device, FLOPs are exact, memory is that of the tensors alive at once, and seconds are an
ESTIMATE: a roofline of every operation for an H200-class card (see meta_meter.py).

The first table has the networks one by one, the second whole runs, from picture to frames, with
weights on the CPU that go to the device while they are used. --tiny takes narrow networks and small
pictures, to try the benchmark itself (on a CPU, too: --device cpu).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from meta_meter import H200_CLASS, FusedAttention, Meter  # noqa: E402

from hi3d_core.conditioning import Conditioning, video_denoiser  # noqa: E402
from hi3d_core.depth import shrink_for_depth  # noqa: E402
from hi3d_core.diffusion.guidance import frame_scales  # noqa: E402
from hi3d_core.diffusion.sampling import SOLVERS, network_calls  # noqa: E402
from hi3d_core.networks import aesthetic, depth_network, image_encoder, vae  # noqa: E402
from hi3d_core.networks.feature_reuse import FeatureReuse  # noqa: E402
from hi3d_core.networks.video_unet import (  # noqa: E402
    ORBIT_UNET,
    REFINER_UNET,
    VideoUNet,
    VideoUNetConfig,
    build_video_unet,
    chunk_feed_forward,
)
from hi3d_core.orbit import OrbitConfig, generate_orbit  # noqa: E402
from hi3d_core.refine import RefineConfig, refine_orbit  # noqa: E402
from hi3d_core.sample_options import SampleOptions  # noqa: E402
from hi3d_core.video_model import VideoModel  # noqa: E402

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
GIGA = 1e9
Work = Callable[[], Any]


@dataclass(frozen=True)
class Sizes:
    """The networks of one stage and the side of its pictures."""

    stage: str
    pixels: int
    unet: VideoUNetConfig
    vae: vae.VaeConfig
    encoder: image_encoder.ImageEncoderConfig
    aesthetic: aesthetic.AestheticConfig
    depth: depth_network.DepthConfig

    @property
    def grid(self) -> int:
        return self.pixels // 2 ** (len(self.vae.channels) - 1)


def released(stage: str) -> Sizes:
    """The sizes of the released weights."""
    unet, pixels = (ORBIT_UNET, 512) if stage == "orbit" else (REFINER_UNET, 1024)
    return Sizes(
        stage,
        pixels,
        unet,
        vae.VaeConfig(),
        image_encoder.CLIP_VIT_H,
        aesthetic.AESTHETIC,
        depth_network.DPT_HYBRID,
    )


def tiny(stage: str) -> Sizes:
    """Sizes with which all runs in seconds on any machine."""
    sizes = released(stage)
    width: dict[str, Any] = {"width": 64, "layers": 2, "heads": 2}
    return dataclasses.replace(
        sizes,
        pixels=64 if stage == "orbit" else 128,
        unet=dataclasses.replace(
            sizes.unet, block_channels=(32, 32, 64, 64), head_channels=8, layers_per_block=1
        ),
        vae=vae.VaeConfig(channels=(32, 32, 32, 32), layers_per_block=1),
        encoder=dataclasses.replace(sizes.encoder, **width),
        aesthetic=dataclasses.replace(sizes.aesthetic, **width),
        depth=depth_network.DepthConfig(
            width=64,
            layers=4,
            heads=2,
            stem_channels=32,
            stage_channels=(128, 128, 128),
            stage_layers=(1, 1, 1),
            token_channels=(64, 64),
            fusion_channels=32,
        ),
    )


@dataclass
class Bench:
    """Where and in what to measure; collects the rows of both tables."""

    device: torch.device
    repeats: int
    parts: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    runs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def estimates(self) -> bool:
        return self.device.type == "meta"

    @contextlib.contextmanager
    def network(self, build: Work, dtype: torch.dtype) -> Iterator[Any]:
        """A network on the device, for as long as it is measured."""
        with self.device:
            network = build()
        yield in_format(network, dtype)
        del network
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def measure(self, work: Work, repeats: int | None = None) -> dict[str, float]:
        """Cost of one call, the one before it not counted; memory without what was held before."""
        with torch.no_grad():
            return self._estimate(work) if self.estimates else self._time(work, repeats)

    def _estimate(self, work: Work) -> dict[str, float]:
        with FusedAttention(), Meter() as meter:
            work()
            meter.restart()
            work()
        return {
            "tflop": meter.flops / 1e12,
            "seconds": meter.seconds,
            "activations_gb": meter.peak_bytes / GIGA,
        }

    def _time(self, work: Work, repeats: int | None) -> dict[str, float]:
        before = self._reset_peak()
        work()
        self._synchronize()
        times = []
        for _ in range(repeats or self.repeats):
            start = time.perf_counter()
            work()
            self._synchronize()
            times.append(time.perf_counter() - start)
        low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
        measured = {"seconds": middle, "quartile_1": low, "quartile_3": high}
        if self.device.type == "cuda":
            measured["activations_gb"] = (
                torch.cuda.max_memory_allocated(self.device) - before
            ) / GIGA
        return measured

    def _reset_peak(self) -> int:
        if self.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def add_part(
        self, stage: str, part: str, option: str, dtype: str, weights: float, work: Work
    ) -> dict[str, Any]:
        """Measure one network's work and print it."""
        measured = self.measure(work)
        row: dict[str, Any] = {"stage": stage, "part": part, "option": option, "dtype": dtype}
        row |= {"weights_gb": weights, **measured}
        if "activations_gb" in measured:
            row["peak_gb"] = weights + measured["activations_gb"]
        self.parts.append(_rounded(row))
        print(_markdown([row.get(key, "") for key in PART_COLUMNS]), flush=True)
        return row


PART_COLUMNS = ("stage", "part", "option", "dtype", "tflop", "seconds", "peak_gb")
RUN_COLUMNS = ("stage", "option", "dtype", "network_calls", "tflop", "seconds", "peak_gb")


def in_format(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network, to compute in `dtype`."""
    nn.Module.to(network, dtype)  # diffusers' own warns of layers to keep in float32: it has none
    return network.eval().requires_grad_(False)


def gigabytes(network: nn.Module) -> float:
    """Of the weights."""
    return sum(each.numel() * each.element_size() for each in network.parameters()) / GIGA


def denoiser_work(
    bench: Bench, unet: VideoUNet, sizes: Sizes, *, batched: bool, reuse: FeatureReuse | None = None
) -> Work:
    """One denoiser call: both halves of guidance."""
    settings, grid = unet.settings, sizes.grid

    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, device=bench.device)

    conditioning = Conditioning(
        empty(1, 1, settings.context_channels),
        empty(1, settings.vector_channels),
        empty(settings.frames, settings.in_channels - 4, grid, grid),
    )
    dtype = next(unet.parameters()).dtype
    denoise = video_denoiser(
        unet,
        conditioning,
        frame_scales(1.0, 2.5, settings.frames),
        device=bench.device,
        dtype=dtype,
        batched=batched,
        reuse=reuse,
    )
    noisy, sigma = empty(settings.frames, 4, grid, grid), torch.ones((), device=bench.device)
    return lambda: denoise(noisy, sigma)


def measure_unet(bench: Bench, sizes: Sizes, dtype: str, compiled: bool) -> dict[Any, Any]:
    """All options of the UNet; returns the rows that runs are made of."""
    rows: dict[Any, Any] = {}
    with bench.network(lambda: build_video_unet(sizes.unet), DTYPES[dtype]) as unet:
        weights = gigabytes(unet)
        options: list[tuple[str, bool, int, FeatureReuse | None]] = [
            ("guidance at once", True, 1, None),
            ("guidance at once, feed-forward in 4", True, 4, None),
            ("guidance split", False, 1, None),
            ("guidance split, feed-forward in 4", False, 4, None),
            # The warm-up is the full call.
            ("guidance at once, features reused", True, 1, FeatureReuse(10**9)),
            ("guidance split, features reused", False, 1, FeatureReuse(10**9)),
        ]
        for option, batched, parts, reuse in options:
            chunk_feed_forward(unet, parts)
            work = denoiser_work(bench, unet, sizes, batched=batched, reuse=reuse)
            rows[option] = bench.add_part(sizes.stage, "UNet step", option, dtype, weights, work)
        chunk_feed_forward(unet, 1)
        if compiled:
            fast: Any = torch.compile(unet)
            work = denoiser_work(bench, fast, sizes, batched=True)
            option = "guidance at once, compiled"
            rows[option] = bench.add_part(sizes.stage, "UNet step", option, dtype, weights, work)
    return rows


def measure_vae(bench: Bench, sizes: Sizes, dtype: str) -> dict[Any, Any]:
    """The autoencoder on 16 frames."""
    rows: dict[Any, Any] = {}
    frames = sizes.unet.frames
    with bench.network(lambda: vae.build_vae(sizes.vae), DTYPES[dtype]) as network:
        images = torch.zeros(
            frames, 3, sizes.pixels, sizes.pixels, device=bench.device, dtype=DTYPES[dtype]
        )
        latents = images.new_zeros(frames, 4, sizes.grid, sizes.grid)
        for at_once in (1, 4, 16):
            for name, work in (
                ("encode", lambda n=at_once: vae.encode_moments(network, images, n)),
                ("decode", lambda n=at_once: vae.decode(network, latents, n)),
            ):
                part, option = f"VAE {name} {frames} frames", f"{at_once} at once"
                rows[name, at_once] = bench.add_part(
                    sizes.stage, part, option, dtype, gigabytes(network), work
                )
    return rows


def measure_others(bench: Bench, sizes: Sizes, dtype: str) -> dict[Any, Any]:
    """What looks at the pictures before the UNet."""
    rows: dict[Any, Any] = {}
    images = torch.zeros(
        sizes.unet.frames,
        3,
        sizes.pixels,
        sizes.pixels,
        device=bench.device,
        dtype=DTYPES[dtype],
    )
    small = shrink_for_depth(images)

    def add(name: str, part: str, option: str, build: Work, work: Callable[[Any], Any]) -> None:
        with bench.network(build, DTYPES[dtype]) as network:
            weights = gigabytes(network)
            rows[name] = bench.add_part(
                sizes.stage, part, option, dtype, weights, lambda: work(network)
            )

    add(
        "clip",
        "CLIP ViT-H",
        "1 picture",
        lambda: image_encoder.build_image_encoder(sizes.encoder),
        lambda network: image_encoder.embed_image(network, images[:1]),
    )
    if sizes.stage == "orbit":
        add(
            "other",
            "aesthetic score",
            "1 picture",
            lambda: aesthetic.build_aesthetic(sizes.aesthetic),
            lambda network: aesthetic.score(network, images[:1]),
        )
    else:
        add(
            "other",
            "DPT-hybrid",
            f"{len(small)} frames, one by one",
            lambda: depth_network.build_depth_network(sizes.depth),
            lambda network: [depth_network.estimate(network, each[None]) for each in small],
        )
    return rows


def run_options() -> list[tuple[str, str, SampleOptions]]:
    """(name, solver, options) of the whole runs."""
    return [
        ("euler", "euler", SampleOptions(guide_at_once=True)),
        ("euler, guidance split", "euler", SampleOptions(guide_at_once=False)),
        ("euler, reuse every 2", "euler", SampleOptions(guide_at_once=True, reuse_every=2)),
        ("euler, reuse every 3", "euler", SampleOptions(guide_at_once=True, reuse_every=3)),
        ("fast", "fast", SampleOptions(guide_at_once=True)),
    ]


def estimate_runs(bench: Bench, sizes: Sizes, dtype: str, rows: dict[Any, Any]) -> None:
    """Whole runs as sums of their parts; one network is on the device at a time."""
    frames = sizes.unet.frames
    encodes = 1 / frames if sizes.stage == "orbit" else 2.0  # of 16 frames each
    fixed = [
        (rows["clip"], 1.0),
        (rows["other"], 1.0),
        (rows["encode", 1], encodes),
        (rows["decode", 1], 1.0),
    ]
    for name, solver, options in run_options():
        steps = SOLVERS[solver].steps
        calls = network_calls(solver, steps)
        guidance = "guidance at once" if options.guide_at_once else "guidance split"
        full = -(-calls // options.reuse_every)
        counted = [*fixed, (rows[guidance], float(full))]
        if calls > full:
            counted.append((rows[f"{guidance}, features reused"], float(calls - full)))
        add_run(
            bench,
            {
                "stage": sizes.stage,
                "option": f"{name}, {steps} steps",
                "dtype": dtype,
                "network_calls": calls,
                "tflop": sum(row["tflop"] * count for row, count in counted),
                "seconds": sum(row["seconds"] * count for row, count in counted),
                "peak_gb": max(row["peak_gb"] for row, _ in counted),
            },
        )


def time_runs(bench: Bench, sizes: Sizes, dtype: str) -> None:
    """Whole runs by the library's own functions."""
    model = random_model(sizes, DTYPES[dtype])
    picture = torch.ones(sizes.pixels, sizes.pixels, 3)
    coarse = torch.ones(model.frames, sizes.pixels // 2, sizes.pixels // 2, 3)
    for name, solver, options in run_options():
        steps = SOLVERS[solver].steps

        def work(solver: str = solver, options: SampleOptions = options) -> None:
            generator = torch.Generator().manual_seed(0)
            where: dict[str, Any] = {"generator": generator, "device": bench.device}
            if sizes.stage == "orbit":
                config = OrbitConfig(size=sizes.pixels, solver=solver, options=options)
                generate_orbit(model, picture, 10.0, config, **where)
            else:
                refined = RefineConfig(size=sizes.pixels, solver=solver, options=options)
                refine_orbit(model, coarse, picture, 10.0, refined, **where)

        measured = bench.measure(work, max(1, bench.repeats // 2))
        row = {
            "stage": sizes.stage,
            "option": f"{name}, {steps} steps",
            "dtype": dtype,
            "network_calls": network_calls(solver, steps),
            **measured,
        }
        if "activations_gb" in row:
            row["peak_gb"] = row.pop("activations_gb")  # weights included: they were on the CPU
        add_run(bench, row)


def random_model(sizes: Sizes, dtype: torch.dtype) -> VideoModel:
    """A stage's networks with random weights on the CPU; the last layers give zeros.

    So nothing overflows along the steps, whose time does not depend on values.
    """
    unet, autoencoder = build_video_unet(sizes.unet), vae.build_vae(sizes.vae)
    for layer in (unet.conv_out, autoencoder.decoder.conv_out, autoencoder.encoder.conv_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    orbit = sizes.stage == "orbit"
    networks = {
        "unet": unet,
        "vae": autoencoder,
        "conditioning_vae": autoencoder,
        "image_encoder": image_encoder.build_image_encoder(sizes.encoder),
        "aesthetic": aesthetic.build_aesthetic(sizes.aesthetic) if orbit else None,
        "depth": None if orbit else depth_network.build_depth_network(sizes.depth),
    }
    for network in networks.values():
        if network is not None:
            in_format(network, dtype)
    return VideoModel("orbit" if orbit else "refiner", **networks)


def add_run(bench: Bench, row: dict[str, Any]) -> None:
    """Keep and print one row of the second table."""
    bench.runs.append(_rounded(row))
    print(_markdown([row.get(key, "") for key in RUN_COLUMNS]), flush=True)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()
    }


def _markdown(cells: list[Any]) -> str:
    shown = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"| {' | '.join(shown)} |"


def print_header(title: str, columns: tuple[str, ...]) -> None:
    """A Markdown table's first lines."""
    print(f"\n{title}\n")
    print(_markdown([column.replace("_", " ") for column in columns]))
    print(f"|{' --- |' * len(columns)}")


def machine(device: torch.device) -> dict[str, object]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    found: dict[str, object] = {
        "device": device.type,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit,
    }
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    elif device.type != "meta":
        found["processor"] = platform.processor() or platform.machine()
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "meta")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=None)
    parser.add_argument("--stages", nargs="+", choices=("orbit", "refiner"), default=None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="also torch.compile (minutes)")
    parser.add_argument("--tiny", action="store_true", help="narrow networks, to try the benchmark")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    bench = Bench(torch.device(arguments.device), arguments.repeats)
    # Both half formats are of the same size and speed: one estimate is enough.
    dtypes = arguments.dtypes or (["fp16", "fp32"] if bench.estimates else list(DTYPES))
    stages = arguments.stages or ["orbit", "refiner"]
    sizes = {stage: (tiny if arguments.tiny else released)(stage) for stage in stages}

    title = "ESTIMATE, nothing was run" if bench.estimates else f"Measured on {bench.device}"
    print_header(f"{title}: the networks one by one", PART_COLUMNS)
    rows = {}
    for stage in stages:
        for dtype in dtypes:
            rows[stage, dtype] = {
                **measure_unet(bench, sizes[stage], dtype, arguments.compiled),
                **measure_vae(bench, sizes[stage], dtype),
                **measure_others(bench, sizes[stage], dtype),
            }
    print_header(f"{title}: whole runs", RUN_COLUMNS)
    for (stage, dtype), measured in rows.items():
        if bench.estimates:
            estimate_runs(bench, sizes[stage], dtype, measured)
        else:
            time_runs(bench, sizes[stage], dtype)

    results: dict[str, object] = {
        "estimate": bench.estimates,
        "machine": machine(bench.device),
        "tiny": arguments.tiny,
    }
    if bench.estimates:
        results["assumed_card"] = {"class": "H200", **dataclasses.asdict(H200_CLASS)}
        results["note"] = (
            "seconds are a roofline over all operations of the meta device, without moving "
            "weights; attention counts as one fused kernel; memory is that of tensors alive at once"
        )
    else:
        results["repeats"] = arguments.repeats
    results |= {"parts": bench.parts, "runs": bench.runs}
    out = arguments.out or ROOT / "benchmarks" / "results" / (
        f"sampling_{'estimate' if bench.estimates else bench.device.type}.json"
    )
    if arguments.tiny and arguments.out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwrote {out}")


if __name__ == "__main__":
    main()
