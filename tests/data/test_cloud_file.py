"""All formats there and back, and all that can be wrong with a file."""

import struct
import sys

import numpy as np
import pytest

from perception3d.data.cloud_file import find_clouds, read_cloud
from perception3d.data.pcd import decompress_lzf
from perception3d.errors import UserError


def scan(num_points=500, seed=0):
    """A flat street with walls: (P, 4) x, y, z m, intensity 0..255."""
    rng = np.random.default_rng(seed)
    points = np.empty((num_points, 4), dtype=np.float32)
    points[:, 0] = rng.normal(0, 20, num_points)
    points[:, 1] = rng.normal(0, 20, num_points)
    points[:, 2] = rng.normal(-1.8, 0.1, num_points)
    points[:, 3] = rng.integers(0, 120, num_points)
    return points


def refused(path, *named, **options):
    with pytest.raises(UserError) as caught:
        read_cloud(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    for part in (str(path), *named):
        assert part in text, text


def write(path, content):
    path.write_bytes(content)
    return path


# .bin


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (lambda n, rng: [], ("x", "y", "z", "intensity")),
        (lambda n, rng: [rng.integers(0, 32, n)], ("x", "y", "z", "intensity", "ring")),
        (lambda n, rng: [rng.integers(0, 10, n) * 0.05], ("x", "y", "z", "intensity", "time")),
        (lambda n, rng: [np.zeros(n)], ("x", "y", "z", "intensity", "time")),
        (
            lambda n, rng: [rng.random(n), np.full(n, -1.0)],
            ("x", "y", "z", "intensity", "time", "?"),
        ),
    ],
)
@pytest.mark.parametrize("num_points", [60, 6000])  # divide by 4, 5 and 6
def test_bin_columns_are_guessed_from_the_content(tmp_path, extra, names, num_points):
    rng = np.random.default_rng(1)
    points = np.column_stack([scan(num_points), *extra(num_points, rng)]).astype(np.float32)
    cloud = read_cloud(write(tmp_path / "a.bin", points.tobytes()))
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.columns == names
    assert cloud.num_dropped == 0


def test_bin_columns_are_taken_as_told(tmp_path):
    points = scan(60)
    path = write(tmp_path / "a.bin", points.tobytes())
    assert read_cloud(path, columns=3).points.shape == (80, 3)
    assert read_cloud(path, columns=3).columns == ("x", "y", "z")
    refused(path, "240 numbers do not divide into 7 columns", columns=7)
    with pytest.raises(UserError, match="--columns 2: a point has at least 3 columns"):
        read_cloud(path, columns=2)


def test_bin_that_fits_no_column_count(tmp_path):
    path = write(tmp_path / "a.bin", np.zeros(7 * 11, np.float32).tobytes())
    refused(path, "77 numbers", "(4, 5, 6)", "--columns")
    refused(write(tmp_path / "b.bin", b"x" * 1601), "1601 bytes", "truncated")


# arrays


def test_npy(tmp_path):
    points = scan()
    np.save(tmp_path / "a.npy", points.astype(np.float64))
    cloud = read_cloud(tmp_path / "a.npy")
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.points.dtype == np.float32


def test_npy_with_named_fields(tmp_path):
    table = np.zeros(5, dtype=[("X", "f8"), ("Y", "f8"), ("Z", "f8"), ("Reflectivity", "u2")])
    table["Z"], table["Reflectivity"] = -1.5, 300
    np.save(tmp_path / "a.npy", table)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.npy").points, [[0, 0, -1.5, 300]] * 5)


@pytest.mark.parametrize("entries", [("points",), ("anything",), ("points", "labels")])
def test_npz(tmp_path, entries):
    points = scan()
    arrays = {name: points if name != "labels" else np.zeros(3) for name in entries}
    np.savez(tmp_path / "a.npz", **arrays)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.npz").points, points)


def test_npz_with_several_entries_names_them(tmp_path):
    np.savez(tmp_path / "a.npz", first=scan(), second=scan())
    refused(tmp_path / "a.npz", "'points'", "first, second")


