"""Output for people: everything goes to stderr, because stdout is for data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipelines.run.plan import current_plan
from pipelines.run.progress import Progress as WorkProgress

console = Console(stderr=True, highlight=False, markup=False, emoji=False, width=None if sys.stderr.isatty() else 160)
"""The console on stderr. No markup: names of files may look like it."""


def print_text_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of text on stderr."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


class WholeRunColumn(ProgressColumn):
    """Shows the step of the run and about how long the rest of the run takes; nothing where there is no plan."""

    def render(self, task: Task) -> Text:
        """Return the text beside a bar."""
        plan = current_plan()
        if plan is None:
            return Text()
        left, after = task.time_remaining, plan.seconds_after
        if left is None or after is None:
            return Text(plan.place)
        return Text(f"{plan.place}, {time_left(left + after)} left in all")


def time_left(seconds: float) -> str:
    """Return a rough time in words: ``4 min``, ``1 h 20 min``."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def progress_bar(*columns: str) -> Progress:
    """Return a progress bar, shown if stderr is a terminal; ``columns`` name the fields shown after it."""
    fields = [TextColumn(f"{{task.fields[{column}]}}") for column in columns]
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        WholeRunColumn(),
        *fields,
        console=console,
        disable=console.quiet or not console.is_terminal,  # a log file gets the line of each epoch instead
    )


@contextmanager
def item_bar(description: str) -> Iterator[Callable[[WorkProgress], None]]:
    """Show a progress bar for work on items, with failures, rate, time left and the slowest item.

    Yields:
        The function to call after every item.
    """
    with progress_bar("note") as bar:
        task = bar.add_task(description, total=None, note="")
        yield lambda state: bar.update(task, completed=state.done, total=state.total, note=str(state))
