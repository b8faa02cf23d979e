import pytest

from hi3d_core.progress import Progress


def test_parts_count_on_from_where_they_begin():
    told: list[tuple[int, int]] = []
    progress = Progress(lambda done, total: told.append((done, total)), 10)
    progress.step()
    part = progress.part()
    part(1, 3)
    part(3, 3)
    progress.alive()
    progress.step()
    progress.finish()
    assert told == [(1, 10), (2, 10), (4, 10), (4, 10), (5, 10), (10, 10)]


def test_nobody_need_listen_and_any_call_may_cancel():
    silent = Progress(None, 2)
    silent.step()
    silent.finish()

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for call in ("step", "alive", "finish"):
        with pytest.raises(KeyboardInterrupt):
            getattr(Progress(cancel, 2), call)()