@pytest.mark.parametrize("shape", [(5,), (5, 2), (2, 5, 4)])
def test_npy_of_another_shape(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    refused(tmp_path / "a.npy", str(shape), "x, y, z")


def test_npy_of_other_content(tmp_path):
    np.save(tmp_path / "a.npy", np.full((4, 4), "text"))
    refused(tmp_path / "a.npy", "<U4")
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "b.npy", "Python objects")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_cut_arrays(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    np.save(path, scan()) if kind == "npy" else np.savez(path, scan())
    refused(write(path, path.read_bytes()[:3000]), "truncated")
    refused(write(path, b"not an array at all"), kind)


# PCD

PCD_HEADER = (
    "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z {name} normal\nSIZE 4 4 8 1 4\nTYPE F F F U F\n"
    "COUNT 1 1 1 1 3\nWIDTH {n}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA {data}\n"
)
PCD_ROW = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f8"), ("i", "u1"), ("normal", "<f4", (3,))])


def pcd(data, points, name="intensity"):
    table = np.zeros(len(points), dtype=PCD_ROW)
    for column, key in enumerate(("x", "y", "z", "i")):
        table[key] = points[:, column]
    table["normal"] = 7.0
    header = PCD_HEADER.format(n=len(points), data=data, name=name).encode()
    if data == "ascii":
        rows = [
            " ".join([*(repr(float(v)) for v in row[:3]), str(int(row[3])), "7 7 7"])
            for row in points
        ]
        return header + "\n".join(rows).encode()
    if data == "binary":
        return header + table.tobytes()
    content = b"".join(np.ascontiguousarray(table[key]).tobytes() for key in table.dtype.names)
    # all literals: valid LZF that needs no compressor
    packed = b"".join(
        bytes([len(content[i : i + 32]) - 1]) + content[i : i + 32]
        for i in range(0, len(content), 32)
    )
    return header + struct.pack("<II", len(packed), len(content)) + packed


ENCODINGS = ("ascii", "binary", "binary_compressed")


@pytest.mark.parametrize("data", ENCODINGS)
@pytest.mark.parametrize("name", ["intensity", "I", "reflectivity"])
def test_pcd(tmp_path, data, name):
    points = scan()
    cloud = read_cloud(write(tmp_path / "a.pcd", pcd(data, points, name)))
    np.testing.assert_array_equal(cloud.points, points)
    assert cloud.columns == ("x", "y", "z", "intensity")


@pytest.mark.parametrize("data", ENCODINGS)
def test_pcd_without_intensity_has_zeros(tmp_path, data):
    cloud = read_cloud(write(tmp_path / "a.pcd", pcd(data, scan(), "ring")))
    np.testing.assert_array_equal(cloud.points[:, 3], 0)


@pytest.mark.parametrize("data", ENCODINGS)
@pytest.mark.parametrize("left", [0.4, 0.9, 0.999])
def test_cut_pcd(tmp_path, data, left):
    content = pcd(data, scan())
    start = content.index(b"DATA")
    cut = content[: start + 30 + int((len(content) - start - 30) * left)]
    if data == "ascii":
        cut = cut[: cut.rindex(b" ")]
    refused(write(tmp_path / "a.pcd", cut), "truncated")


@pytest.mark.parametrize("data", ENCODINGS)
def test_pcd_header_alone(tmp_path, data):
    content = pcd(data, scan())
    end = content.index(b"\n", content.index(b"DATA")) + 1
    refused(write(tmp_path / "a.pcd", content[:end]), "truncated")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"DATA ascii", b"", "no DATA line"),
        (b"DATA ascii", b"DATA zip", "zip"),
        (b"FIELDS", b"FELDER", "FIELDS"),
        (b"COUNT 1 1 1 1 3", b"COUNT 1 1", "damaged"),
        (b"SIZE 4 4 8 1 4", b"SIZE 4 4 8 3 4", "SIZE 3"),
        (b"POINTS 500", b"POINTS many", "many"),
        (b"FIELDS x y z", b"FIELDS a y z", "no field x; its fields: a, y, z"),
        (b"POINTS 500", b"POINTS 0", "holds no points"),
    ],
)
def test_damaged_pcd_header(tmp_path, old, new, named):
    refused(write(tmp_path / "a.pcd", pcd("ascii", scan()).replace(old, new)), named)


def test_pcd_with_words_for_numbers(tmp_path):
    content = pcd("ascii", scan()).replace(b" 7 7 7", b" 7 seven 7", 1)
    refused(write(tmp_path / "a.pcd", content), "seven")


def test_pcd_damaged_in_its_packed_part(tmp_path):
    content = bytearray(pcd("binary_compressed", scan()))
    content[content.index(b"DATA") + 31] = 0xFF  # a copy from before the start
    refused(write(tmp_path / "a.pcd", bytes(content)), "packed part", "damaged")


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x02abc", b"abc"),
        (b"\x02abc\x20\x02", b"abcabc"),  # copy of 3 from 3 back
        (b"\x00a\x80\x00", b"aaaaaaa"),  # copy of 6 that overlaps itself
        (b"\x01ab\xe0\x04\x01", b"ab" + b"ab" * 6 + b"a"),  # long copy: 7 + 4 + 2
    ],
)
def test_lzf(packed, plain):
    assert decompress_lzf(packed, len(plain)) == plain


