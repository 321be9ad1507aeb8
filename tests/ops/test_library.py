"""Loading of the native operators."""

import os
import subprocess
import sys

import pytest
import torch

from perception3d.ops import library


def test_a_missing_library_is_explained_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.load_library.cache_clear()
    with pytest.raises(ImportError, match=r"not built .*python setup\.py build_ext --inplace"):
        library.load_library()
    monkeypatch.undo()
    assert library.load_library() is torch.ops.perception3d


def test_a_foreign_file_is_explained(monkeypatch, tmp_path):
    (tmp_path / "_C.abi3.so").write_bytes(b"no library")
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.load_library.cache_clear()
    with pytest.raises(ImportError, match=r"does not load under torch .*rebuild with"):
        library.load_library()
    monkeypatch.undo()
    assert library.load_library() is torch.ops.perception3d


def test_a_library_of_older_sources_is_explained():
    with pytest.raises(
        ImportError, match=r"no operator tomorrow: .* older sources; .*rebuild with"
    ):
        library.fake_kernel("tomorrow")


def test_import_without_the_library_names_the_command(tmp_path):
    """What a user meets in a checkout that was not built."""
    package = tmp_path / "perception3d"
    (package / "ops").mkdir(parents=True)
    sources = [*library.FOLDER.glob("*.py"), *(library.FOLDER / "ops").glob("*.py")]
    for source in sources:
        (package / source.relative_to(library.FOLDER)).write_text(source.read_text())
    result = subprocess.run(
        [sys.executable, "-c", "import perception3d.ops"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 1
    assert "ImportError: perception3d: the native operators are not built" in result.stderr
    assert "python setup.py build_ext --inplace" in result.stderr


def test_the_library_uses_no_python_symbols_and_no_fast_math():
    data = (library.FOLDER / "_C.abi3.so").read_bytes()
    assert b"PyObject" not in data
    assert b"crtfastmath" not in data
    tiny = torch.tensor([1e-40])  # a library linked with -ffast-math would flush this to zero
    assert float(tiny * 1.0) > 0.0


def test_every_schema_has_a_cpu_kernel():
    schemas = [
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("perception3d::")
    ]
    assert len(schemas) >= 11
    for name in schemas:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"), name
