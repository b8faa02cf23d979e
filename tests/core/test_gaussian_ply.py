"""Splat files: the round trip, a reader of our own making, and hostile files."""

import struct

import pytest
import torch

from hi3d_core.datatypes import Gaussians
from hi3d_core.export.gaussian_ply import read_gaussian_ply, write_gaussian_ply


def a_splat(count=7, terms=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=g),
        scales=torch.exp(torch.randn(count, 3, generator=g) * 2 - 4),
        quaternions=torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        opacities=torch.rand(count, generator=g),
        sh=torch.randn(count, terms, 3, generator=g),
    )


def assert_same(ours, theirs, atol=1e-6):
    for name in ("means", "quaternions", "opacities", "sh"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=atol, rtol=1e-6)
    torch.testing.assert_close(ours.scales, theirs.scales, atol=0, rtol=2e-6)


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("terms", [1, 4, 9, 16])
def test_round_trip(tmp_path, count, terms):
    splat = a_splat(count, terms)
    write_gaussian_ply(splat, tmp_path / "a.ply")
    back = read_gaussian_ply(tmp_path / "a.ply")
    assert_same(back, splat)
    # Means and colours are stored as they are.
    assert torch.equal(back.means, splat.means)
    assert torch.equal(back.sh, splat.sh)


def test_opacities_0_and_1_survive(tmp_path):
    splat = a_splat(3)
    splat = Gaussians(
        splat.means, splat.scales, splat.quaternions, torch.tensor([0.0, 1.0, 0.999]), splat.sh
    )
    write_gaussian_ply(splat, tmp_path / "a.ply")
    assert_same(read_gaussian_ply(tmp_path / "a.ply"), splat)


def test_bytes_by_an_independent_reader(tmp_path):
    """The layout as the viewers know it, unpacked by hand."""
    splat = a_splat(5, terms=4)
    write_gaussian_ply(splat, tmp_path / "a.ply")
    header, data = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 5"]
    names = [line.removeprefix("property float ") for line in lines[3:]]
    first = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    last = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert names == [*first, *(f"f_rest_{k}" for k in range(9)), *last]
    for n, values in enumerate(struct.iter_unpack(f"<{len(names)}f", data)):
        row = dict(zip(names, values, strict=True))
        assert [row[k] for k in "xyz"] == pytest.approx(splat.means[n].tolist())
        assert [row["nx"], row["ny"], row["nz"]] == [0, 0, 0]
        # f_rest_0..2 are red's three terms of degree 1, then come green's, then blue's.
        for channel in range(3):
            for term in range(3):
                assert row[f"f_rest_{3 * channel + term}"] == float(splat.sh[n, 1 + term, channel])
        logit = torch.tensor(row["opacity"])
        assert float(torch.sigmoid(logit)) == pytest.approx(float(splat.opacities[n]), abs=1e-6)
        for k in range(3):
            assert row[f"scale_{k}"] == pytest.approx(float(splat.scales[n, k].log()), rel=1e-5)
        assert [row[f"rot_{k}"] for k in range(4)] == splat.quaternions[n].tolist()


