"""The contact sheet: each picture in its cell, in its colours and its shape."""

import numpy as np
import pytest
import torch

from hi3d_core.contact_sheet import contact_sheet


def find(sheet: np.ndarray, color) -> tuple[int, int, int, int]:
    """Box (top, bottom, left, right) of the pixels of exactly one colour."""
    rows, columns = np.nonzero((sheet == np.array(color)).all(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def test_pictures_lie_in_rows_and_columns_below_their_labels():
    red, green = torch.zeros(2, 10, 10, 3), torch.zeros(1, 10, 20, 3)
    red[0, ..., 0] = 1
    red[1, ..., 0] = 0.6
    green[..., 1] = 1
    sheet = np.asarray(contact_sheet([("first", red), ("second", green.numpy())], size=40))
    first, second = find(sheet, (255, 0, 0)), find(sheet, (153, 0, 0))
    wide = find(sheet, (0, 255, 0))
    assert first[1] - first[0] == first[3] - first[2] == 40
    assert (first[0], first[1]) == (second[0], second[1])
    assert second[2] >= first[3]
    assert wide[0] >= first[1]
    # A picture twice as wide as high keeps its shape.
    assert (wide[3] - wide[2], wide[1] - wide[0]) == (40, 20)
    assert (sheet[: first[0]] < 128).any()  # ink of the label above the row
    assert (sheet[first[1] : wide[0]] < 128).any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([("a", torch.zeros(0, 4, 4, 3))], "row 'a'"),
        ([("a", torch.zeros(4, 4, 3))], "row 'a'"),
        ([("a", np.zeros((2, 4, 4, 1)))], "row 'a'"),
    ],
)
def test_refuses(rows, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(rows)
