"""HTML: the main text, or all that is visible where no part stands out."""

from __future__ import annotations

from collections.abc import Iterator

from clara.errors import DamagedFile
from clara.extraction.content import Content, Element, gather, parsing
from clara.extraction.plain import decode
from clara.texts import clean_text

# fmt: off
_INVISIBLE = {
    "title", "script", "style", "template", "noscript", "svg", "math", "iframe", "object", "audio",
    "video", "canvas",
}
_INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time",
    "tt", "u", "var", "wbr",
}
# fmt: on
"""Elements that do not end a line."""
_METADATA = {"title", "meta", "link", "script", "style", "base", "noscript", "template"}
"""What belongs into a head."""


def read_html(name: str, data: bytes, max_chars: int) -> Content:
    """The main text of a page, without navigation; title from `<title>`, else the first `<h1>`."""
    source = clean_text(decode(name, data))
    with parsing(name, "HTML"):
        tree = _parse(name, source)
        if tree is None:
            return Content("", "")
        title = _first_text(tree, "//title[not(ancestor::svg)]") or _first_text(tree, "//h1")
        _move_out_of_head(tree)
        return Content(title, gather(name, [_chosen_text(tree)], max_chars=max_chars))


def _parse(name: str, source: str) -> Element | None:
    """The element tree, or None for a page without elements."""
    import lxml.etree  # type: ignore[import-untyped, unused-ignore]
    import lxml.html  # type: ignore[import-untyped, unused-ignore]

    if not source.strip():
        return None
    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True
    )
    try:
        tree: Element = lxml.html.document_fromstring(source.encode(), parser=parser)
    except lxml.etree.ParserError:  # nothing but comments, say
        return None
    for entry in parser.error_log:
        if entry.type_name == "ERR_NO_MEMORY":
            raise MemoryError
        if "Excessive depth" in entry.message:  # the parser leaves out what lies deeper
            raise DamagedFile(
                f"{name} nests its elements too deeply: {entry.message}",
                field=name,
                limit=2048,
                remedy="Save the page as plain text.",
            )
    return tree


def _move_out_of_head(tree: Element) -> None:
    """Where `<body>` is left out, libxml2 keeps in the head what HTML 4 did not know: `<main>`."""
    head, body = tree.find("head"), tree.find("body")
    if head is None or all(child.tag in _METADATA for child in head):
        return
    for title in head.xpath("./title"):
        title.drop_tree()
    if body is None:
        head.tag = "body"
    else:
        head.tag = "div"
        head.tail, body.text = body.text, None
        body.insert(0, head)


def _chosen_text(tree: Element) -> str:
    """The main text, or all visible text where none was found or it is all.

    On a short page trafilatura takes everything, and then ends a line at every inline element.
    """
    import trafilatura

    main = trafilatura.extract(tree, favor_recall=True) or ""
    visible = "\n".join(filter(None, _visible(tree)))
    return visible if "".join(main.split()) in {"", "".join(visible.split())} else main


def _first_text(tree: Element, path: str) -> str:
    found = (element.text_content().strip() for element in tree.xpath(path))
    return next((text for text in found if text), "")


def _visible(tree: Element) -> Iterator[str]:
    """The text of each block in turn, white space collapsed as a browser does."""
    from lxml.etree import iterwalk  # type: ignore[import-untyped, unused-ignore]

    line: list[str] = []
    hidden: Element | None = None
    for event, element in iterwalk(tree, events=("start", "end")):
        if hidden is None and element.tag not in _INLINE | _INVISIBLE:
            yield " ".join("".join(line).split())
            line = []
        if event == "start":
            if hidden is None and element.tag in _INVISIBLE:
                hidden = element
            piece = element.text
        else:
            if hidden is element:
                hidden = None
            piece = element.tail
        if hidden is None:
            line.append(piece or "")
    yield " ".join("".join(line).split())
