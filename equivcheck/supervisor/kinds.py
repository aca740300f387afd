"""The kinds of pairs of import strings: one process, which all pairs share, imports both sides to recognise them."""

from collections.abc import Mapping
from typing import Any

from equivcheck.errors import ToolError, UsageError
from equivcheck.supervisor.deaths import death_of
from equivcheck.supervisor.nurseries import nursery
from equivcheck.supervisor.pool import Pool
from equivcheck.supervisor.sealed import NamedPair, where_it_begins
from equivcheck.supervisor.workers import Asked, Worker, result_of

__all__ = ["end", "kind_of"]


class _Kinds:
    """The pairs that were asked about, and the process that imports them; it is started by the first question."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[str, str]] = {}  # by pair: its kind, or the reason why it has none
        self._begins: Mapping[str, Any] = {}
        self._pool: Pool | None = None
        self._worker: Worker | None = None

    def of(self, pair: NamedPair) -> str:
        begins = where_it_begins()
        if begins != self._begins:  # another `sys.path`: the names of modules may stand for others
            self.end()
            self._known.clear()
            self._begins = begins
        if pair.key not in self._known:
            self._known[pair.key] = self._recognised(pair)
        kind, reason = self._known[pair.key]
        if not kind:
            raise UsageError(reason)
        return kind

    def _recognised(self, pair: NamedPair) -> tuple[str, str]:
        """The kind, or the reason why there is none; a pair that fails after others is tried alone."""
        kept = self._kept()
        kind, reason = self._ask(pair, kept or self._start())
        if kept is not None and (not kind or not kept.alive):
            kind, reason = self._ask(pair, self._start())
        return kind, reason

    def _kept(self) -> Worker | None:
        alive = self._worker is not None and self._worker.alive
        return self._worker if alive and self._pool is not None and self._pool.nursery is nursery() else None

    def _start(self) -> Worker:
        self.end()
        self._pool = Pool(nursery(), self._begins)
        self._worker = self._pool.start([])
        return self._worker

    def _ask(self, pair: NamedPair, worker: Worker) -> tuple[str, str]:
        assert self._pool is not None, "a worker has a pool"
        asks: list[Asked] = []
        if pair.setup is not None:
            asks.append(worker.ask("setup", spec=pair.setup))
        asks.append(
            worker.ask(
                "kind",
                reference=pair.reference,
                candidate=pair.candidate,
                device=pair.device,
                adaptation=dict(pair.adaptation),
                domain=pair.domain,
            )
        )
        self._pool.wait(*asks)
        self._pool.nursery.printed()  # the run of a check shows it
        try:
            for asked in asks:
                if asked.died:
                    return _kind_before(asked, pair), ""
                answer = result_of(asked)
        except (UsageError, ToolError) as error:
            return "", str(error)
        return str(answer), ""

    def end(self) -> None:
        if self._pool is not None:
            if self._worker is not None and self._worker.alive:
                self._pool.leave(self._worker)
            self._pool.close()
        self._pool = self._worker = None


def _kind_before(asked: Asked, pair: NamedPair) -> str:
    """The kind that a process had recognised before it died of a pair.

    Raises:
        UsageError: It had recognised none.
    """
    death = death_of(asked)
    if death.place.kind:
        return death.place.kind
    side = death.place.side or "reference"
    spec = pair.candidate if side == "candidate" else pair.reference
    doing = "it was imported" if death.importing else "its kind was looked for"
    raise UsageError(f"{spec!r}, the {side}, {death.description} while {doing}; run it by itself, or give kind=")


_kinds = _Kinds()


def kind_of(pair: NamedPair) -> str:
    """The kind of a pair, without an import of a side in this process.

    Args:
        pair: The pair. It is asked about once; all pairs share one process, which imports them.

    Raises:
        UsageError: A side cannot be imported or called, or the pair fits no kind.
    """
    return _kinds.of(pair)


def end() -> None:
    """End the process that imports the pairs; another question starts another one."""
    _kinds.end()
