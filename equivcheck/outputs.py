"""The files that a run was asked for; their places are tried before it, so that no verdict is lost for a folder."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from equivcheck.errors import UsageError
from equivcheck.report import github, html, json, junit, markdown
from equivcheck.report.files import probe_file, probe_folder, write_whole
from equivcheck.report.model import Report

__all__ = ["Outputs", "probe", "save_text"]

_FORMS: dict[str, Callable[[Report], str]] = {
    "report.json": json.dumps,
    "report.md": markdown.render,
    "report.html": html.render,
    "junit.xml": junit.render,
}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the report goes: a JSON file, a JUnit file, a folder with all its forms; None: not asked for."""

    json_file: Path | None = None
    junit_file: Path | None = None
    folder: Path | None = None

    def probe(self) -> None:
        """Return where all of it can be written, leaving nothing behind; a UsageError names a place where not."""
        taken: dict[Path, str] = {}
        for option, file, _ in self._files():
            place = file.resolve()
            if place in taken:
                raise UsageError(f"{option}: {taken[place]} writes to {file} too; give each a place of its own")
            taken[place] = option
        for option, path in (("--json", self.json_file), ("--junit", self.junit_file), ("--report", self.folder)):
            if path is not None:
                probe(option, path, folder=path is self.folder)

    def write(self, report: Report) -> UsageError | None:
        """Write each file whole or not at all; a failure is returned, so that the verdict can be told first."""
        failure = None
        for option, path, render in self._files():
            try:
                if option == "--report":
                    path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, render(report))
            except OSError as error:
                failure = failure or _refusal(option, path, error)
        return failure

    @staticmethod
    def summary(report: Report) -> UsageError | None:
        """Append the report to the summary of a GitHub step, in one; a failure is returned."""
        try:
            github.append_summary(report)
        except OSError as error:
            return _refusal("GITHUB_STEP_SUMMARY", Path(os.environ["GITHUB_STEP_SUMMARY"]), error)
        return None

    def keep(self, report: Report) -> None:
        """Write what is known so far, so that a run that is killed leaves files that say so, and not those of an earlier one.

        What cannot be written now is told of at the end, by `write`.
        """
        for option, path, render in self._files():
            with suppress(OSError):
                if path.exists() and not path.is_file():
                    continue  # a pipe wants the report once, when it is whole
                if option == "--report":
                    path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, render(report))

    def _files(self) -> list[tuple[str, Path, Callable[[Report], str]]]:
        files: list[tuple[str, Path, Callable[[Report], str]]] = []
        if self.json_file is not None:
            files.append(("--json", self.json_file, json.dumps))
        if self.junit_file is not None:
            files.append(("--junit", self.junit_file, junit.render))
        if self.folder is not None:
            files += [("--report", self.folder / name, render) for name, render in _FORMS.items()]
        return files


def probe(option: str, path: Path, *, folder: bool = False) -> None:
    """Return where the file, or files in the folder, can be written, leaving nothing behind; a UsageError where not."""
    try:
        if folder:
            probe_folder(path)
        else:
            probe_file(path)
    except OSError as error:
        raise _refusal(option, path, error) from None


def save_text(option: str, path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all; a UsageError where it cannot be."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise _refusal(option, path, error) from None


def _refusal(option: str, path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{option} {path}: cannot be written ({error.strerror or error}); give a place that can be written to"
    )
