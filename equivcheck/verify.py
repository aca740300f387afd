"""The search: which checks, how many cases, until when; and the proof that this very search would have noticed a fault."""

import hashlib
import inspect
import platform
import shlex
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from equivcheck.cases import DTYPES, Case
from equivcheck.checks import CHECKS, Check, Held
from equivcheck.comparison import Mismatch
from equivcheck.errors import UsageError
from equivcheck.report.model import CheckResult, Counterexample, Report, Sensitivity
from equivcheck.strategies import LENGTHS, cases, simpler
from equivcheck.subject import Subject, resolve

__all__ = ["PROFILES", "Listener", "assert_equivalent", "choose", "replay", "verify"]

PROFILES = ("quick", "gate", "thorough")
_FEW = 5
_SHRINK_S = {"quick": 5.0, "gate": 10.0, "thorough": 60.0}
_PROBES = (  # of several sizes: what refuses only some of them does not refuse the dtype
    Case(),
    Case(batch_size=1, seq_len=2, n_head=1, head_size=8, block_size=8),
    Case(batch_size=2, seq_len=16, n_head=2, head_size=16, block_size=16),
    Case(batch_size=1, seq_len=64, n_head=1, head_size=64, block_size=64),
    Case(batch_size=1, seq_len=33, n_head=2, head_size=32, block_size=40),
)


class Listener(Protocol):
    """Is told how a run gets on; `stage` is a check's name or `sensitivity`."""

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...


class _Silence:
    def progress(self, stage: str, done: int, total: int) -> None:
        pass

    def finished(self, result: CheckResult) -> None:
        pass


class _OutOfTime(BaseException):
    """Ends the drawing of cases at once; no Exception, which Hypothesis would take for a failure and shrink."""


@dataclass
class _Search:
    """One check's cases, in the order in which they were run, and what came of them."""

    check: Check
    subject: Subject
    planned: int
    shrink_s: float
    until: float
    told: Callable[[int], None]
    held: dict[Case, Held] = field(default_factory=dict)
    failed: dict[Case, Mismatch] = field(default_factory=dict)
    minimal: Case | None = None
    stopped: bool = False
    _shrink_until: float = 0.0

    def visit(self, case: Case) -> None:
        """Run the check on a case once; later calls repeat the outcome, so that shrinking counts nothing twice."""
        if case in self.failed:
            self.minimal = case
            raise self.failed[case]
        if case in self.held:
            return
        now = time.monotonic()
        # out of time: what is not known to fail counts as passing, so that shrinking ends with the smallest known failure
        if now > self.until or (self.failed and now > self._shrink_until):
            if self.failed:
                return
            self.stopped = True
            raise _OutOfTime
        try:
            held = self.check.run(self.subject, case)
        except Mismatch as mismatch:
            if not self.failed:
                self._shrink_until = now + self.shrink_s
            self.failed[case] = mismatch
            self.minimal = case
            raise
        self.held[case] = held
        if not self.failed:
            self.told(len(self.held))

    def run(self, classes: Sequence[tuple[Any, int]], seed: int) -> None:
        """Draw each class's number of cases; where one fails, shrink it and leave the other classes."""
        for number, (strategy, count) in enumerate(classes):
            self._draw(strategy, count, seed + number)
            if self.minimal is not None:
                self._polish(self.minimal)
                return

    def _draw(self, strategy: Any, count: int, seed: int) -> None:
        @hypothesis.seed(seed)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @given(strategy)
        def property_holds(case: Case) -> None:
            self.visit(case)

        with suppress(Mismatch, _OutOfTime):
            property_holds()

    def _polish(self, smallest: Case) -> None:
        """Go on shrinking beyond the class that the case was drawn from, for as long again."""
        self._shrink_until = max(self._shrink_until, time.monotonic()) + self.shrink_s
        tried: set[Case] = set()
        found = True
        while found:
            found = False
            for case in simpler(smallest):
                if case in tried or time.monotonic() > self._shrink_until:
                    continue
                tried.add(case)
                try:
                    self.visit(case)
                except Mismatch:
                    smallest, found = case, True
                    break
        self.minimal = smallest


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big")


def choose(names: Sequence[str] | None, exclude: Iterable[str], kind: str) -> list[Check]:
    """The checks to run on a pair of this kind; a UsageError for a name that is none of theirs."""
    known = {check.name: check for check in CHECKS}
    for name in (*(names or ()), *exclude):
        if name not in known:
            raise UsageError(f"unknown check {name!r}: allowed are {', '.join(known)}")
    for name in names or ():
        if kind not in known[name].kinds:
            fitting = [c.name for c in CHECKS if kind in c.kinds]
            raise UsageError(f"check {name!r} does not apply to a {kind}: allowed are {', '.join(fitting)}")
    chosen = [c for c in CHECKS if kind in c.kinds and (not names or c.name in names) and c.name not in set(exclude)]
    if not chosen:
        raise UsageError("no check is left: every one that applies was excluded; leave one in")
    return chosen


