"""What a training leaves for its watcher: a log, a picture of it and, if asked, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from codec.constants import SAMPLE_RATE
from streaming.errors import SettingsError
from training.curves import draw_curves, read_log

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Report", "need_tensorboard"]


def need_tensorboard() -> type[SummaryWriter]:
    """TensorBoard's writer; SettingsError if the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            "--tensorboard needs the package tensorboard; install it with "
            "pip install '.[tensorboard]', or leave the option out: curves.png shows the same"
        ) from error
    return SummaryWriter


class Report:
    """The log of one run, from step ``first`` on: what was logged beyond it is written anew."""

    def __init__(self, folder: Path, first: int, tensorboard: bool = False) -> None:
        self.folder = folder
        self.log = folder / "log.jsonl"
        if self.log.exists():
            rows = [row for row in read_log(folder) if row["step"] <= first]
            self.log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.board = None
        if tensorboard:
            self.board = need_tensorboard()(str(folder), purge_step=first + 1)

    def row(self, row: Mapping[str, float]) -> None:
        """One line: ``step`` and figures by name."""
        with self.log.open("a") as log:
            log.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                group = "validation" if name.startswith("valid_") else "training"
                if name != "step":
                    label = f"{group}/{name.removeprefix('valid_')}"
                    self.board.add_scalar(label, value, int(row["step"]))

    def sounds(self, step: int, sounds: Mapping[str, Tensor]) -> None:
        """Samples ``[2, n]`` by name, for TensorBoard; the files are there already."""
        if self.board is not None:
            for name, sound in sounds.items():
                self.board.add_audio(name, sound.mean(dim=0), step, SAMPLE_RATE)

    def saved(self) -> None:
        """Bring the picture up to date."""
        if self.log.exists():
            draw_curves(self.folder)

    def close(self) -> None:
        """Close the board's log, if there is one."""
        if self.board is not None:
            self.board.close()