def test_trimesh_reads_the_points(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    splat = a_splat(20)
    write_gaussian_ply(splat, tmp_path / "a.ply")
    cloud = trimesh.load(tmp_path / "a.ply", process=False)
    torch.testing.assert_close(torch.tensor(cloud.vertices).float(), splat.means)


def test_doubles_another_order_and_more_properties_are_read(tmp_path):
    splat = a_splat(2)
    names = ["rot_3", "rot_2", "rot_1", "rot_0", "opacity", "f_dc_2", "f_dc_1", "f_dc_0"]
    names += ["scale_0", "scale_1", "scale_2", "z", "y", "x"]
    header = "ply\nformat binary_little_endian 1.0\ncomment by hand\nelement vertex 2\n"
    header += "property uchar flag\n" + "".join(f"property double {n}\n" for n in names)
    data = b""
    for n in range(2):
        row = {f"rot_{k}": 3.0 * splat.quaternions[n, k] for k in range(4)}  # not of unit length
        row |= {f"f_dc_{k}": splat.sh[n, 0, k] for k in range(3)}
        row |= {f"scale_{k}": splat.scales[n, k].log() for k in range(3)}
        row |= dict(zip("xyz", splat.means[n], strict=True))
        row["opacity"] = torch.logit(splat.opacities[n])
        data += struct.pack("<B14d", 7, *(float(row[name]) for name in names))
    (tmp_path / "a.ply").write_bytes(header.encode() + b"end_header\n" + data)
    assert_same(read_gaussian_ply(tmp_path / "a.ply"), splat)


def written(tmp_path, change):
    path = tmp_path / "a.ply"
    write_gaussian_ply(a_splat(6), path)
    path.write_bytes(change(path.read_bytes()))
    return path


HOSTILE = {
    "empty": lambda b: b"",
    "not a PLY": lambda b: b"solid stl\n" + b,
    "no end of the header": lambda b: b[:90],
    "endless header line": lambda b: b"ply\n" + b"x" * 200_000,
    "endless header": lambda b: b"ply\n" + b"comment\n" * 200_000,
    "cut off by a byte": lambda b: b[:-1],
    "cut off by half": lambda b: b[: len(b) // 2],
    "a byte too many": lambda b: b + b"\0",
    "claims more": lambda b: b.replace(b"vertex 6", b"vertex 7"),
    "claims fewer": lambda b: b.replace(b"vertex 6", b"vertex 5"),
    "claims a terabyte": lambda b: b.replace(b"vertex 6", b"vertex 20000000000"),
    "claims more than any integer": lambda b: b.replace(b"vertex 6", b"vertex 6" + b"0" * 100),
    "negative count": lambda b: b.replace(b"vertex 6", b"vertex -6"),
    "no count": lambda b: b.replace(b"vertex 6", b"vertex"),
    "a mesh": lambda b: b.replace(b"vertex 6", b"vertex 6\nelement face 2"),
    "text": lambda b: b.replace(b"binary_little_endian", b"ascii"),
    "big endian": lambda b: b.replace(b"binary_little_endian", b"binary_big_endian"),
    "a list": lambda b: b.replace(b"property float nx", b"property list uchar int nx"),
    "unknown type": lambda b: b.replace(b"property float nx", b"property half nx"),
    "integer scale": lambda b: b.replace(b"property float scale_0", b"property int scale_0"),
    "no opacity": lambda b: b.replace(b"float opacity", b"float opaqueness"),
    "twice the same": lambda b: b.replace(b"float ny", b"float nx"),
    "strange spherical harmonics": lambda b: b.replace(b"float nx", b"float f_rest_0"),
    "misnumbered spherical harmonics": lambda b: b.replace(b"f_dc_2", b"f_dc_7"),
    "NaN": lambda b: b[:-68] + struct.pack("<f", float("nan")) + b[-64:],
    "all NaN": lambda b: b[: -6 * 68] + struct.pack("<f", float("nan")) * 6 * 17,
    "infinite scale": lambda b: b[:-28] + struct.pack("<f", 1e30) + b[-24:],
    "no rotation": lambda b: b[:-16] + bytes(16),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    path = written(tmp_path, HOSTILE[name])
    with pytest.raises(ValueError, match=r"a\.ply"):
        read_gaussian_ply(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match="not a file"):
        read_gaussian_ply(tmp_path / "none.ply")
    with pytest.raises(ValueError, match="not a file"):
        read_gaussian_ply(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        write_gaussian_ply(a_splat(), tmp_path / "no" / "a.ply")


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.ply"
    write_gaussian_ply(a_splat(seed=1), path)
    before = path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_gaussian_ply(a_splat(seed=2), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
