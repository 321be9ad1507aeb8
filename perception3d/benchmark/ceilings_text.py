"""Words and units for the ceilings of a machine, for terminals and pages."""

from collections.abc import Mapping

from perception3d.benchmark.ceilings import Ceilings
from perception3d.terminal import print_table

WORDS = {
    "copy_bytes_per_s": ("copy, read plus written", "GB/s"),
    "read_bytes_per_s": ("read", "GB/s"),
    "gather_bytes_per_s": ("random rows of 192 float32, read", "GB/s"),
    "fma_float32_flops_per_s": ("float32 multiply-adds", "GFLOP/s"),
    "gemm_float32_flops_per_s": ("float32 matrix product", "GFLOP/s"),
    "gemm_bfloat16_flops_per_s": ("bfloat16 matrix product", "GFLOP/s"),
    "exp_per_s": ("exponentials", "G/s"),
}


def ceiling_rows(ceilings: Mapping[str, Ceilings]) -> list[list[str]]:
    """Return a row per figure: its words, then its value in every place, "-" where absent."""
    rows = []
    for name, (words, unit) in WORDS.items():
        rates = [place.get(name) for place in ceilings.values()]
        cells = ["-" if rate is None else f"{rate / 1e9:,.3g} {unit}" for rate in rates]
        rows.append([words, *cells])
    return rows


def print_ceilings(device: str, ceilings: Mapping[str, Ceilings]) -> None:
    """Print one column per place, such as "cpu_1_threads"."""
    places = [place.replace("_", " ") for place in ceilings]
    print_table(f"ceilings of {device}", ["what", *places], ceiling_rows(ceilings))
