"""The files that a run was asked for; their places are tried before it, so that no verdict is lost for a folder."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from equivcheck.errors import UsageError
from equivcheck.report import codec, github, html, junit, markdown
from equivcheck.report.files import write_whole
from equivcheck.report.model import Report
from equivcheck.report.places import Place, place_of

__all__ = ["Outputs"]

_FORMS: dict[str, Callable[[Report], str]] = {
    "report.json": codec.dumps,
    "report.md": markdown.render,
    "report.html": html.render,
    "junit.xml": junit.render,
}


class Outputs:
    """Where the report goes, fixed before code under test is imported: files, streams, a folder, GitHub's page of a step."""

    def __init__(
        self,
        *,
        json_file: Path | None = None,
        junit_file: Path | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Look at every place; None: not asked for.

        Raises:
            UsageError: One of them cannot be written to.
        """
        self.on_github = github.on_github(environment)
        self._summary: Place | None = None
        self._folder: Place | None = None
        self._older: dict[Place, bytes] = {}
        self._forms: list[tuple[Place, Callable[[Report], str]]] = []
        if json_file is not None:
            self._forms.append((place_of("--json", json_file), codec.dumps))
        if junit_file is not None:
            self._forms.append((place_of("--junit", junit_file), junit.render))
        if folder is not None:
            self._folder = place_of("--report", folder, folder=True)
            self._forms += [(self._folder.beside(name), render) for name, render in _FORMS.items()]
        if summary := environment.get("GITHUB_STEP_SUMMARY"):
            self._summary = place_of("GITHUB_STEP_SUMMARY", Path(summary), alone=False)

    def __bool__(self) -> bool:
        """Whether any file was asked for."""
        return bool(self._forms)

    def probe(self) -> None:
        """Return where all of it can be written, leaving nothing behind; a UsageError names a place where not."""
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
        """Overwrite what an earlier run left: where the process dies while the pair is loaded, nothing looks current."""
        for place, render in self._forms:
            with suppress(OSError):
                if place.is_file and place.path.exists():
                    self._older[place] = place.path.read_bytes()
                    place.write(render(report))

    def undo(self) -> None:
        """Put back what `begin` has overwritten: nothing could be judged, and nothing is written."""
        for place, content in self._older.items():
            with suppress(OSError):
                write_whole(place.path, content)

    def keep(self, report: Report) -> None:
        """Write what is known so far, so that a run that is killed leaves files that say so, and not those of an earlier one.

        What cannot be written now is said at the end, by `write`. Pipes and streams want the report once, when it is whole.
        """
        self._older.clear()
        for place, render in self._forms:
            with suppress(OSError):
                if place.is_file:
                    self._make_folder(place)
                    place.write(render(report))

    def write(self, report: Report) -> UsageError | None:
        """Write each file whole or not at all; a failure is returned, so that the verdict can be shown first."""
        failure = None
        for place, render in self._forms:
            try:
                self._make_folder(place)
                place.write(render(report))
            except OSError as error:
                failure = failure or place.refusal(error)
        return failure

    def summary(self, report: Report) -> UsageError | None:
        """Append the report to the summary of a GitHub step, in one; a failure is returned."""
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