@pytest.mark.parametrize("packed", [b"\x02ab", b"\x20", b"\x00a\x20\x05", b"\x00a"])
def test_lzf_damage(packed):
    with pytest.raises(ValueError, match=r"start|within|instead"):
        decompress_lzf(packed, 3)


# PLY


def ply(data, points, extra=""):
    order = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}[data]
    header = (
        f"ply\nformat {data} 1.0\ncomment made by a test\nelement vertex {len(points)}\n"
        "property float x\nproperty double y\nproperty float z\nproperty uchar red\n"
        f"property ushort scalar_Intensity\n{extra}element face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
    ).encode()
    table = np.zeros(
        len(points),
        dtype=[("x", order + "f4"), ("y", order + "f8"), ("z", order + "f4")]
        + [("red", "u1"), ("i", order + "u2")],
    )
    for column, key in enumerate(("x", "y", "z", "i")):
        table[key] = points[:, column]
    if data != "ascii":
        return header + table.tobytes() + b"\x03" + bytes(12)
    rows = [f"{row[0]!r} {row[1]!r} {row[2]!r} 9 {int(row[3])}" for row in points.tolist()]
    return header + "\n".join([*rows, "3 0 1 2"]).encode()


PLY_FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")


@pytest.mark.parametrize("data", PLY_FORMATS)
def test_ply(tmp_path, data):
    points = scan()
    cloud = read_cloud(write(tmp_path / "a.ply", ply(data, points)))
    np.testing.assert_array_equal(cloud.points, points)


@pytest.mark.parametrize("data", PLY_FORMATS)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.9])
def test_cut_ply(tmp_path, data, left):
    content = ply(data, scan())
    start = content.index(b"end_header") + 11
    cut = content[: start + int((len(content) - start) * left)]
    refused(write(tmp_path / "a.ply", cut), "truncated")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"ply\n", b"plx\n", "no PLY file"),
        (b"end_header", b"", "no PLY file"),
        (b"format ascii", b"format morse", "morse"),
        (b"element vertex 500", b"element face 500", "vertex"),
        (b"property uchar red", b"property rainbow red", "rainbow"),
        (b"property uchar red", b"property list uchar int red", "red is a list"),
        (b"property float z", b"property float height", "no field z"),
        (b" 9 ", b" nine ", "nine"),
    ],
)
def test_damaged_ply(tmp_path, old, new, named):
    refused(write(tmp_path / "a.ply", ply("ascii", scan()).replace(old, new)), named)


@pytest.mark.parametrize("extension", ["pcd", "ply"])
@pytest.mark.parametrize(
    "options", [{"write_ascii": True}, {}, {"compressed": True}], ids=["ascii", "binary", "packed"]
)
def test_files_of_open3d(tmp_path, extension, options):
    open3d = pytest.importorskip("open3d")
    points = scan(3000)
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(points[:, :3].copy()))
    cloud.point["intensity"] = open3d.core.Tensor(points[:, 3:].copy())
    cloud.point["ring"] = open3d.core.Tensor(np.arange(3000, dtype=np.uint16)[:, None])
    path = tmp_path / f"a.{extension}"
    assert open3d.t.io.write_point_cloud(str(path), cloud, **options)
    # six digits in its ascii PLY
    np.testing.assert_allclose(read_cloud(path).points, points, rtol=1e-5, atol=1e-5)


# LAS


def las(path, points):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=1, version="1.2")
    header.scales = [0.001, 0.001, 0.001]
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = points[:, 0], points[:, 1], points[:, 2]
    cloud.intensity = points[:, 3].astype(np.uint16)
    cloud.write(str(path))


def test_las(tmp_path):
    points = scan()
    las(tmp_path / "a.las", points)
    np.testing.assert_allclose(read_cloud(tmp_path / "a.las").points, points, atol=6e-4)


@pytest.mark.parametrize("left", [100, 300, 8000])
def test_cut_las(tmp_path, left):
    las(tmp_path / "a.las", scan())
    content = (tmp_path / "a.las").read_bytes()
    refused(write(tmp_path / "a.las", content[:left]), "truncated")


def test_no_las(tmp_path):
    pytest.importorskip("laspy")
    refused(write(tmp_path / "a.las", b"hello world" * 100), "no LAS file")
    refused(write(tmp_path / "a.laz", b"hello world" * 100), "no LAS file")


@pytest.mark.parametrize("extension", ["las", "laz"])
def test_las_without_laspy_names_the_command(tmp_path, monkeypatch, extension):
    monkeypatch.setitem(sys.modules, "laspy", None)
    path = write(tmp_path / f"a.{extension}", b"x")
    refused(path, "pip install 'laspy[lazrs]'")


