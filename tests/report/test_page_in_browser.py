"""The page can be read in a real browser by everybody."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser
from sample_reports import FULL, PAGES, SPEED

from equivcheck.report import html

in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed here (Debian: apt install chromium)"
)


# every text that can be seen, with what WCAG 2 makes of its colour on what lies behind it
CONTRAST = """
(() => {
  const parse = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n };
  const over = (a, b) => a.slice(0, 3).map((x, i) => x * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => { const [r, g, b] = c.map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4 });
                       return .2126 * r + .7152 * g + .0722 * b };
  const behind = e => { const stack = []; for (; e; e = e.parentElement) stack.push(parse(getComputedStyle(e).backgroundColor));
                        return stack.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]) };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, style = getComputedStyle(e);
    if (!walk.currentNode.data.trim() || !e.getClientRects().length || e.tagName === 'STYLE') continue;
    const paper = behind(e), ink = over(parse(e.closest('svg') ? style.fill : style.color), paper);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const told = [e.tagName, e.className.baseVal ?? e.className, walk.currentNode.data.trim().slice(0, 40), ratio];
    if (ratio < (large ? 3 : 4.5)) found.push(told);
  }
  return found;
})()
"""


# what assistive technology stumbles over, and what no reader can reach
STRUCTURE = """
(() => {
  const found = [], all = s => [...document.querySelectorAll(s)];
  const ids = all('[id]').map(e => e.id);
  if (new Set(ids).size !== ids.length) found.push('an id stands twice: ' + ids.filter((x, i) => ids.indexOf(x) !== i));
  if (!document.documentElement.lang || !document.title) found.push('no language or no title');
  if (all('main').length !== 1 || all('h1').length !== 1) found.push('not one main and one h1');
  all('[aria-labelledby]').forEach(e =>
    document.getElementById(e.getAttribute('aria-labelledby')) || found.push('a label is missing'));
  all('table').forEach(t => { if (!t.caption || !t.querySelector('th[scope]')) found.push('a table without caption or headings') });
  all('[role=img], [role=region]').forEach(e => e.getAttribute('aria-label') || found.push('a region without a name'));
  all('.wide').forEach(e => e.tabIndex === 0 || found.push('what scrolls cannot be reached with the keyboard'));
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push('the page is ' + wide + ' px too wide');
  return found;
})()
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as page:
        yield page


@in_a_browser
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it_to_everybody(tab: Page, tmp_path: Path, name: str, dark: bool, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(html.render(PAGES[name], SPEED.get(name)), encoding="utf-8")
    tab.show(file, width=width, dark=dark)
    assert tab.requested == [file.as_uri()]
    assert tab.complaints == []
    assert tab.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert tab.run(CONTRAST) == []
    assert tab.run(STRUCTURE) == []
    headings = tab.headings()
    assert headings[0][0] == 1
    assert all(below <= above + 1 for (above, _), (below, _) in pairwise(headings))
    assert all(text.strip() for _, text in headings)


@in_a_browser
def test_on_paper_it_is_dark_on_white_whatever_the_screen_likes(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html.render(FULL), encoding="utf-8")
    tab.show(file, width=800, dark=True, paper=True)
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run(CONTRAST) == []


@in_a_browser
def test_the_checks_in_a_browser_can_fail(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    bad = "<p style='color:#999;background:#fff'>pale</p><div style='width:3000px'>wide</div><h4>deep</h4>"
    file.write_text(f"<!doctype html><title>x</title>{bad}<img src='https://example.invalid/x.png'>")
    tab.show(file)
    tab.run("new Promise(done => setTimeout(done, 200)).then(() => console.error('no'))")
    assert "https://example.invalid/x.png" in tab.requested
    assert tab.complaints
    assert [text for _, _, text, _ in tab.run(CONTRAST)] == ["pale"]
    assert len(tab.run(STRUCTURE)) == 3
    assert tab.headings() == [(4, "deep")]
