"""The training loop in one process: a run that stops and goes on is the run that did not stop."""

import json
import os
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hi3d_core.weights import write
from training.engine.averages import Averages
from training.engine.checkpoint_folder import checkpoints_in
from training.engine.config_changes import check_unchanged
from training.engine.dry_run import dry_run
from training.engine.loop import train
from training.engine.prepared import NonFiniteLoss, prepare, take_step
from training.engine.run_log import picture_grid

from .engine_recipes import DropoutRecipe, SineRecipe, everything, settings


class StopAt(SineRecipe):
    """Fails in the middle of a step, as a machine does."""

    def __init__(self, step, error=RuntimeError):
        super().__init__()
        self._stop_at, self._error = step, error

    def loss(self, batch):
        if self.seen[-1][0] == self._stop_at:
            raise self._error
        return super().loss(batch)


def run(folder, recipe=None, train_=None, **options):
    recipe = recipe or SineRecipe()
    outcome = train(recipe, settings(train_), folder, quiet=True, **options)
    return recipe, outcome


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items())


def files_of(folder, step):
    at = folder / "checkpoints" / f"step_{step:07d}"
    return {path.name: path.read_bytes() for path in at.iterdir()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_is_unbroken(tmp_path, accumulate):
    chosen = {"accumulate": accumulate}
    whole, _ = run(tmp_path / "whole", train_=chosen)
    with pytest.raises(RuntimeError):
        run(tmp_path / "broken", StopAt(7), chosen)
    resumed, outcome = run(tmp_path / "broken", train_=chosen, resume="must")
    assert outcome.steps == 12
    assert resumed.seen[0][0] == 4  # the checkpoint, not the step at which it broke
    assert same(everything(whole), everything(resumed))
    # Averages, moments and counters too, in every bit.
    assert files_of(tmp_path / "whole", 12) == files_of(tmp_path / "broken", 12)
    lines = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "broken")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == list(range(1, 13))


def test_dropout_and_running_means_resume_too(tmp_path):
    whole, _ = run(tmp_path / "whole", DropoutRecipe())
    run(tmp_path / "parts", DropoutRecipe(), {"steps": 5, "save_every": 5})
    # A cosine that ends at 5 steps would differ: only the number of steps done is the same.
    with pytest.raises(ValueError, match=r"train.steps: 5 -> 12"):
        run(tmp_path / "parts", DropoutRecipe(), resume="must")
    chosen = {"steps": 12, "save_every": 4}
    twin = DropoutRecipe()
    twin_settings = settings(chosen)

    class Broken(DropoutRecipe):
        def batch(self, step, rank, world):
            if step == 9:
                raise KeyError(step)
            return super().batch(step, rank, world)

    with pytest.raises(KeyError):
        train(Broken(), twin_settings, tmp_path / "twin", quiet=True)
    train(twin, twin_settings, tmp_path / "twin", resume="must", quiet=True)
    assert same(everything(whole), everything(twin))
    assert not torch.equal(everything(whole)["1.running_mean"], torch.zeros(8))


def test_parts_of_a_batch_are_the_batch(tmp_path):
    one, _ = run(tmp_path / "one")
    for parts in (2, 4):
        cut, _ = run(tmp_path / f"{parts}", train_={"accumulate": parts})
        for name, value in everything(one).items():
            torch.testing.assert_close(everything(cut)[name], value, rtol=0, atol=1e-5)
        assert cut.seen[:parts] == [(0, part, parts) for part in range(parts)]


