"""The forms of a report, and the files that a run writes.

Places are tried before the run, so that no verdict is lost because of a missing folder.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from equivcheck.errors import UsageError
from equivcheck.report import github
from equivcheck.report.files import write_whole
from equivcheck.report.model import Report
from equivcheck.report.places import Place, place_of

__all__ = ["FORMATS", "Format", "Outputs", "format_named"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One form of a report.

    Attributes:
        name: The name for `report --format`.
        text: Its function from a Report to text, as an import string that is loaded on use.
        file: The name of its file in the folder of `verify --report`; empty if it has none there.
        option: The option of `verify` that writes it to one file; empty if there is none.
        help: The help text of that option.
        show: Its function from a Report and a stream, if it differs on a terminal; an import string, too.
        again: Whether `report --format` renders it from a saved report.
        speed: Whether its function takes records of speed, too.
    """

    name: str
    text: str
    file: str = ""
    option: str = ""
    help: str = ""
    show: str = ""
    again: bool = True
    speed: bool = False

    def function(self) -> Callable[..., str]:
        """The function from a Report, and with `speed` from records of speed too, to text."""
        text: Callable[..., str] = _loaded(self.text)
        return text

    def on_stream(self) -> Callable[[Report, TextIO], object] | None:
        """The function that writes a Report to a stream; None if every stream gets the text."""
        return _loaded(self.show) if self.show else None


FORMATS: tuple[Format, ...] = (
    Format(name="table", text="equivcheck.report.table:plain", show="equivcheck.report.table:show"),
    Format(
        name="json",
        text="equivcheck.report.codec:dumps",
        file="report.json",
        option="--json",
        help="Write the report as JSON; - is standard output.",
        again=False,  # a saved report is JSON already
    ),
    Format(name="markdown", text="equivcheck.report.markdown:render", file="report.md"),
    Format(name="html", text="equivcheck.report.html:render", file="report.html", speed=True),
    Format(
        name="junit",
        text="equivcheck.report.junit:render",
        file="junit.xml",
        option="--junit",
        help="Write the report as JUnit XML.",
    ),
    Format(
        name="sarif",
        text="equivcheck.report.sarif:render",
        file="report.sarif",
        option="--sarif",
        help="Write the differences as SARIF, for code scanning.",
    ),
)
"""A new form is a file beside this one and a row here; the first row is the default of `report`."""


def format_named(name: str) -> Format:
    """The form of this name."""
    return next(form for form in FORMATS if form.name == name)


def _loaded(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


class Outputs:
    """The places of the report: files, streams, a folder, and the summary of a GitHub step.

    The places are fixed, and the functions that render the report are loaded, before code under test is imported.
    """

    def __init__(
        self,
        *,
        files: Mapping[str, Path | None] | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Resolve every place; None stands for a file that is not wanted.

        Args:
            files: A file for each form that has an option, by the form's name.
            folder: A folder for all forms that have a file in it.
            environment: The environment variables, by which GitHub marks a step of a workflow.

        Raises:
            UsageError: One of them cannot be written to.
        """
        self.on_github = github.on_github(environment)
        self._summary: Place | None = None
        self._folder: Place | None = None
        self._older: dict[Place, bytes] = {}
        self._forms: list[tuple[Place, Callable[[Report], str]]] = []
        for form in FORMATS:
            file = (files or {}).get(form.name)
            if file is not None:
                self._forms.append((place_of(form.option, file), form.function()))
        if folder is not None:
            self._folder = place_of("--report", folder, folder=True)
            self._forms += [(self._folder.beside(form.file), form.function()) for form in FORMATS if form.file]
        if summary := environment.get("GITHUB_STEP_SUMMARY"):
            self._summary = place_of("GITHUB_STEP_SUMMARY", Path(summary), alone=False)

    def __bool__(self) -> bool:
        """Whether any file is wanted."""
        return bool(self._forms)

    def writes_to(self, stream: TextIO) -> bool:
        """Whether a form is written to this stream."""
        return any(place.stream is stream for place, _ in self._forms)

    def probe(self) -> None:
        """Raise a UsageError that names a place which cannot be written to; leave nothing behind."""
        taken: dict[object, str] = {}
        for place, _ in self._forms:
            if place.key in taken:
                raise UsageError(
                    f"{place.option}: {taken[place.key]} writes to {place.given} too; give each a place of its own"
                )
            taken[place.key] = place.option
        for place, _ in self._forms:
            if place.option != "--report":
                place.probe()
        if self._folder is not None:
            self._folder.probe(folder=True)

    def begin(self, report: Report) -> None:
        """Overwrite the files of an earlier run, so that none looks current if loading the pair ends the process."""
        for place, render in self._forms:
            with suppress(OSError):
                if place.is_file and place.path.exists():
                    self._older[place] = place.path.read_bytes()
                    place.write(render(report))

    def undo(self) -> None:
        """Restore the files that `begin` has overwritten, for a run in which nothing could be judged."""
        for place, content in self._older.items():
            with suppress(OSError):
                write_whole(place.path, content)

    def keep(self, report: Report) -> None:
        """Write the partial report, so that a killed run leaves files that say so, and none of an earlier run.

        A failure is left to `write`, at the end. Pipes and streams get the report once, when it is complete.
        """
        self._older.clear()
        for place, render in self._forms:
            with suppress(OSError):
                if place.is_file:
                    self._make_folder(place)
                    place.write(render(report))

    def write(self, report: Report) -> UsageError | None:
        """Write each file whole or not at all, and return the first failure, so that the verdict is shown before it."""
        failure = None
        for place, render in self._forms:
            try:
                self._make_folder(place)
                place.write(render(report))
            except OSError as error:
                failure = failure or place.refusal(error)
        return failure

    def summary(self, report: Report) -> UsageError | None:
        """Append the report to the summary of a GitHub step in one write, and return a failure."""
        if self._summary is None:
            return None
        try:
            if self._summary.stream is not None:
                self._summary.write(github.summary(report))
            else:
                with self._summary.path.open("ab") as file:
                    file.write(github.summary(report).encode())
        except OSError as error:
            return self._summary.refusal(error)
        return None

    @staticmethod
    def _make_folder(place: Place) -> None:
        if place.option == "--report":
            place.path.parent.mkdir(parents=True, exist_ok=True)
