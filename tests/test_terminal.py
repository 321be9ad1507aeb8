"""Tables on the terminal, with rich and without."""

import importlib.util

from perception3d import terminal

ROWS = [("one", "1.5", "ok"), ("three", "20", "FAILED")]


def test_plain_columns_are_aligned(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    terminal.print_table("title", ("name", "ms", ""), ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "title",
        "name    ms",
        "one    1.5  ok",
        "three   20  FAILED",
    ]


def test_drawn_table_has_every_cell(capsys):
    terminal.print_table("title", ("name", "ms", ""), ROWS, fold=["name"])
    out = capsys.readouterr().out
    assert all(cell in out for row in ROWS for cell in row)