def test_it_is_adamw_with_clipping_and_a_warm_up(tmp_path):
    """A plain loop, written out."""
    ours, _ = run(tmp_path)
    twin, chosen = SineRecipe(), settings()
    optimizer = torch.optim.AdamW(
        twin.network.parameters(), lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01
    )
    rates = [json.loads(each)["learning_rate"] for each in (tmp_path / "log.jsonl").open()]
    average = {name: value.clone() for name, value in everything(twin).items()}
    for step in range(12):
        optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.zero_grad()
        twin.loss(twin.batch(step, 0, 1))[0].backward()
        torch.nn.utils.clip_grad_norm_(twin.network.parameters(), 1.0)
        optimizer.step()
        decay = min(chosen.train.ema_decay, (1 + step) / (10 + step))
        for name, value in everything(twin).items():
            average[name] = decay * average[name] + (1 - decay) * value
    assert rates[:6] == pytest.approx([0.004, 0.008, 0.012, 0.016, 0.02, 0.02])
    for name, value in everything(twin).items():
        torch.testing.assert_close(everything(ours)[name], value, rtol=0, atol=1e-6)
    written = load_file(tmp_path / "checkpoints" / "step_0000012" / "ema.safetensors")
    for name, value in average.items():
        torch.testing.assert_close(written[f"unet.{name}"], value, rtol=0, atol=1e-6)


def test_without_clipping_gradients_stay(tmp_path):
    free, _ = run(tmp_path / "free", train_={"clip_norm": 0.0})
    wide, _ = run(tmp_path / "wide", train_={"clip_norm": 1e6})
    tight, _ = run(tmp_path / "tight", train_={"clip_norm": 1e-3})
    assert same(everything(free), everything(wide))
    assert not same(everything(free), everything(tight))


def test_files_are_safe_and_named_as_the_recipe_names_them(tmp_path):
    recipe, _ = run(tmp_path)
    at = tmp_path / "checkpoints" / "step_0000012"
    names = ["ema.safetensors", "training.json", "training.safetensors", "weights.safetensors"]
    assert sorted(path.name for path in at.iterdir()) == names
    assert same(load_file(at / "weights.safetensors"), recipe.state())
    for name in ("weights", "ema"):
        with safe_open(at / f"{name}.safetensors", framework="pt") as file:
            assert file.metadata()["hi3d_stage"] == "orbit"
            assert file.metadata()["hi3d_step"] == "12"
    # Weights lie once on the disk, not a second time beside the moments.
    with safe_open(at / "training.safetensors", framework="pt") as file:
        assert all(name.startswith("optimizer.") for name in file.keys())  # noqa: SIM118
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints_in(folder)] == ["step_0000008", "step_0000012"]


def test_weights_in_another_form_are_kept_exactly(tmp_path):
    class Half(SineRecipe):
        def state(self):
            return {name: each.half() for name, each in super().state().items()}

    whole, _ = run(tmp_path / "whole", Half())

    class Broken(Half, StopAt):
        pass

    with pytest.raises(RuntimeError):
        run(tmp_path / "broken", Broken(6))
    resumed, _ = run(tmp_path / "broken", Half(), resume="must")
    assert same(everything(whole), everything(resumed))
    written = load_file(tmp_path / "whole" / "checkpoints" / "step_0000012" / "ema.safetensors")
    assert {each.dtype for each in written.values()} == {torch.float16}


@pytest.mark.parametrize("nth", range(3))
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, nth):
    real, count = write._bytes_of, [0]

    def full(name, pending):
        if count[0] >= 12 + 4 * nth + 2:  # in the second checkpoint: each file in its turn
            raise OSError(28, "No space left on device")
        count[0] += 1
        return real(name, pending)

    whole, _ = run(tmp_path / "whole")
    # 4 weights, 4 averages and 3 x 4 moments a checkpoint: let the first one through.
    count[0] = -8
    monkeypatch.setattr(write, "_bytes_of", full)
    with pytest.raises(OSError, match=r"step 8 can't be written .*No space left.*--resume"):
        run(tmp_path / "broken")
    folder = tmp_path / "broken" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step_0000004"]
    monkeypatch.undo()
    resumed, _ = run(tmp_path / "broken", resume="must")
    assert same(everything(whole), everything(resumed))


