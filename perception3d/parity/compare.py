"""The comparison rule of golden vectors: results against recorded arrays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from perception3d.parity.case import Array, Case, CaseError, Rule

RESULT_PREFIXES = ("out.", "grad.")
_SUBSET = "__sub"
_NORM = "__l2"


@dataclass(frozen=True)
class Comparison:
    """Outcome for one recorded array.

    Attributes:
        key: the array.
        ratio: worst error over allowed error; at most 1 is a pass, inf for what has no measure
            (a missing key, another shape, unequal exact values).
        note: what is wrong, empty on a pass.
    """

    key: str
    ratio: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the result is near enough."""
        return self.ratio <= 1.0


def recorded_keys(case: Case) -> list[str]:
    """Return the recorded results and gradients that have to be compared."""
    return [key for key in case.arrays if key.startswith(RESULT_PREFIXES) and not case.ignored(key)]


def compare_case(
    case: Case, results: Mapping[str, object], expected: Mapping[str, Array] | None = None
) -> list[Comparison]:
    """Compare the results of a replay with everything the case has recorded.

    Args:
        case: gives rules, `where` masks and, by default, the reference.
        results: replayed values by key (tensors, arrays, lists, numbers); a missing key is a
            failure, a key that is not recorded is not looked at.
        expected: reference by key where it is not the `out.` and `grad.` arrays of the file.

    Returns:
        One Comparison per recorded key.
    """
    if expected is None:
        expected = {key: case.arrays[key] for key in recorded_keys(case)}
    return [compare_key(case, key, reference, results) for key, reference in expected.items()]


def compare_key(
    case: Case, key: str, reference: Array, results: Mapping[str, object]
) -> Comparison:
    """Compare one recorded array with the results."""
    try:
        rule = case.rule(key)
        result = _result(key, results)
        if result is None:
            return Comparison(key, math.inf, "missing in the results")
        return compare_arrays(key, result, np.asarray(reference), rule, _mask(case, rule))
    except CaseError as error:
        return Comparison(key, math.inf, str(error))


def compare_arrays(
    key: str, result: Array, reference: Array, rule: Rule, mask: Array | None = None
) -> Comparison:
    """Compare two arrays under a rule; `mask` (bool, leading axes) selects what counts."""
    if reference.dtype.kind in "US":
        return _compare_strings(key, result, reference)
    if result.shape != reference.shape:
        return Comparison(key, math.inf, f"shape must be {reference.shape}, got {result.shape}")
    if mask is not None:
        if mask.shape != reference.shape[: mask.ndim]:
            return Comparison(
                key, math.inf, f"mask {rule.where} of shape {mask.shape} does not cover it"
            )
        result, reference = result[mask], reference[mask]
    if rule.exact:
        return _compare_exact(key, result, reference)
    error = _absolute_error(result, reference)
    if rule.l1 is not None:
        total = float(error.sum())
        return _judge(key, _ratio(total, rule.l1), f"sum of differences {total:.3g} > {rule.l1:g}")
    with np.errstate(invalid="ignore"):
        allowed = rule.atol + rule.rtol * np.abs(reference.astype(np.float64))
    allowed = np.where(np.isfinite(allowed), allowed, rule.atol)
    ratios = np.divide(error, allowed, out=np.full(error.shape, math.inf), where=allowed > 0)
    ratios[error == 0] = 0.0
    worst = float(ratios.max(initial=0.0))
    return _judge(
        key, worst, f"largest error {float(error.max(initial=0.0)):.3g} is {worst:.3g} x allowed"
    )


def _judge(key: str, ratio: float, note: str) -> Comparison:
    return Comparison(key, ratio, "" if ratio <= 1.0 else note)


def _ratio(error: float, allowed: float) -> float:
    return 0.0 if error == 0 else error / allowed if allowed > 0 else math.inf


def _absolute_error(result: Array, reference: Array) -> Array:
    """Return |result - reference| in float64; equal or both NaN: 0, one NaN: inf."""
    got, want = result.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.abs(got - want)
    error = np.where((got == want) | (np.isnan(got) & np.isnan(want)), 0.0, error)
    return np.where(np.isnan(error), math.inf, error)


def _compare_exact(key: str, result: Array, reference: Array) -> Comparison:
    equal = result == reference
    if result.dtype.kind == "f" and reference.dtype.kind == "f":
        equal |= np.isnan(result) & np.isnan(reference)
    wrong = int(np.size(equal) - np.count_nonzero(equal))
    if wrong == 0:
        return Comparison(key, 0.0)
    return Comparison(key, math.inf, f"{wrong} of {np.size(equal)} values differ")


def _compare_strings(key: str, result: Array, reference: Array) -> Comparison:
    got = {str(text) for text in np.asarray(result).reshape(-1)}
    want = {str(text) for text in reference.reshape(-1)}
    if got == want:
        return Comparison(key, 0.0)
    lacking, extra = sorted(want - got), sorted(got - want)
    note = f"{len(lacking)} strings lacking {lacking[:3]}, {len(extra)} unexpected {extra[:3]}"
    return Comparison(key, math.inf, note)


def _mask(case: Case, rule: Rule) -> Array | None:
    if rule.where is None:
        return None
    mask = case.array(rule.where.removeprefix("!")).astype(bool)
    return ~mask if rule.where.startswith("!") else mask


def _result(key: str, results: Mapping[str, object]) -> Array | None:
    """Find the result of a key; `X__subK` and `X__l2` are taken from a full result X."""
    if key in results:
        return _to_array(results[key])
    if key.endswith(_NORM) and key.removesuffix(_NORM) in results:
        full = _to_array(results[key.removesuffix(_NORM)]).astype(np.float64)
        return np.asarray(np.linalg.norm(full.reshape(-1)))
    name, marker, step = key.rpartition(_SUBSET)
    if marker and step.isdigit() and int(step) > 0 and name in results:
        return _to_array(results[name]).reshape(-1)[:: int(step)]
    return None


def _to_array(value: Any) -> Array:  # noqa: ANN401  # whatever a replay returns
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)
