"""Word files: paragraphs and tables in document order, then the notes.

The element tree is walked here, since the paragraphs of python-docx leave out tracked
insertions, content controls and text boxes. Page headers and footers are left out on purpose:
they repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZipFile

from clara.errors import DamagedFile, EncryptedFile
from clara.extraction.content import Content, Element, gather, parsing

if TYPE_CHECKING:
    from docx.document import Document

UNPACKED_BYTES = 200 * 10**6
"""Most bytes the parts of one file may take unpacked: a few hundred novels, or an attack."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How the older container begins: .doc files, and .docx files with a password."""
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TEXT = {f"{_W}t", "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"}
_MARKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_SKIPPED = {f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr"} | {
    # the same drawing once more, for programs that know only the older form
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
}


def read_docx(name: str, data: bytes, max_chars: int) -> Content:
    """Blocks joined by a blank line, cells by ` | `; title from the properties or first heading."""
    from docx import Document
    from docx.oxml import parse_xml

    with parsing(name, "a Word file"):
        _check_container(name, data)
        document = Document(BytesIO(data))
        trees = [document.element.body]
        for relation in document.part.rels.values():
            if relation.reltype.endswith(("/footnotes", "/endnotes")):
                trees.append(parse_xml(relation.target_part.blob))
        blocks = (block for tree in trees for block in _blocks(tree))
        return Content(_title(document), gather(name, blocks, max_chars=max_chars))


def _check_container(name: str, data: bytes) -> None:
    if data.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise EncryptedFile(
                f"{name} needs a password",
                field=name,
                remedy="Remove the password and send the file again.",
            )
        raise DamagedFile(
            f"{name} is a Word file of the older kind, .doc",
            field=name,
            remedy="Save it as .docx.",
        )
    with ZipFile(BytesIO(data)) as archive:
        # zipfile reads no more of a part than it declares, so this bounds what is unpacked
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > UNPACKED_BYTES:
        raise DamagedFile(
            f"{name} unpacks to {unpacked:,} bytes; the limit is {UNPACKED_BYTES:,}",
            field=name,
            limit=UNPACKED_BYTES,
            remedy="Split it into several files.",
        )


def _blocks(element: Element) -> Iterator[str]:
    """Each paragraph, and each table with a line per row, inside any wrapping element."""
    for child in element:
        if child.tag == f"{_W}p":
            yield _text(child)
        elif child.tag == f"{_W}tbl":
            yield "\n".join(filter(None, map(_row, _nearest(child, f"{_W}tr"))))
        elif child.tag not in _SKIPPED:
            yield from _blocks(child)


def _row(row: Element) -> str:
    cells = [" ".join(" ".join(_blocks(cell)).split()) for cell in _nearest(row, f"{_W}tc")]
    return " | ".join(cells) if any(cells) else ""


def _nearest(element: Element, tag: str) -> Iterator[Element]:
    """Elements of a kind inside any wrapping element, but not those of a nested table."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag not in _SKIPPED:
            yield from _nearest(child, tag)


def _text(element: Element) -> str:
    """The text of a paragraph, with that of the boxes anchored in it on lines of their own."""
    return "".join(_pieces(element))


def _pieces(element: Element) -> Iterator[str]:
    for child in element:
        if child.tag in _TEXT:
            yield child.text or ""
        elif child.tag in _MARKS:
            yield _MARKS[child.tag]
        elif child.tag == f"{_W}txbxContent":
            yield "\n" + "\n".join(_blocks(child)) + "\n"
        elif child.tag not in _SKIPPED:
            yield from _pieces(child)


def _title(document: Document) -> str:
    from docx.opc.constants import RELATIONSHIP_TYPE as RELATION

    properties = any(
        relation.reltype == RELATION.CORE_PROPERTIES
        for relation in document.part.package.rels.values()
    )
    # without that part python-docx makes one up, titled "Word Document"
    if properties and document.core_properties.title.strip():
        return str(document.core_properties.title)
    for paragraph in document.paragraphs:
        style = paragraph.style.name if paragraph.style else None
        if style and style.startswith(("Title", "Heading")) and paragraph.text.strip():
            return paragraph.text
    return ""