def _usable_dtypes(subject: Subject) -> tuple[list[str], dict[str, str]]:
    """The dtypes to judge in, and those that the candidate refuses as a whole while the original runs."""
    usable, refused = [], {}
    for dtype in DTYPES:
        probes = [p.but(dtype=dtype, **_model_fields(subject)) for p in _PROBES]
        if all(_raises(subject, p, "reference") for p in probes):
            continue  # the original itself does not run: there is nothing to compare
        reasons = [_raises(subject, p, "candidate") for p in probes]
        if all(reasons):
            refused[dtype] = f"{dtype}: {reasons[0]}"
        else:
            usable.append(dtype)
    return usable, refused


def _model_fields(subject: Subject) -> dict[str, Any]:
    return {"n_layer": 1, "vocab_size": 17} if subject.kind in ("model", "replacement") else {}


def _raises(subject: Subject, case: Case, which: str) -> str:
    try:
        problem = subject.problem(case)
        module = problem.reference if which == "reference" else problem.candidate
        problem.run(module, problem.inputs, gradients=True)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _classes(check: Check, subject: Subject, dtypes: Sequence[str], planned: int) -> list[tuple[Any, int]]:
    """The case space in classes of dtype and length, short ones first, each with the number of cases it is sure of."""
    draws = _draws(check, subject, dtypes)
    longest = draws.get("max_seq_len", 512)
    lengths = [(low, min(high, longest), share) for low, high, share in LENGTHS if low <= longest]
    each = [[dtype] for dtype in draws["dtypes"]]
    # the first case of a class is its simplest: classes of few cases would hold little else
    groups = each if planned >= _FEW * len(each) * len(lengths) else [draws["dtypes"]] if draws["dtypes"] else []
    whole = len(groups) * sum(share for _, _, share in lengths)
    return [
        (
            cases(**draws | {"dtypes": group, "min_seq_len": low, "max_seq_len": high}),
            max(1, round(planned * share / whole)),
        )
        for low, high, share in lengths
        for group in groups
    ]


def _draws(check: Check, subject: Subject, dtypes: Sequence[str]) -> dict[str, Any]:
    draws = dict(check.draws)
    draws["dtypes"] = [d for d in draws.get("dtypes", DTYPES) if d in dtypes]
    if subject.kind in ("model", "replacement"):
        draws.setdefault("n_layers", (1, 2))
        draws.setdefault("regimes", ("sharpened", "near_initial", "large_scores", "ties", "same_sign_v", "constant_v"))
        draws["max_seq_len"] = min(draws.get("max_seq_len", 130), 130)
        draws["max_head_size"] = min(draws.get("max_head_size", 24), 24)
    if subject.kind == "function":
        draws.setdefault("scales", (None, None, 0.25, 1.0))
        if check.name in ("output", "gradients"):
            draws.setdefault("is_causal", (True, True, False))
    return draws


