"""Streaming of JSON arrays."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception3d.data.json_stream import iterate_json_array
from perception3d.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=6)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "table.json"


@settings(deadline=None)
@given(rows=ROWS, indent=st.sampled_from([None, 0, 2]), chunk=st.integers(1, 40))
def test_gives_what_json_gives(file, rows, indent, chunk):
    file.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    assert list(iterate_json_array(file, chunk)) == rows


@settings(deadline=None)
@given(rows=ROWS, chunk=st.integers(1, 40), data=st.data())
def test_any_truncation_is_noticed(file, rows, chunk, data):
    text = json.dumps(rows)
    file.write_text(text[: data.draw(st.integers(0, len(text) - 1))], encoding="utf-8")
    with pytest.raises(UserError, match=r"table\.json"):
        list(iterate_json_array(file, chunk))


@pytest.mark.parametrize("text", ["", "{}", "7", "[1, 2]", '[{"a": 1}, "b"]', '[{"a": nope}]'])
def test_other_content(file, text):
    file.write_text(text)
    with pytest.raises(UserError, match=r"table\.json"):
        list(iterate_json_array(file))


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "table.json"
    row = json.dumps({"token": "x" * 32, "translation": [1.0, 2.0, 3.0]})
    path.write_text("[" + ",\n".join([row] * 100_000) + "]")
    tracemalloc.start()
    count = sum(1 for _ in iterate_json_array(path, 1 << 16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 1 << 20 < path.stat().st_size
