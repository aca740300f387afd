"""The record of a shard in its report: all that a merged report is made of."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from equivcheck.report.case_outcomes import Searched
from equivcheck.report.shard import FurtherFinding, PlannedCheck, Shard, ShardCoverage, ShardFault, ShardPiece
from equivcheck.supervisor.piece import Piece

__all__ = ["judged_by_class", "recorded"]

_OF_EVERY_SHARD = ("usable", "refused", "not_run", "rows", "drawn_from", "domain", "options_not_judged")


def recorded(
    shard: tuple[int, int],
    plan: Mapping[str, Any],
    pieces: Mapping[str, Sequence[Piece]],
    searched: Mapping[str, Searched],
    further: Mapping[str, Sequence[Searched]],
    *,
    faults: Sequence[ShardFault] = (),
    coverage: Sequence[ShardCoverage] = (),
    notes_after: Sequence[str] = (),
) -> Shard:
    """The record of a shard.

    Args:
        shard: Its number, from 1, and how many shards there are.
        plan: The answer to the question `plan`; empty if the run ended before there was one.
        pieces: Name of a check -> its pieces in this shard, in the order in which they count.
        searched: Name of a finished check -> its cases; a difference among them has its explanation.
        further: Name of a check -> its further rounds.
        faults: The planted faults, tried on the cases of the shard.
        coverage: The combinations that the judged cases of its classes do not meet.
        notes_after: Notes of the look back.
    """
    if not plan:
        return Shard(*shard)
    return Shard(
        *shard,
        plan_sha256=_sha256_of(plan),
        plan=tuple(
            PlannedCheck(c["name"], c["planned"], c["classes"], c["judges"], c["replay"]) for c in plan["checks"]
        ),
        refused=plan["refused"],
        notes_before=tuple(plan["notes"]),
        notes_after=tuple(notes_after),
        pieces=tuple(
            piece for name, of_check in pieces.items() for piece in _recorded_pieces(name, of_check, searched.get(name))
        ),
        further=tuple(
            FurtherFinding(name, one.failed[one.minimal], one.diagnosis, one.level)
            for name, rounds in further.items()
            for one in rounds
            if one.minimal is not None
        ),
        faults=tuple(faults),
        coverage=tuple(coverage),
    )


def judged_by_class(pieces: Mapping[str, Sequence[Piece]], checks: Collection[str]) -> dict[str, dict[str, list[str]]]:
    """Name of a check -> the number of a class -> its judged and failed cases, of the classes that count.

    Args:
        pieces: Name of a check -> its pieces in this shard, in the order in which they count.
        checks: The checks that are wanted.
    """
    return {
        name: {
            str(piece.number): [*(o.case for o in piece.searched.passed.values() if o.judged), *piece.searched.failed]
            for piece in _counting(of_check)
        }
        for name, of_check in pieces.items()
        if name in checks
    }


def _counting(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The pieces up to the first that fails: no later one counts."""
    failing = next((at for at, piece in enumerate(pieces) if piece.searched.minimal is not None), len(pieces))
    return pieces[: failing + 1]


def _recorded_pieces(name: str, pieces: Sequence[Piece], searched: Searched | None) -> list[ShardPiece]:
    taken: list[ShardPiece] = []
    for piece in _counting(pieces):
        of = piece.searched
        fails = of.minimal is not None
        explains = searched if fails and searched is not None and searched.minimal == of.minimal else Searched()
        taken.append(
            ShardPiece(
                name,
                piece.number,
                piece.failed_first,
                (*of.passed.values(), *of.failed.values()),
                of.minimal,
                of.stopped,
                of.seconds,
                explains.diagnosis,
                explains.level,
            )
        )
    return taken


def _sha256_of(plan: Mapping[str, Any]) -> str:
    """One SHA-256 of what must be the same for all shards: which cases each has follows from it."""
    checks = [{key: value for key, value in check.items() if key != "replay"} for check in plan["checks"]]
    content = {"checks": checks, **{key: plan[key] for key in _OF_EVERY_SHARD}}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
