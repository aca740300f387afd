"""Markdown: the verdict first, and strange names as they are."""

from dataclasses import replace

from sample_reports import BROKEN, CASE, GRADIENTS, report_of

from equivcheck.report import markdown
from equivcheck.report.model import Counterexample


def test_markdown_shows_strange_names_as_they_are() -> None:
    name = "a|b`c``<script>alert(1)</script>"
    message = "```\n# not a heading\n```"
    strange = replace(BROKEN, name=name, counterexample=Counterexample(CASE, message, "equivcheck replay"))
    text = markdown.render(report_of(strange, replace(GRADIENTS, notes=("<b>@someone</b> a_b_c",))))
    row = next(line for line in text.splitlines() if line.startswith("| ```a"))
    assert row.startswith("| ```a\\|b`c``<script>alert(1)</script>``` | different | 60 |")
    assert row.replace("\\|", "").count("|") == 6
    assert "````text\n```\n# not a heading\n```\n````" in text
    assert "&lt;b>@<!-- -->someone&lt;/b> a\\_b\\_c" in text


def test_markdown_begins_with_the_verdict() -> None:
    assert markdown.render(report_of(BROKEN)).startswith(
        "# equivcheck: different at values\n\n**different at values**: output, 60 cases"
    )
