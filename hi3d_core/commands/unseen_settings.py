"""`--set NETWORK.SETTING=NUMBER`: what the shapes in a checkpoint of another width can't tell."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_KNOWN = ("unet.head_channels", "image_encoder.heads", "aesthetic.heads", "depth.heads")


class _AddSetting(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        name, _, number = str(values).partition("=")
        if name not in _KNOWN or not number.isdecimal() or int(number) < 1:
            parser.error(
                f"--set {values}: expected NETWORK.SETTING=NUMBER, the number 1 or more and the "
                f"name one of {', '.join(_KNOWN)}"
            )
        network, _, setting = name.partition(".")
        settings = {
            name: dict(each) for name, each in (getattr(namespace, self.dest) or {}).items()
        }
        settings.setdefault(network, {})[setting] = int(number)
        setattr(namespace, self.dest, settings)


def add_unseen_argument(parser: argparse._ActionsContainer) -> None:
    """Declare `--set`; its value is a dictionary of dictionaries, or None."""
    parser.add_argument(
        "--set",
        action=_AddSetting,
        metavar="NETWORK.SETTING=NUMBER",
        help="for official checkpoints of another width than the released: "
        f"{', '.join(_KNOWN)} (may be given several times)",
    )