def verify(
    reference: Any,
    candidate: Any,
    *,
    kind: str = "auto",
    device: str = "auto",
    profile: str = "gate",
    checks: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    seed: int = 0,
    max_seconds: float | None = None,
    deviations: Mapping[str, str] | None = None,
    listener: Listener | None = None,
) -> Report:
    """Whether `candidate` is the same attention as `reference`, as a Report.

    Both are objects or import strings; `kind` is module, function, model, replacement or auto; `profile` quick, gate or
    thorough. `deviations` maps names of checks to the reason why a difference is accepted. After `max_seconds`, or when
    interrupted, the report says that it is partial. Raises UsageError where the pair cannot be judged.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}: allowed are {', '.join(PROFILES)}")
    accepted = _accepted(deviations)
    subject = resolve(reference, candidate, kind=kind, device=device)
    chosen = choose(checks, tuple(exclude), subject.kind)
    heard = listener or _Silence()
    began = time.monotonic()
    until = began + max_seconds if max_seconds is not None else float("inf")
    results: list[CheckResult] = []
    searches: list[_Search] = []
    sensitivity = Sensitivity()
    complete = True
    try:
        dtypes, refused = _usable_dtypes(subject)
        if not dtypes and not refused:
            raise UsageError(
                f"the original {subject.reference_name} runs in none of {', '.join(DTYPES)} on {subject.device}: "
                f"{_raises(subject, _PROBES[0].but(**_model_fields(subject)), 'reference')}"
            )
        for check in chosen:
            search = _search(check, subject, profile, until, heard)
            began_check = time.monotonic()
            try:
                result = _hold(search, dtypes, refused, seed)
            except KeyboardInterrupt:
                # a difference that was already seen must not be lost with the rest
                if search.failed:
                    results.append(_declared(_result(search, refused, time.monotonic() - began_check), accepted))
                raise
            results.append(_declared(result, accepted))
            searches.append(search)
            heard.finished(results[-1])
            complete = complete and not search.stopped
        spent = time.monotonic() - began
        # a check with a declared deviation stops where it differs: what it would have noticed cannot be asked of it
        noticing = [s for s, r in zip(searches, results, strict=True) if r.outcome != "deviation"]
        sensitivity = _plant(subject, noticing, profile, seed, min(until, time.monotonic() + max(spent, 20.0)), heard)
        complete = complete and time.monotonic() <= until
    except KeyboardInterrupt:
        complete = False
    return Report(
        reference=subject.reference_name,
        candidate=subject.candidate_name,
        kind=subject.kind,
        device=_device_name(subject.device),
        profile=profile,
        seed=seed,
        results=tuple(results),
        sensitivity=sensitivity,
        complete=complete,
        seconds=time.monotonic() - began,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=_environment(subject.device),
        sources=_sources(subject),
    )


def _accepted(deviations: Mapping[str, str] | None) -> dict[str, str]:
    accepted = dict(deviations or {})
    known = [check.name for check in CHECKS]
    for name, reason in accepted.items():
        if name not in known:
            raise UsageError(f"unknown deviation {name!r}: it is the name of a check, one of {', '.join(known)}")
        if not str(reason).strip():
            raise UsageError(f"deviation {name!r} has no reason: say why the difference is accepted")
    return accepted


def _declared(result: CheckResult, accepted: Mapping[str, str]) -> CheckResult:
    reason = accepted.get(result.name)
    if reason is None:
        return result
    if result.outcome == "different":
        return replace(result, outcome="deviation", detail=f"declared: {reason}")
    return replace(result, notes=(*result.notes, f"the declared deviation no longer shows: {reason}"))


def _search(check: Check, subject: Subject, profile: str, until: float, heard: Listener) -> _Search:
    planned = check.cases[profile]

    def told(done: int) -> None:
        heard.progress(check.name, done, planned)

    return _Search(check, subject, planned, _SHRINK_S[profile], until, told)


def _hold(search: _Search, dtypes: Sequence[str], refused: Mapping[str, str], seed: int) -> CheckResult:
    began = time.monotonic()
    classes = _classes(search.check, search.subject, dtypes, search.planned)
    if not classes:
        return CheckResult(
            search.check.name, "unsupported", 0, detail="no dtype is left", unsupported=tuple(refused.values())
        )
    search.told(0)
    search.run(classes, _seed(seed, search.check.name))
    return _result(search, refused, time.monotonic() - began)


def _result(search: _Search, refused: Mapping[str, str], seconds: float) -> CheckResult:
    measured = [(held.ratio, case, held.where) for case, held in search.held.items() if held.ratio is not None]
    worst = max(measured, key=lambda m: m[0], default=None)
    notes = Counter(note for held in search.held.values() for note in held.notes)
    common: dict[str, Any] = {
        "cases": len(search.held) + len(search.failed),
        "seconds": seconds,
        "notes": tuple(f"{note} ({count} cases)" for note, count in notes.most_common()),
        "unsupported": tuple(refused.values()),
        "visited": _visited((*search.held, *search.failed)),
        "detail": f"out of time after {len(search.held)} of {search.planned} cases" if search.stopped else "",
    }
    if search.minimal is not None:
        mismatch = search.failed[search.minimal]
        return CheckResult(
            search.check.name,
            "different",
            worst_ratio=mismatch.ratio,
            worst_case=search.minimal.id,
            worst_where=mismatch.where,
            counterexample=Counterexample(
                search.minimal.id, str(mismatch), _replay_line(search, search.minimal), mismatch.ratio
            ),
            **common,
        )
    return CheckResult(
        search.check.name,
        "equivalent",
        worst_ratio=worst[0] if worst else None,
        worst_case=worst[1].id if worst else None,
        worst_where=worst[2] if worst else None,
        **common,
    )


def _replay_line(search: _Search, case: Case) -> str:
    s = search.subject
    return (
        f"equivcheck replay {case.id} {shlex.quote(s.reference_name)} {shlex.quote(s.candidate_name)} --kind {s.kind} "
        f"--device {s.device} --check {search.check.name}"
    )


def _visited(seen: Iterable[Case]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {name: Counter() for name in ("dtype", "regime", "mode", "layout", "length")}
    for case in seen:
        found["dtype"][case.dtype] += 1
        found["regime"][case.regime] += 1
        found["mode"]["train" if case.training else "eval"] += 1
        found["layout"][case.layout] += 1
        length = next(edge for edge in (1, 16, 64, 128, 256, 10**9) if case.seq_len <= edge)
        found["length"]["longer" if length == 10**9 else f"up to {length}"] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}


def _plant(
    subject: Subject, searches: Sequence[_Search], profile: str, seed: int, until: float, heard: Listener
) -> Sensitivity:
    """Put faults through the same checks and cases: each must be seen by one of them."""
    from equivcheck.planting import planted

    began = time.monotonic()
    ran = {s.check.name: s for s in searches if s.failed or any(held.judged for held in s.held.values())}
    faults = planted(subject, set(ran), profile, seed)
    survived, caught_by = [], {}
    for number, fault in enumerate(faults):
        heard.progress("sensitivity", number, len(faults))
        seen = _first_sighting(fault.subject, [ran[name] for name in fault.seen_by if name in ran], until)
        if seen:
            caught_by[fault.name] = seen
        else:
            survived.append(fault.name)
    heard.progress("sensitivity", len(faults), len(faults))
    return Sensitivity(tuple(fault.name for fault in faults), tuple(survived), caught_by, time.monotonic() - began)


def _first_sighting(fault: Subject, searches: Sequence[_Search], until: float) -> str:
    for search, case in _in_turn(searches):
        if time.monotonic() > until:
            return ""
        try:
            search.check.run(fault, case)
        except Mismatch:
            return f"{search.check.name} on {case.id}"
    return ""


def _in_turn(searches: Sequence[_Search]) -> Iterator[tuple[_Search, Case]]:
    """The run's cases, those of the first search first; within one, a wide float before a narrow one."""
    order = {"float64": 0, "float32": 1, "bfloat16": 2, "float16": 3}
    for search in searches:
        seen = (*search.held, *search.failed)
        for case in sorted(seen, key=lambda c: order[c.dtype]):
            yield search, case


