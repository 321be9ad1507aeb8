"""The comparison rule itself: what it lets through and what it catches."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from perception3d.parity.case import (
    Case,
    CaseError,
    Rule,
    case_folders,
    flatten_json,
    read_cases,
)
from perception3d.parity.compare import compare_arrays, compare_case
from perception3d.parity.run import run_case


def write_case(folder: Path, arrays: dict, **fields: object) -> Case:
    entry = {
        "name": "one",
        "file": "one.npz",
        "kind": "unknown_kind",
        "mode": None,
        "config": {},
        "tolerance": {"*": "exact"},
        "ignore": [],
    } | fields
    np.savez(folder / "one.npz", **arrays)
    table = {"format": 1, "system": "test", "cases": [entry]}
    (folder / "cases.json").write_text(json.dumps(table))
    return next(read_cases(folder))


def ratio(got, want, rule: Rule, mask=None) -> float:
    return compare_arrays("k", np.asarray(got), np.asarray(want), rule, mask).ratio


def test_tolerance_is_atol_plus_rtol_times_reference():
    rule = Rule(atol=0.1, rtol=0.01)
    assert ratio([10.15], [10.0], rule) == pytest.approx(0.75)
    assert ratio([10.25], [10.0], rule) == pytest.approx(1.25)
    assert ratio([1.0, 10.25], [1.0, 10.0], rule) == pytest.approx(1.25)


def test_zero_tolerance_demands_equality():
    assert ratio([1.0], [1.0], Rule()) == 0.0
    assert ratio([1.0 + 1e-12], [1.0], Rule()) == math.inf


def test_shape_must_be_equal():
    assert ratio([[1.0]], [1.0], Rule(atol=1.0)) == math.inf
    assert ratio(1.0, [1.0], Rule(atol=1.0)) == math.inf


@pytest.mark.parametrize("rule", [Rule(atol=1.0), Rule(exact=True)])
def test_nan_is_demanded_and_not_allowed_elsewhere(rule: Rule):
    assert ratio([math.nan, 1.0], [math.nan, 1.0], rule) == 0.0
    assert ratio([0.0, 1.0], [math.nan, 1.0], rule) == math.inf
    assert ratio([math.nan, math.nan], [math.nan, 1.0], rule) == math.inf


def test_infinite_values_must_agree():
    assert ratio([math.inf], [math.inf], Rule(atol=1.0)) == 0.0
    assert ratio([-math.inf], [math.inf], Rule(atol=1.0, rtol=1.0)) == math.inf
    assert ratio([5.0], [math.inf], Rule(atol=1.0, rtol=1.0)) == math.inf


def test_exact_counts_64_bit_integers():
    big = 2**60
    assert ratio([big], [big], Rule(exact=True)) == 0.0
    assert ratio([big + 1], [big], Rule(exact=True)) == math.inf


def test_exact_compares_values_not_widths():
    assert ratio(np.array([3], np.int64), np.array([3], np.int16), Rule(exact=True)) == 0.0
    assert ratio(np.array([1], np.int64), np.array([True]), Rule(exact=True)) == 0.0


def test_strings_are_sets():
    assert ratio(["b", "a"], ["a", "b"], Rule(exact=True)) == 0.0
    assert ratio(["b", "c"], ["a", "b"], Rule(exact=True)) == math.inf


def test_l1_bounds_the_sum_alone():
    assert ratio([3, 0, 1], [0, 0, 0], Rule(l1=4.0)) == 1.0
    assert ratio([3, 0, 2], [0, 0, 0], Rule(l1=4.0)) == 1.25


@pytest.mark.parametrize(("where", "expected"), [("out.valid", 0.0), ("!out.valid", math.inf)])
def test_where_selects_leading_rows(tmp_path: Path, where: str, expected: float):
    arrays = {"out.x": np.zeros((2, 3)), "out.valid": np.array([True, False])}
    rule = {"atol": 0.1, "rtol": 0, "where": where}
    case = write_case(
        tmp_path, arrays, tolerance={"out.x": {**rule, "atol": 0}}, ignore=["out.valid"]
    )
    got = np.zeros((2, 3))
    got[1] = 1.0
    assert compare_case(case, {"out.x": got})[0].ratio == expected


def test_first_matching_glob_wins_and_star_matches_dots(tmp_path: Path):
    tolerance = {"out.a.*": {"atol": 1, "rtol": 0}, "out.*": "exact"}
    case = write_case(tmp_path, {"out.a.b.c": np.zeros(1)}, tolerance=tolerance)
    assert case.rule("out.a.b.c").atol == 1
    assert case.rule("out.b").exact
    with pytest.raises(CaseError, match="no tolerance for grad"):
        case.rule("grad.x")


def test_missing_key_and_missing_rule_fail(tmp_path: Path):
    case = write_case(
        tmp_path, {"out.x": np.zeros(1), "grad.y": np.zeros(1)}, tolerance={"out.*": "exact"}
    )
    by_key = {part.key: part for part in compare_case(case, {"grad.y": np.zeros(1)})}
    assert "missing" in by_key["out.x"].note
    assert "no tolerance" in by_key["grad.y"].note
    assert not by_key["out.x"].passed


def test_ignored_keys_and_inputs_are_not_compared(tmp_path: Path):
    arrays = {
        "in.a": np.zeros(1),
        "param.b": np.zeros(1),
        "out.c": np.zeros(1),
        "out.d": np.zeros(1),
    }
    case = write_case(tmp_path, arrays, ignore=["out.c"])
    assert [part.key for part in compare_case(case, {})] == ["out.d"]


def test_stored_subsets_are_taken_from_the_full_result(tmp_path: Path):
    full = np.arange(12.0).reshape(3, 4)
    arrays = {"grad.w__sub5": full.reshape(-1)[::5], "grad.w__l2": np.linalg.norm(full)}
    tolerance = {"*": {"atol": 1e-9, "rtol": 0}}
    case = write_case(tmp_path, arrays, tolerance=tolerance)
    assert all(part.passed for part in compare_case(case, {"grad.w": torch.from_numpy(full)}))
    assert not any(part.passed for part in compare_case(case, {"grad.w": full + 1}))


def test_float16_and_float64_are_read_as_float32(tmp_path: Path):
    arrays = {
        "in.half": np.ones(2, np.float16),
        "in.double": np.ones(2),
        "in.rows": np.ones(2, np.int16),
    }
    case = write_case(tmp_path, arrays)
    assert case.tensor("in.half").dtype == torch.float32
    assert case.tensor("in.double").dtype == torch.float32
    assert case.tensor("in.rows").dtype == torch.int16


def test_json_is_flattened_with_null_as_nan():
    flat = flatten_json({"a": {"b": 1, "c": [1, None]}, "d": [{"e": "x"}]})
    assert set(flat) == {"a.b", "a.c", "d.0.e"}
    assert np.isnan(flat["a.c"][1])
    assert flat["d.0.e"].tolist() == ["x"]


def test_unknown_kind_fails_and_says_why(tmp_path: Path):
    outcome = run_case(write_case(tmp_path, {"out.x": np.zeros(1)}), torch.device("cpu"))
    assert not outcome.passed
    assert "no replay for kind 'unknown_kind'" in outcome.failures[0]


def test_missing_data_file_fails_and_says_why(tmp_path: Path):
    case = write_case(tmp_path, {"out.x": np.zeros(1)}, kind="detection_results")
    case.path.unlink()
    outcome = run_case(case, torch.device("cpu"))
    assert not outcome.passed
    assert "one.npz is missing" in outcome.failures[0]


def test_unreadable_folders_are_named(tmp_path: Path):
    with pytest.raises(CaseError, match="not a folder"):
        case_folders(tmp_path / "nowhere")
    with pytest.raises(CaseError, match=r"no cases\.json"):
        case_folders(tmp_path)
    (tmp_path / "cases.json").write_text('{"format": 7, "cases": []}')
    with pytest.raises(CaseError, match="format must be 1, got 7"):
        list(read_cases(tmp_path))
    (tmp_path / "cases.json").write_text("{")
    with pytest.raises(CaseError, match="not readable as JSON"):
        list(read_cases(tmp_path))


def test_folders_below_are_found(tmp_path: Path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        write_case(tmp_path / name, {"out.x": np.zeros(1)})
    assert [folder.name for folder in case_folders(tmp_path)] == ["a", "b"]
