"""The time that a run spent: a short table, an optional field of a report, and nothing of it without the option."""

import json as stdlib_json
import math
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from sample_reports import FULL, OUTPUT, report_of

from equivcheck.report import codec, html, markdown, schema, time_table
from equivcheck.report.time_spent import Account, TimeSpent

SPENT = TimeSpent(
    {"reference": 1.0, "candidate": 2.0, "oracle": 5.0, "rest": 2.0},
    {
        "output": {"reference": 1.0, "candidate": 1.0},
        "sensitivity": {"candidate": 1.0, "oracle": 5.0},
        "other": {"rest": 2.0},
    },
)
KEPT = report_of(OUTPUT, time_spent=SPENT)


def test_the_table_has_share_and_seconds_of_each_part() -> None:
    assert time_table.lines(SPENT) == [
        "time spent, all processes  share  seconds",
        "reference                   10 %      1.0",
        "candidate                   20 %      2.0",
        "oracle                      50 %      5.0",
        "rest                        20 %      2.0",
        "all                        100 %     10.0",
        "longest: sensitivity 6.0 s, other 2.0 s, output 2.0 s",
    ]


def test_a_run_without_time_has_no_share() -> None:
    assert time_table.lines(TimeSpent()) == [
        "time spent, all processes  share  seconds",
        "all                            -      0.0",
    ]


def test_a_file_has_the_field_with_the_option_alone() -> None:
    with_it, without = codec.dumps(KEPT), codec.dumps(report_of(OUTPUT))
    assert stdlib_json.loads(with_it)["time_spent"]["parts"]["oracle"] == 5.0
    assert "time_spent" not in stdlib_json.loads(without)
    assert codec.loads(with_it) == KEPT
    assert codec.loads(without) == report_of(OUTPUT)
    for text in (with_it, without):
        jsonschema.validate(stdlib_json.loads(text), schema.schema())


def test_what_is_no_account_does_not_fit_the_schema() -> None:
    content = stdlib_json.loads(codec.dumps(KEPT))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "time_spent": {"parts": {"oracle": "long"}, "stages": {}}}, schema.schema())


def test_markdown_and_page_show_it_with_the_option_alone() -> None:
    assert "| oracle | 50 % | 5.0 |" in markdown.render(KEPT)
    assert "longest: sensitivity 6.0 s" in markdown.render(KEPT)
    assert "5.0 s (50 %)" in html.render(replace(FULL, time_spent=SPENT))
    for text in (markdown.render(FULL), html.render(FULL)):
        assert "time spent" not in text.lower()


def test_processes_are_added_up() -> None:
    account = Account()
    account.add({"output": {"oracle": 1.0, "rest": 2}})
    account.add({"output": {"oracle": 0.5}, "other": {"rest": 4.0}})
    spent = account.so_far()
    assert (spent.parts["oracle"], spent.parts["rest"], spent.parts["candidate"]) == (1.5, 6.0, 0.0)
    assert spent.stages == {"output": {"oracle": 1.5, "rest": 2.0}, "other": {"rest": 4.0}}
    account.add({"output": {"oracle": 1.0}})
    assert spent.stages["output"]["oracle"] == 1.5
    assert account.so_far().parts["oracle"] == 2.5


@pytest.mark.parametrize(
    "forged",
    [None, 3, [], {"output": 3}, {"output": {"sleep": 1.0}}, {"output": {"oracle": "x"}}]
    + [{"output": {"oracle": value}} for value in (-1.0, math.nan, math.inf)],
)
def test_what_code_under_test_may_send_is_left_out(forged: Any) -> None:
    account = Account()
    account.add(forged)
    assert account.so_far().total_s == 0.0
