"""How the benchmarks look in a terminal: one kind of progress bar, table and figure."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def progress(console: Console) -> Progress:
    """A bar that goes away when it is full."""
    return Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def grid(title: str, *headings: str) -> Table:
    """A table whose first columns are words, and whose others, after ``|``, are numbers."""
    table = Table(
        title=title,
        title_style="default",
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    numbers = False
    for heading in headings:
        if heading == "|":
            numbers = True
        else:
            table.add_column(heading, justify="right" if numbers else "left", no_wrap=not numbers)
    return table


def ratio(value: float) -> str:
    """A ratio, red where cnnfast is behind."""
    return f"[{'red' if value < 1 else 'green'}]{value:.2f}[/]"
