"""The table that tools/roofline.py prints, and the words for its figures."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from perception3d.benchmark.ceilings import Ceilings
from perception3d.benchmark.ceilings_text import ceiling_rows


def print_ceilings(device: str, ceilings: Mapping[str, Ceilings]) -> None:
    """Print one column per place, such as "cpu_1_threads"."""
    table = Table(title=f"ceilings of {device}", title_justify="left")
    table.add_column("what")
    for place in ceilings:
        table.add_column(place.replace("_", " "), justify="right")
    for row in ceiling_rows(ceilings):
        table.add_row(*row)
    Console().print(table)
