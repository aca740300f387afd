"""A bar of the progress whose colour, once it is full, is that of the outcome: this module imports rich."""

from rich.progress import BarColumn, Task
from rich.progress_bar import ProgressBar

__all__ = ["OutcomeBar"]

_STYLES = {"different": "bold red", "equivalent": "bar.finished"}
_OTHER_STYLE = "yellow"  # nothing was judged, or a difference is declared: not a failure, and worth a look


class OutcomeBar(BarColumn):
    """A bar that is green only for a check that is equivalent, or for a task without an outcome."""

    def render(self, task: Task) -> ProgressBar:
        """Draw the bar as rich does, in another colour if the task has ended otherwise."""
        bar = super().render(task)
        outcome = task.fields.get("outcome", "equivalent")
        bar.finished_style = _STYLES.get(outcome, _OTHER_STYLE)
        return bar
