"""The descriptions of the fields of a shard's record, for the JSON Schema of a report."""

from typing import Any

from equivcheck.report.case_outcomes import CaseOutcome
from equivcheck.report.shard import FurtherFinding, PlannedCheck, Shard, ShardCoverage, ShardFault, ShardPiece

__all__ = ["OF_SHARDS"]

OF_SHARDS: dict[type[Any], dict[str, str]] = {
    Shard: {
        "number": "The number of the shard, from 1.",
        "of": "How many shards there are.",
        "plan_sha256": "SHA-256 of the plan of the whole run; empty if the run ended before there was one.",
        "plan": "The checks of the whole run, in their order.",
        "refused": "The dtypes that were left out, each with the reason.",
        "notes_before": "Notes on the whole run that stand before those of the first check.",
        "notes_after": "Notes on the whole run that stand after those of the first check.",
        "pieces": "The classes of cases of this shard.",
        "further": "Differences of a check behind its first one.",
        "faults": "The planted faults, tried on the cases of this shard.",
        "coverage": "The combinations of classes of factors that the cases do not meet, by class of cases.",
    },
    PlannedCheck: {
        "name": "The check.",
        "planned": "Its number of cases in the whole run.",
        "classes": "Its number of classes of cases in the whole run.",
        "judges": "Whether it compares; false if it only records.",
        "replay": "The command that shows a case again, with CASE in the place of the id.",
    },
    ShardPiece: {
        "check": "The check.",
        "number": "The number of the class among the classes of the check.",
        "failed_first": "Whether a case failed that is run before all others.",
        "outcomes": "The outcomes of its cases: those that passed, then those that failed.",
        "minimal": "Id of the smallest case that fails; null if none does.",
        "stopped": "Whether time ran out.",
        "seconds": "How long that took.",
        "diagnosis": "Its cause, region and place, if they are known.",
        "level": "The level of the difference, if evidence gives another one than the check's.",
    },
    FurtherFinding: {
        "check": "The check.",
        "smallest": "The outcome of the smallest case.",
        "diagnosis": "Its cause, region and place, if they are known.",
        "level": "The level of the difference, if evidence gives another one than the check's.",
    },
    ShardFault: {
        "name": "The fault.",
        "level": "The level at which it is wrong.",
        "check": "The check that should see it.",
        "of_candidate": "Whether it is planted around the candidate.",
        "seen": "The check and the case that saw it first; empty if none did, null if time ran out.",
        "decides": "Whether this shard is the one that decides the next two for all.",
        "left_out": "Whether this shard has decided that too few cases would show it.",
        "without_effect": "Whether this shard has decided that it changes nothing around this pair.",
    },
    ShardCoverage: {
        "check": "The check.",
        "number": "The number of the class among the classes of the check.",
        "strength": "`pairs`, for combinations of two classes.",
        "of": "How many combinations there are.",
        "not_met": "Those that no case meets, by reason: a hexadecimal number with a bit for each combination in order.",
    },
    CaseOutcome: {
        "case": "Id of the case.",
        "visited": "Its value of each dimension of the case space.",
        "ratio": "Its error / budget; null if none was measured.",
        "where": "The tensor with that ratio, or the kind of error.",
        "notes": "Observations that are not judged.",
        "unsupported": "The loud refusals of the candidate.",
        "judged": "Whether anything was compared.",
        "failed": "The difference in words; null if there is none.",
        "origin": "The kind of the failure.",
        "spot": "Where and how large the difference is: fields of a counterexample.",
        "died": "How the process of the case ended: died, hang or memory; empty if it did not end.",
        "data": "The kernels that ran, by dtype.",
        "applies": "Whether the property has a meaning for the pair.",
        "reason": "Why nothing was compared, in one word.",
        "finding": "The part of the property that fails; empty for the main part.",
        "outside": "Whether the original refuses the case, so that another one was drawn.",
    },
}
"""Class -> field -> its description."""
