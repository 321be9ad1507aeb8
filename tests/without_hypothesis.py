"""Stands in for hypothesis where it is not installed: property tests are skipped, by name.

A machine with a GPU needs no package but torch, numpy and pytest for the operators' tests.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec

import pytest


def _anything(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything()


class _Anything:
    """Accepts whatever a strategy is built with."""

    def __call__(self, *args, **kwargs):
        return self

    def __getattr__(self, name):
        return _anything(name)


def _given(*args, **kwargs):
    def skipped(test):
        def property_test():
            pytest.skip("hypothesis is not installed")

        property_test.__name__, property_test.__doc__ = test.__name__, test.__doc__
        return property_test

    return skipped


def install() -> None:
    """Make `import hypothesis` succeed."""
    package, strategies = (
        importlib.util.module_from_spec(ModuleSpec(name, loader=None))
        for name in ("hypothesis", "hypothesis.strategies")
    )
    package.given = _given
    package.settings = package.example = lambda *args, **kwargs: lambda test: test
    package.assume = package.strategies = _Anything()
    package.__getattr__ = strategies.__getattr__ = _anything
    package.strategies = strategies
    sys.modules["hypothesis"], sys.modules["hypothesis.strategies"] = package, strategies
