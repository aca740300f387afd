"""What is to be read on a page."""

from html.parser import HTMLParser


class Text(HTMLParser):
    """What is to be read on a page, and the tags and addresses in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.tags, self.addresses = [], set(), []  # type: ignore[var-annotated]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = ("src", "href", "xlink:href", "action", "srcset", "data", "poster")
        self.addresses += [value or "" for name, value in attrs if name in named]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
