from pathlib import Path

import pytest

from perception3d.engine.config import fingerprint, load_config, plain
from perception3d.errors import UserError

CONFIG = """
from torch.nn import Linear
from torch.optim import {optimizer}
from perception3d.structures import BOX_COLUMNS

width = 3
model = dict(type=Linear, in_features=width, sizes=[1, 2, 3], columns=BOX_COLUMNS)
optim_wrapper = dict(optimizer=dict(type={optimizer}, lr=0.1))
custom_hooks = [dict(type=Linear, in_features=1)]
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.py"
    path.write_text(CONFIG.format(optimizer="AdamW"))
    return path


def test_plain_has_sections_only(config_file: Path) -> None:
    sections = plain(load_config(config_file))
    assert set(sections) == {"model", "optim_wrapper", "custom_hooks"}
    assert sections["optim_wrapper"]["optimizer"] == {"type": "torch.optim.AdamW", "lr": 0.1}
    assert sections["model"]["columns"][-1] == "vy"  # an imported value, not its name


def test_options_reach_nested_entries(config_file: Path) -> None:
    options = ["optim_wrapper.optimizer.lr=0.2", "custom_hooks.0.in_features=7", "model.sizes=4,5"]
    sections = plain(load_config(config_file, options))
    assert sections["optim_wrapper"]["optimizer"]["lr"] == 0.2
    assert sections["custom_hooks"][0]["in_features"] == 7
    assert sections["model"]["sizes"] == [4, 5]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("modle.width=3", "no section 'modle'; did you mean 'model'"),
        ("width=4", "no setting 'width'"),  # a name of the file alone, used while it is read
        ("in_featurs=4", "no setting 'in_featurs'; did you mean 'in_features'"),
        ("model.sizes.7=1", "7 must be a number below 3|replace a list of numbers as a whole"),
        ("model.sizes.0=9", "replace a list of numbers as a whole"),
        ("model.in_features.deep=9", "in_features is a plain value"),
        ("optim_wrapper.optimiser.lr=1", "no key 'optimiser'; did you mean 'optimizer'"),
        ("model", "write KEY=VALUE"),
    ],
)
def test_options_that_fit_nowhere(config_file: Path, option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plain(load_config(config_file, [option]))


def test_a_name_without_a_dot_is_set_everywhere(config_file: Path) -> None:
    sections = plain(load_config(config_file, ["in_features=9"]))
    assert sections["model"]["in_features"] == 9
    assert sections["custom_hooks"][0]["in_features"] == 9
    assert sections["model"]["type"] == "torch.nn.Linear"


def test_fingerprint_follows_the_values(config_file: Path, tmp_path: Path) -> None:
    first = fingerprint(load_config(config_file))
    copy = tmp_path / "other_name.py"
    copy.write_text("# a remark\n" + config_file.read_text())
    assert fingerprint(load_config(copy)) == first
    changed = load_config(config_file, ["optim_wrapper.optimizer.lr=0.3"])
    assert fingerprint(changed) != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = dict(type=", r"broken.py, line 1: "),
        (
            "from mmengine.config import read_base\n"
            "with read_base():\n    from ._base_.nowhere import *\n",
            "nowhere.py not found",
        ),
        ("model = undefined_name", "undefined_name"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


def test_missing_file() -> None:
    with pytest.raises(UserError, match="no such config file: nowhere.py"):
        load_config("nowhere.py")


def test_an_imported_value_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("from torch.optim import AdamV\nmodel = dict(values=AdamV)\n")
    with pytest.raises(UserError, match="AdamV"):
        plain(load_config(path))
