"""The operators' tests on another device: see tests/shadow.py."""

import pytest


@pytest.fixture(autouse=True)
def repeat_on_another_device(request):
    """Repeat the native calls of a test where --shadow says; torch.compile allows no such mode."""
    mode = request.config.shadow_mode
    if mode is None or "compile" in request.node.name:
        yield
        return
    with mode:
        yield
