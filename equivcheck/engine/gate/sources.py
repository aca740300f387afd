"""Whether a report was made from the source as it stands: equivcheck, the pair, and files that the pair used."""

from collections.abc import Iterator
from pathlib import Path

from equivcheck.report.model import SCHEMA_VERSION, Report
from equivcheck.report.provenance import digests, package_files
from equivcheck.runtime.source_files import CHANGED, find, hash_of, is_compiled

__all__ = ["AGAIN", "stale", "uncovered"]

AGAIN = "run equivcheck verify again"
"""The way out of most violations."""

_ROLES = ("reference", "candidate")
_SEEN = {"reference": "reference", "candidate": "candidate", "loaded": "loaded by the pair", "read": "read by the pair"}


def stale(report: Report, root: Path, package: Path) -> Iterator[str]:
    """Each change since the run: to sources of the pair or of equivcheck, to modules and data files that were used."""
    if report.schema_version < SCHEMA_VERSION:
        yield (
            f"stale: an older equivcheck wrote it (schema version {report.schema_version}), which recorded no dtypes, "
            f"no packages and no files that were read; {AGAIN}"
        )
        return
    if report.sources != digests(report.files):
        yield f"stale: it does not tell which files it was made from; {AGAIN}"
        return
    for role in _ROLES:
        if not report.files.get(role):
            yield f"stale: the {role} has no file that could be compared; give the pair to verify as import strings"
    for part, words in _SEEN.items():
        for name, sha in report.files.get(part, {}).items():
            file = find(name, root)
            if sha == CHANGED:
                yield f"stale: {name} ({words}) was changed while the pair ran; {AGAIN}"
            elif file is not None and hash_of(file) != sha:
                yield f"stale: {name} ({words}) was changed after the run; {AGAIN}"
            elif file is None and not is_compiled(name):
                yield (
                    f"stale: {name} ({words}) is not here; {AGAIN}, "
                    "or run the gate in the folder where verify was run (--root)"
                )
    here, recorded = package_files(package), report.files.get("equivcheck", {})
    changed = [name for name in sorted({*here, *recorded}) if here.get(name) != recorded.get(name)]
    if changed:
        more = f" and {len(changed) - 3} more files" if len(changed) > 3 else ""
        yield f"stale: equivcheck judges differently since the run ({', '.join(changed[:3])}{more}); {AGAIN}"


def uncovered(report: Report, root: Path) -> Iterator[str]:
    """The gaps in the evidence: those that the run recorded, and compiled files that are not here."""
    yield from (f"not covered: {what}" for what in report.not_covered)
    for part, words in _SEEN.items():
        for name in report.files.get(part, {}):
            if is_compiled(name) and find(name, root) is None:
                yield f"not covered: {name} ({words}), which is compiled and not here"
