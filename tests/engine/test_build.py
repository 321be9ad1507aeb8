import pytest
import torch
from torch import nn

from perception3d.engine.build import build, check, signature
from perception3d.errors import UserError


class Holder:
    """Keeps what it gets."""

    def __init__(self, content: object, *, size: int = 1) -> None:
        if size < 1:
            raise ValueError(f"size must be >= 1, got {size}")
        self.content = content
        self.size = size


class Child(Holder):
    def __init__(self, extra: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.extra = extra


def describe(content: object) -> str:
    return f"<{content}>"


def test_builds_innermost_first() -> None:
    made = build(
        {
            "type": Holder,
            "content": [
                {"type": "torch.nn.Linear", "in_features": 2, "out_features": 3},
                {"plain": ({"type": describe, "content": 5},)},
                "torch.nn.Linear",
            ],
        }
    )
    assert isinstance(made, Holder)
    linear, nested, text = made.content
    assert isinstance(linear, nn.Linear)
    assert linear.weight.shape == (3, 2)
    assert nested == {"plain": ("<5>",)}
    assert text == "torch.nn.Linear"


def test_plain_values_pass() -> None:
    assert build([1, "a", None, {"b": (2.0,)}]) == [1, "a", None, {"b": (2.0,)}]


def test_the_config_is_not_changed() -> None:
    config = {"type": Holder, "content": {"type": Holder, "content": 1}}
    build(config)
    assert config == {"type": Holder, "content": {"type": Holder, "content": 1}}


def test_positional_and_default_arguments() -> None:
    made = build({"type": Holder, "size": 4}, "given", size=9)
    assert (made.content, made.size) == ("given", 4)


def test_arguments_of_a_parent_are_known() -> None:
    made = build({"type": Child, "extra": 1, "content": 2, "size": 3})
    assert (made.extra, made.content, made.size) == (1, 2, 3)
    assert signature(Child) == (["extra", "content", "size"], ["extra", "content"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"type": Holder, "content": 1, "sise": 2},
            r"config \(Holder\): no argument 'sise'; did you mean 'size'\?",
        ),
        ({"type": Child, "extra": 1, "content": 2, "sizes": 3}, "did you mean 'size'"),
        ({"type": Holder}, r"config \(Holder\): missing content"),
        ({"type": Holder, "content": 1, "size": 0}, r"\(Holder\): size must be >= 1, got 0"),
        (
            {"type": Holder, "content": {"type": "torch.nn.Linaer"}},
            r"config.content: torch.nn: no name 'Linaer'; did you mean 'Linear'\?",
        ),
        (
            {"type": "perception3d.engine.bild.build"},
            r"perception3d.engine: no name 'bild'; did you mean 'build'\?",
        ),
        ({"type": "nowhere_at_all.Thing"}, "no module named 'nowhere_at_all'"),
        ({"type": "Linear"}, "must be a class or its dotted path"),
        ({"type": 3}, "must be a class or its dotted path .* got 3"),
        ({"type": "torch.float32"}, "neither a class nor a function"),
        ([1, {"type": Holder, "contents": 1}], r"config.1 \(Holder\): no argument 'contents'"),
    ],
)
def test_mistakes_are_named(config: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(config)


def test_nothing_is_built_before_a_misspelt_key_is_found() -> None:
    made = []
    config = {"type": Holder, "content": {"type": made.append, "object": 1}, "sise": 1}
    with pytest.raises(UserError, match="sise"):
        build(config)
    assert made == []


def test_check_lists_all_mistakes_and_builds_nothing() -> None:
    problems = check(
        {
            "model": {"type": Holder, "contant": 1},
            "list": [{"type": "torch.nn.Linaer"}, {"type": describe, "content": 1}],
            "partial": {"type": torch.optim.AdamW, "lr": 1.0},  # parameters come later
        },
        "file",
    )
    assert len(problems) == 2
    assert problems[0].startswith("file.model (Holder): no argument 'contant'")
    assert problems[1].startswith("file.list.0: torch.nn: no name 'Linaer'")
