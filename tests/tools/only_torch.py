"""Runs a program as if nothing but torch, numpy and pytest were installed.

usage: only_torch.py -m MODULE ARGUMENT ...  |  only_torch.py FILE ARGUMENT ...
"""

import os
import runpy
import sys
from importlib.metadata import PackageNotFoundError, requires

ALLOWED = {
    *sys.stdlib_module_names,
    *("torch", "torchgen", "functorch", "numpy", "pytest", "py", "setuptools"),
    # what torch and pytest themselves need
    *("typing_extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock"),
    *("fsspec", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli"),
    # this project, and helper modules of its tests
    *("perception3d", "conftest", "shadow", "without_hypothesis", "simt_library"),
    *("voxel_samples", "box_samples"),
}


class Hiding:
    """A finder of modules that does not see what is not allowed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        found = self.finder.find_spec(name, path, target)
        top = name.split(".")[0]
        hidden = top not in ALLOWED and not top.startswith(("test_", "_", "tools"))
        # A module of the tests' own folders is found beside the file that imports it.
        own = found is not None and "/tests/" in str(found.origin)
        return None if hidden and not own else found

    def __getattr__(self, name):
        return getattr(self.finder, name)


def check_allowed() -> None:
    """Fail if torch has come to need something that is hidden."""
    for package in ("torch", "pytest"):
        try:
            needed = requires(package) or []
        except PackageNotFoundError:
            continue
        for line in needed:
            name = line.split(";")[0].split("=")[0].split(">")[0].split("<")[0].split("!")[0]
            if ";" not in line:
                assert name.strip().lower().replace("-", "_") in ALLOWED, line


if __name__ == "__main__":
    check_allowed()
    sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
    if sys.argv[1] == "-m":
        sys.argv, sys.path[0] = sys.argv[2:], os.getcwd()  # as python -m does
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