def test_a_checkpoint_shows_itself_only_when_it_is_whole(tmp_path, monkeypatch):
    """A kill can come at any moment: at none of them half a checkpoint may be found."""
    real, looks = write._bytes_of, []

    def looking(name, pending):
        found = checkpoints_in(tmp_path / "checkpoints")
        looks.append(len(found))
        assert all(len(list(each.iterdir())) == 4 for each in found)
        return real(name, pending)

    monkeypatch.setattr(write, "_bytes_of", looking)
    run(tmp_path)
    assert sorted(set(looks)) == [0, 1, 2]


def test_what_a_kill_left_is_swept(tmp_path):
    run(tmp_path, train_={"steps": 4})
    left = tmp_path / "checkpoints" / ".hi3d-0123456789abcdef"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.0}\n{"step": 1')
    run(tmp_path, train_={"steps": 4}, resume="must")
    assert not left.exists()
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()]
    assert steps == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_names_its_term(tmp_path):
    class Bad(SineRecipe):
        def loss(self, batch):
            loss, terms = super().loss(batch)
            if self.seen[-1][0] == 6:
                return loss * float("nan"), {**terms, "size": float("nan")}
            return loss, terms

    recipe = Bad()
    with pytest.raises(NonFiniteLoss, match=r"step 6: size is nan. Nothing"):
        run(tmp_path, recipe)
    folder = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints_in(folder)] == ["step_0000004"]
    assert all(bool(torch.isfinite(each).all()) for each in everything(recipe).values())


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path):
    class Steep(SineRecipe):
        def loss(self, batch):
            loss, terms = super().loss(batch)
            # The root's slope at 0 is infinite, its value is 0; times 0 that is no number.
            return loss + (self.network[3].bias * 0).square().sum().sqrt(), terms

    recipe = Steep()
    before = everything(recipe)
    with pytest.raises(NonFiniteLoss, match=r"gradient's length is nan"):
        run(tmp_path, recipe)
    assert same(before, everything(recipe))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint(tmp_path, kind):
    class Interrupted(SineRecipe):
        def batch(self, step, rank, world):
            if step == 5:
                os.kill(os.getpid(), kind)
            return super().batch(step, rank, world)

    whole, _ = run(tmp_path / "whole")
    before = signal.getsignal(kind)
    _, outcome = run(tmp_path / "broken", Interrupted())
    assert signal.getsignal(kind) is before
    assert outcome.steps == 6
    assert outcome.reason == f"stopped by {kind.name}"
    assert outcome.checkpoint.name == f"step_{outcome.steps:07d}"
    resumed, _ = run(tmp_path / "broken", resume="must")
    assert same(everything(whole), everything(resumed))


def test_a_second_interrupt_stops_at_once(tmp_path):
    class Impatient(SineRecipe):
        def batch(self, step, rank, world):
            if step == 5:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().batch(step, rank, world)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Impatient())
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == ["step_0000004"]


def test_the_time_is_up(tmp_path):
    whole, _ = run(tmp_path / "whole")
    slices = 0
    while True:
        resumed, outcome = run(tmp_path / "sliced", minutes=0.0, resume="can")
        slices += 1
        if outcome.reason is None:
            break
        assert outcome.reason == "the time is up"
    assert slices == 12
    assert same(everything(whole), everything(resumed))


