"""What `--set` takes and what it refuses."""

import argparse

import pytest

from hi3d_core.commands.unseen_settings import add_unseen_argument


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_unseen_argument(parser)
    return parser.parse_args(words).set


def test_settings_are_gathered_by_network():
    words = ("--set", "unet.head_channels=8", "--set", "depth.heads=2")
    assert parsed(*words) == {"unet": {"head_channels": 8}, "depth": {"heads": 2}}
    assert parsed() is None


@pytest.mark.parametrize(
    "word",
    [
        "unet.head_channels",
        "unet.head_channels=",
        "unet.head_channels=-8",
        "unet.head_channels=0",
        "unet.heads=8",
        "network.heads=8",
        "heads=8",
    ],
)
def test_what_nothing_would_read_is_refused(word, capsys):
    with pytest.raises(SystemExit):
        parsed("--set", word)
    assert "expected NETWORK.SETTING=NUMBER" in capsys.readouterr().err
