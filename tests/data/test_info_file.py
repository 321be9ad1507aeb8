"""The file format: whole, of the right version, or a clear error."""

import json

import pytest

from perception3d.data import info_file
from perception3d.data.info_file import InfoFile, encode, write_info_file
from perception3d.errors import UserError

HEADER = {"version": "v1.0-mini", "split": "mini_train", "classes": ["car"], "num_frames": 2}
FRAMES = [{"token": "a", "values": [1.5, None]}, {"token": "b", "values": []}]


@pytest.fixture
def path(tmp_path):
    result = tmp_path / "infos.jsonl"
    write_info_file(result, HEADER, map(encode, FRAMES))
    return result


def test_round_trip(path):
    info = InfoFile(path)
    assert len(info) == 2
    assert [info.record(i) for i in range(2)] == FRAMES
    assert info.tokens() == ["a", "b"]
    assert info.classes == ("car",)
    assert info.header["schema"] == "perception3d.nuscenes"
    with pytest.raises(IndexError):
        info.record(2)


def test_no_frames(tmp_path):
    write_info_file(tmp_path / "empty.jsonl", {**HEADER, "num_frames": 0}, [])
    assert len(InfoFile(tmp_path / "empty.jsonl")) == 0


def test_another_schema_version(path, monkeypatch):
    monkeypatch.setattr(info_file, "SCHEMA_VERSION", 2)
    with pytest.raises(UserError) as caught:
        InfoFile(path)
    text = str(caught.value)
    assert "schema version 1" in text
    assert "reads version 2" in text
    assert "tools/create_data.py nuscenes --root-path ROOT --version v1.0-mini" in text
    assert "\n" not in text


@pytest.mark.parametrize("kept", [0.9, 0.99])
def test_truncated(path, kept):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match=r"damaged: its header promises 2 frames, [01] whole"):
        InfoFile(path)


def test_frame_lost_with_its_line(path):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="promises 2 frames, 1 whole ones"):
        InfoFile(path)


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"token": \n'])
def test_damaged_line(path, line):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + lines[2])
    with pytest.raises(UserError, match="line 2"):
        InfoFile(path).record(0)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"{}\n", b'{"schema": "other"}\n'])
def test_not_an_info_file(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not an info file"):
        InfoFile(path)


def test_header_without_a_field(path):
    head, *rest = path.read_bytes().splitlines(keepends=True)
    header = {key: value for key, value in json.loads(head).items() if key != "classes"}
    path.write_bytes(encode(header) + b"".join(rest))
    with pytest.raises(UserError, match="header lacks classes"):
        InfoFile(path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; make it with tools/create_data\.py"):
        InfoFile(tmp_path / "none.jsonl")


def test_failed_write_leaves_the_old_file(path):
    before = path.read_bytes()

    def lines():
        yield encode(FRAMES[0])
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_info_file(path, HEADER, lines())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nan_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        encode({"value": float("nan")})