def test_laz_without_a_decoder_names_the_command(tmp_path, monkeypatch):
    laspy = pytest.importorskip("laspy")
    las(tmp_path / "a.las", scan())
    content = bytearray((tmp_path / "a.las").read_bytes())
    content[104] |= 0x80  # point format: compressed

    def no_backend(*arguments, **options):
        raise laspy.errors.LaspyException("No LazBackend selected, cannot decompress data")

    monkeypatch.setattr(laspy, "read", no_backend)
    refused(write(tmp_path / "a.laz", bytes(content)), "pip install 'laspy[lazrs]'")


# what all formats share


@pytest.mark.parametrize("extension", ["bin", "npy", "npz", "pcd", "ply", "las", "laz"])
def test_empty_file(tmp_path, extension):
    refused(write(tmp_path / f"a.{extension}", b""), "empty", "again")


def test_file_without_points(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 4)))
    refused(tmp_path / "a.npy", "no points")


def test_missing_file(tmp_path):
    refused(tmp_path / "a.bin", "no such point cloud")


def test_unknown_extension(tmp_path):
    refused(write(tmp_path / "a.xyz", b"1 2 3"), ".xyz", ".bin, .npy")
    refused(write(tmp_path / "cloud", b"1 2 3"), "(none)")


def test_extension_in_capitals(tmp_path):
    points = scan(60)
    path = write(tmp_path / "A.BIN", points.tobytes())
    np.testing.assert_array_equal(read_cloud(path).points, points)
    assert find_clouds(tmp_path) == [path]


def test_nan_and_infinity_are_dropped_and_counted(tmp_path):
    points = scan(50)
    points[3, 0], points[7, 2], points[9, 3] = np.nan, np.inf, -np.inf
    path = write(tmp_path / "a.bin", points.tobytes())
    refused(path, "3 of its 50 points hold NaN or infinity", "--drop-invalid")
    cloud = read_cloud(path, drop_invalid=True)
    assert cloud.num_dropped == 3
    np.testing.assert_array_equal(cloud.points, np.delete(points, [3, 7, 9], axis=0))


def test_all_nan_is_an_error(tmp_path):
    path = write(tmp_path / "a.bin", np.full((8, 4), np.nan, np.float32).tobytes())
    refused(path, "none of its 8 points is finite")


# for a model


def test_ring_is_not_taken_for_time(tmp_path):
    points = np.column_stack([scan(60), np.arange(60) % 32]).astype(np.float32)
    cloud = read_cloud(write(tmp_path / "a.bin", points.tobytes()))
    wanted = np.column_stack([points[:, :4], np.zeros(60)])
    np.testing.assert_array_equal(cloud.for_model(5), wanted)


def test_time_is_passed_on_and_missing_columns_are_zero(tmp_path):
    points = np.column_stack([scan(60), np.arange(60) % 4 * 0.05]).astype(np.float32)
    cloud = read_cloud(write(tmp_path / "a.bin", points.tobytes()))
    np.testing.assert_array_equal(cloud.for_model(5), points)
    np.testing.assert_array_equal(cloud.for_model(4), points[:, :4])
    np.testing.assert_array_equal(cloud.for_model(7)[:, 5:], 0)
    bare = read_cloud(cloud.path, columns=3)
    np.testing.assert_array_equal(bare.for_model(5)[:, 3:], 0)
    with pytest.raises(ValueError, match="num_columns must be >= 3, got 2"):
        cloud.for_model(2)


def test_adjusting(tmp_path):
    points = scan(60)
    cloud = read_cloud(write(tmp_path / "a.bin", points.tobytes()))
    moved = cloud.adjusted(intensity_scale=0.5, z_offset=1.0)
    np.testing.assert_allclose(moved.points, points * [1, 1, 1, 0.5] + [0, 0, 1, 0], rtol=1e-6)
    np.testing.assert_array_equal(cloud.points, points)


# finding


def test_finding_file_folder_and_glob(tmp_path):
    for name in ("b.bin", "a.pcd", "notes.txt"):
        write(tmp_path / name, b"x")
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "c.ply", b"x")
    assert find_clouds(tmp_path / "b.bin") == [tmp_path / "b.bin"]
    assert [p.name for p in find_clouds(tmp_path)] == ["a.pcd", "b.bin"]
    assert [p.name for p in find_clouds(f"{tmp_path}/*.bin")] == ["b.bin"]
    assert [p.name for p in find_clouds(f"{tmp_path}/**/*.p*")] == ["a.pcd", "c.ply"]


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("nowhere", "does not exist"),
        ("nowhere.bin", "does not exist"),
        ("*.bin", "does not exist"),
        ("*.txt", "matches no point cloud"),
        (".", "holds no point cloud"),
    ],
)
def test_finding_nothing(tmp_path, place, named):
    write(tmp_path / "notes.txt", b"x")
    with pytest.raises(UserError, match=named):
        find_clouds(f"{tmp_path}/{place}" if place != "." else tmp_path)