def test_resuming_is_said_and_possible(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint to resume"):
        run(tmp_path, resume="must")
    run(tmp_path, train_={"steps": 4})
    with pytest.raises(ValueError, match=r"--resume"):
        run(tmp_path, train_={"steps": 4})
    with pytest.raises(ValueError, match=r"train.ema_decay: 0.9 -> 0.5"):
        run(tmp_path, train_={"steps": 4, "ema_decay": 0.5}, resume="must", allow_changed=True)
    with pytest.raises(ValueError, match=r"train.steps: 4 -> 6"):
        run(tmp_path, train_={"steps": 6}, resume="must")
    _, outcome = run(tmp_path, train_={"steps": 6}, resume="must", allow_changed=True)
    assert outcome.steps == 6


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path, train_={"steps": 4})
    at = tmp_path / "checkpoints" / "step_0000004"
    for name in ("weights.safetensors", "training.safetensors", "training.json"):
        good = (at / name).read_bytes()
        (at / name).write_bytes(good[: len(good) // 2])
        with pytest.raises(ValueError, match=name):
            run(tmp_path, train_={"steps": 4}, resume="must")
        (at / name).write_bytes(good)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run(tmp_path, train_={"steps": 4})
    other = SineRecipe()
    other.network[3] = torch.nn.Linear(16, 2)
    with pytest.raises(ValueError, match=r"of another network"):
        run(tmp_path, other, {"steps": 4}, resume="must")


def test_a_dry_run_writes_nothing(tmp_path):
    recipe = SineRecipe()
    text = dry_run(recipe, settings(), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    assert "trained: 49 parameters in 4 tensors" in text
    first = SineRecipe()
    loss = float(first.loss(first.batch(0, 0, 1))[0].detach())
    assert f"loss {loss:.6g}" in text
    for word in ("weights.safetensors", "ema.safetensors", "nothing was written"):
        assert word in text
    assert [step for step, _, _ in recipe.seen] == [0]


def test_samples_are_of_the_averages_and_leave_the_weights(tmp_path):
    seen = []

    class Watching(SineRecipe):
        def samples(self):
            seen.append(everything(self))
            return super().samples()

    plain, _ = run(tmp_path / "plain")
    watched, _ = run(tmp_path / "watched", Watching(), {"samples_every": 4})
    assert same(everything(plain), everything(watched))
    folder = tmp_path / "watched"
    drawn = sorted(path.name for path in (folder / "samples").iterdir())
    assert drawn == ["step_0000004.png", "step_0000008.png", "step_0000012.png"]
    written = load_file(folder / "checkpoints" / "step_0000012" / "ema.safetensors")
    assert same({f"unet.{name}": each for name, each in seen[-1].items()}, written)


def test_pictures_lie_row_by_row():
    pictures = torch.arange(5)[:, None, None, None].expand(5, 2, 3, 3).numpy() / 255.0
    grid = picture_grid(pictures)
    assert grid.shape == (4, 9, 3)
    assert grid[::2, ::3, 0].tolist() == [[0, 1, 2], [3, 4, 0]]


def test_without_tensorboard_there_is_the_log_of_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("training.engine.run_log.is_available", lambda module: False)
    run(tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 12


def test_tensorboard_gets_the_same_numbers(tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the package tensorboard",
    )
    run(tmp_path, train_={"samples_every": 12})
    board = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    for name in ("loss", "fit", "learning_rate", "gradient_norm"):
        told = [(event.step, event.value) for event in board.Scalars(name)]
        assert told == [(line["step"], pytest.approx(line[name])) for line in lines]
    assert len(board.Images("samples")) == 1


def test_averages_are_swapped_in_and_out_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.nn.Parameter(torch.randn(7, generator=generator) * 1e-3)}
    averages = Averages(weights, 0.5, warm_up=False)
    first = weights["a"].detach().clone()
    with torch.no_grad():
        weights["a"].add_(1)
    second = weights["a"].detach().clone()
    averages.update(weights, 0)
    with averages.swapped_in(weights):
        torch.testing.assert_close(weights["a"].detach(), (first + second) / 2)
    assert torch.equal(weights["a"].detach(), second)
    assert [averages.decay(step) for step in (0, 100)] == [0.5, 0.5]


def test_a_step_is_told_the_stop(tmp_path):
    ready = prepare(SineRecipe(), settings())
    assert not take_step(ready, 0).stop
    assert take_step(ready, 1, stop=lambda: True).stop


def test_networks_without_anything_to_train_are_refused(tmp_path):
    frozen = SineRecipe()
    frozen.network.requires_grad_(False)
    with pytest.raises(ValueError, match=r"requires_grad"):
        run(tmp_path, frozen)


def test_settings_in_the_folder_are_those_of_the_run(tmp_path):
    run(tmp_path)
    told = json.loads((tmp_path / "settings.json").read_text())
    assert check_unchanged(told, settings(), False) == []