def replay(
    reference: Any,
    candidate: Any,
    case_id: str,
    *,
    kind: str = "auto",
    device: str = "auto",
    checks: Sequence[str] | None = None,
) -> tuple[CheckResult, ...]:
    """Run the checks on one case again; the detail of each result has the whole comparison."""
    case = Case.parse(case_id)
    subject = resolve(reference, candidate, kind=kind, device=device)
    results = []
    for check in choose(checks, (), subject.kind):
        search = _Search(check, subject, 1, 0.0, float("inf"), lambda _: None)
        began = time.monotonic()
        with suppress(Mismatch):
            search.visit(case)
        result = _result(search, {}, time.monotonic() - began)
        told = result.counterexample.message if result.counterexample else "within budget"
        results.append(replace(result, detail=told))
    return tuple(results)


def assert_equivalent(reference: Any, candidate: Any, **options: Any) -> Report:
    """The report of `verify` where the pair is equivalent; else a Mismatch that tells the counterexamples."""
    report = verify(reference, candidate, **options)
    if report.equivalent:
        return report
    told = [
        f"{result.name}: {result.counterexample.message}\n  case {result.counterexample.case}\n  {result.counterexample.replay}"
        for result in report.results
        if result.outcome == "different" and result.counterexample
    ]
    if report.sensitivity.survived:
        told.append(f"insensitive: the planted faults {', '.join(report.sensitivity.survived)} were not seen")
    if not report.complete:
        told.append("partial: the run did not finish")
    worst = max((result.worst_ratio or 0.0 for result in report.results), default=0.0)
    raise Mismatch(f"{report.candidate} is {report.verdict}\n" + "\n".join(told), ratio=worst)


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _environment(device: torch.device) -> dict[str, str]:
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hypothesis": hypothesis.__version__,
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
    return found


def _sources(subject: Subject) -> dict[str, str]:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    found = {"equivcheck": digest.hexdigest()}
    for role, factory in (("reference", subject.reference), ("candidate", subject.candidate)):
        with suppress(TypeError, OSError):
            source = inspect.getsourcefile(factory)
            if source:
                found[role] = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return found


class _CallableModule(types.ModuleType):
    """`equivcheck.verify` names this module once somebody has imported it by name, and the function until then: call either."""

    def __call__(self, reference: Any, candidate: Any, **options: Any) -> Report:
        return verify(reference, candidate, **options)


sys.modules[__name__].__class__ = _CallableModule
