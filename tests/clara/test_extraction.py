from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from docx import Document
from docx.document import Document as WordDocument
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from fpdf import FPDF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clara.errors import (
    ClaraError,
    DamagedFile,
    EmptyText,
    EncryptedFile,
    FileWithoutText,
    InvalidInput,
    InvalidText,
    TextTooLong,
    UnsupportedFile,
)
from clara.extraction import extract, extract_isolated, find_files, read_jsonl, word
from clara.extraction.pdf import join_broken_words

MANY = 1_000_000

PAGE = """<!doctype html>
<html><head><title>Compression &amp; retrieval</title><script>var secret = 1</script></head>
<body><nav><a href="/">Home</a> <a href="/about">About us</a></nav>
<main><h1>Heading</h1>
<p>Latents are kept so that a passage is compressed once, and every question is cheap.</p>
<p>The second paragraph says so once more in other words, to make the main text long enough.</p>
</main><script>alert("secret")</script></body></html>"""


def pdf(*pages: str, title: str = "", prepare: Callable[[FPDF], None] | None = None) -> bytes:
    file = FPDF()
    file.set_font("Helvetica", size=12)
    if title:
        file.set_title(title)
    if prepare:
        prepare(file)
    for page in pages:
        file.add_page()
        file.multi_cell(0, 6, page)
    return bytes(file.output())


def locked_pdf(user_password: str) -> bytes:
    return pdf(
        "secret words",
        prepare=lambda file: file.set_encryption("owner", user_password=user_password),
    )


def scan() -> bytes:
    file = FPDF()
    file.add_page()
    file.image(Image.new("L", (40, 40), 200), w=100)
    return bytes(file.output())


def docx(fill: Callable[[WordDocument], object], *, title: str = "") -> bytes:
    document = Document()
    document.core_properties.title = title
    fill(document)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def zipped(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return file.getvalue()


def refused(name: str, data: bytes, *, max_chars: int = MANY) -> ClaraError:
    with pytest.raises(ClaraError) as error:
        extract(name, data, max_chars=max_chars)
    assert error.value.field == name
    assert error.value.remedy
    assert name in error.value.message
    return error.value


# plain text and Markdown


def test_a_plain_text_is_kept_as_it_is_and_titled_by_its_name() -> None:
    document = extract("notes/My trip.TXT", "  Füße\n\n e\u0301 \n".encode(), max_chars=MANY)
    assert document.text == "  Füße\n\n e\u0301 \n"
    assert document.title == "My trip"
    assert document.external_id == document.source == "notes/My trip.TXT"


def test_a_windows_path_is_titled_by_its_last_part() -> None:
    assert extract("C:\\notes\\trip.txt", b"words", max_chars=MANY).title == "trip"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_the_encoding_and_is_left_out(encoding: str) -> None:
    assert extract("a.txt", "Füße".encode(encoding), max_chars=MANY).text == "Füße"


def test_big_endian_utf_16_is_read_by_its_mark() -> None:
    data = codecs.BOM_UTF16_BE + "Füße".encode("utf-16-be")
    assert extract("a.md", data, max_chars=MANY).text == "Füße"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_latin_1_is_refused_with_the_offset_of_its_first_byte(name: str) -> None:
    error = refused(name, "über Füße".encode("latin-1"))
    assert isinstance(error, InvalidText)
    assert error.message == f"{name} is not UTF-8 text: byte 0xFC at offset 0"
    assert "at offset 5" in str(refused(name, b"caf\xc3\xa9\xe9"))


def test_the_offset_counts_the_byte_order_mark() -> None:
    assert "at offset 4" in str(refused("a.txt", codecs.BOM_UTF8 + b"a\xff"))
    assert "at offset 2" in str(refused("a.txt", codecs.BOM_UTF16_LE + b"\x00\xdcab"))


def test_utf_16_without_a_mark_is_refused_not_mangled() -> None:
    assert isinstance(refused("a.txt", "plain words".encode("utf-16-le")), InvalidText)


def test_control_characters_of_a_file_are_removed_and_line_ends_made_equal() -> None:
    document = extract("a.txt", b"one\r\ntwo\fthree\x00\x1b\x7f\tfour", max_chars=MANY)
    assert document.text == "one\ntwo\nthree\tfour"


@pytest.mark.parametrize("data", [b"", b" \n\t\r\n", codecs.BOM_UTF8, b"\x00\x00 \f  \n\n\n\n\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.markdown"])
def test_a_text_file_of_white_space_is_refused(name: str, data: bytes) -> None:
    assert isinstance(refused(name, data), EmptyText)


def test_one_character_over_the_limit_is_refused() -> None:
    assert extract("a.txt", b"12345", max_chars=5).text == "12345"
    error = refused("a.txt", b"123456", max_chars=5)
    assert isinstance(error, TextTooLong)
    assert error.limit == 5


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# First *one*\n# Second", "First *one*"),
        ("words\n\n### Third level ###\n", "Third level"),
        ("Underlined\n=====\n\n# Later", "Underlined"),
        ("```bash\n# a comment\n```\n\n# Real", "Real"),
        ("---\nname: x\n# not this\n---\n# Real", "Real"),
        ("# C#\n", "C#"),
        ("#hashtag\n    # code\n", "file"),
        ("##\n\nno words in that heading", "file"),
    ],
)
def test_the_first_heading_of_a_markdown_file_is_its_title(text: str, title: str) -> None:
    document = extract("file.md", text.encode(), max_chars=MANY)
    assert (document.title, document.text) == (title, text)


# HTML


def test_the_main_text_of_a_page_comes_without_navigation_and_scripts() -> None:
    document = extract("page.html", PAGE.encode(), max_chars=MANY)
    assert document.title == "Compression & retrieval"
    assert "a passage is compressed once" in document.text
    assert "The second paragraph" in document.text
    assert "About us" not in document.text
    assert "secret" not in document.text


def test_without_a_title_the_first_heading_serves_and_else_the_name() -> None:
    page = re.sub("<title>.*</title>", "", PAGE)
    assert extract("page.htm", page.encode(), max_chars=MANY).title == "Heading"
    page = page.replace("h1", "p")
    assert extract("page.htm", page.encode(), max_chars=MANY).title == "page"


@pytest.mark.parametrize("tag", ["nav", "footer", "p"])
def test_where_no_main_text_stands_out_all_visible_text_is_taken(tag: str) -> None:
    page = f"<title>T</title><{tag}>Home<script>x()</script> <b>a</b>nd<br>more</{tag}>"
    assert extract("a.html", page.encode(), max_chars=MANY).text == "Home and\nmore"


@pytest.mark.parametrize("after", ["", "<p>and more words", "and more words"])
def test_no_text_is_lost_where_the_page_leaves_out_its_body_element(after: str) -> None:
    page = f"<title>T</title><main>Some <b>word</b>s first</main>{after}"
    text = extract("a.html", page.encode(), max_chars=MANY).text
    assert text == f"Some words first\n{after.removeprefix('<p>')}".strip()


@pytest.mark.parametrize(
    "page", ["just words", "<p>just words", "<?xml version='1.0'?><p>just words"]
)
def test_a_fragment_is_a_page_too(page: str) -> None:
    assert extract("a.html", page.encode(), max_chars=MANY).text == "just words"


def test_a_declared_encoding_does_not_overrule_the_bytes() -> None:
    page = '<meta charset="iso-8859-1"><p>Füße</p>'
    assert extract("a.html", page.encode(), max_chars=MANY).text == "Füße"


@pytest.mark.parametrize(
    "page", ["", " ", "<!-- x -->", "<title>T</title><script>x()</script>", "<p>&#1; </p>"]
)
def test_a_page_without_text_is_refused(page: str) -> None:
    assert isinstance(refused("a.html", page.encode()), FileWithoutText)


def test_text_in_deeply_nested_elements_is_found_or_the_page_refused() -> None:
    def page(depth: int) -> bytes:
        return ("<div>" * depth + "<p>deep words</p>" + "</div>" * depth + "<p>after</p>").encode()

    assert "deep words" in extract("a.html", page(400), max_chars=MANY).text
    assert isinstance(refused("a.html", page(3000)), DamagedFile)


def test_a_page_longer_than_the_limit_is_refused() -> None:
    assert isinstance(refused("a.html", PAGE.encode(), max_chars=50), TextTooLong)


# PDF


def test_pages_are_joined_by_a_blank_line() -> None:
    document = extract("a.PDF", pdf("Page one.", "Page two.", title="My title"), max_chars=MANY)
    assert document.text == "Page one.\n\nPage two."
    assert document.title == "My title"


def test_a_pdf_without_a_title_is_titled_by_its_name() -> None:
    assert extract("folder/report.pdf", pdf("words"), max_chars=MANY).title == "report"


def test_a_word_broken_at_a_line_end_is_joined_where_it_stands_whole_elsewhere() -> None:
    text = "Compression is well-\nknown. This com-\npression and that un-\nseen one, EU-\nRule"
    joined = "Compression is well-\nknown. This compression and that un-\nseen one, EU-\nRule"
    assert join_broken_words(text) == joined


def test_a_pdf_with_a_password_is_refused() -> None:
    error = refused("a.pdf", locked_pdf("sesame"))
    assert isinstance(error, EncryptedFile)
    assert "password" in str(error)


def test_a_pdf_with_an_empty_password_opens() -> None:
    assert extract("a.pdf", locked_pdf(""), max_chars=MANY).text == "secret words"


def test_a_pdf_under_another_protection_is_refused_as_encrypted() -> None:
    data = locked_pdf("").replace(b"/Filter /Standard", b"/Filter /Acme.Safe")
    assert isinstance(refused("a.pdf", data), EncryptedFile)


def test_a_scan_is_refused_with_advice() -> None:
    error = refused("a.pdf", scan())
    assert isinstance(error, FileWithoutText)
    assert "text recognition" in (error.remedy or "")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_pdf_cut_short_is_damaged(share: float) -> None:
    data = pdf("Page one.", "Page two.")
    assert isinstance(refused("a.pdf", data[: int(len(data) * share)]), DamagedFile)


def test_a_pdf_that_lost_a_page_is_refused_though_it_opens() -> None:
    pages = re.findall(rb"\d+ 0 obj\s*<<[^>]*/Type /Page\s.*?endobj\n", data := pdf("1", "2"), re.S)
    error = refused("a.pdf", data.replace(pages[1], b""))
    assert isinstance(error, DamagedFile)
    assert "1 of the 2 pages" in str(error)


def test_a_pdf_that_lost_the_contents_of_a_page_is_refused_though_it_opens() -> None:
    streams = re.findall(rb"\d+ 0 obj\s*<<[^>]*/Length.*?endobj\n", data := pdf("1", "2"), re.S)
    error = refused("a.pdf", data.replace(streams[1], b""))
    assert isinstance(error, DamagedFile)
    assert "page 2 of 2" in str(error)


def test_a_pdf_longer_than_the_limit_is_refused() -> None:
    assert isinstance(refused("a.pdf", pdf("words " * 50), max_chars=100), TextTooLong)


# Word


def test_paragraphs_and_tables_come_in_document_order() -> None:
    def fill(document: WordDocument) -> None:
        document.add_paragraph("before")
        table = document.add_table(2, 3)
        for row, words in zip(
            table.rows, (["Name", "", "Price"], ["Coat", "new", "149"]), strict=True
        ):
            for cell, text in zip(row.cells, words, strict=True):
                cell.text = text
        document.add_paragraph("")
        document.add_paragraph("after\nthe break")

    document = extract("a.docx", docx(fill), max_chars=MANY)
    assert document.text == "before\n\nName |  | Price\nCoat | new | 149\n\nafter\nthe break"


def test_cells_that_span_and_tables_in_tables_are_read_once() -> None:
    def fill(document: WordDocument) -> None:
        table = document.add_table(1, 3)
        table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
        table.cell(0, 2).text = "outer"
        table.cell(0, 2).add_table(1, 2).cell(0, 1).text = "inner"

    assert extract("a.docx", docx(fill), max_chars=MANY).text == "wide | outer | inner"


def test_insertions_and_content_controls_are_read_and_deletions_are_not() -> None:
    def fill(document: WordDocument) -> None:
        body = document.element.body
        run = "<w:r><w:t>{}</w:t></w:r>"
        body.insert(0, parse_xml(
            f"<w:p {nsdecls('w')}><w:ins>{run.format('inserted')}</w:ins><w:del>"
            f"<w:r><w:delText>deleted</w:delText></w:r></w:del>{run.format(' words')}</w:p>"
        ))  # fmt: skip
        body.insert(1, parse_xml(
            f"<w:sdt {nsdecls('w')}><w:sdtContent><w:p>{run.format('controlled')}</w:p>"
            "</w:sdtContent></w:sdt>"
        ))  # fmt: skip

    assert extract("a.docx", docx(fill), max_chars=MANY).text == "inserted words\n\ncontrolled"


def test_notes_come_after_the_text() -> None:
    def fill(document: WordDocument) -> None:
        document.add_paragraph("text")
        notes = f"<w:footnotes {nsdecls('w')}><w:footnote><w:p><w:r><w:t>a note</w:t></w:r></w:p>"
        blob = f"{notes}</w:footnote></w:footnotes>".encode()
        kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
        part = Part(PackURI("/word/footnotes.xml"), kind, blob, document.part.package)
        document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)

    assert extract("a.docx", docx(fill), max_chars=MANY).text == "text\n\na note"


def test_the_title_is_that_of_the_properties_else_the_first_heading_else_the_name() -> None:
    def fill(document: WordDocument) -> None:
        document.add_paragraph("words")
        document.add_heading("The heading", 2)

    assert extract("a.docx", docx(fill, title="Set"), max_chars=MANY).title == "Set"
    assert extract("a.docx", docx(fill), max_chars=MANY).title == "The heading"
    plain = docx(lambda document: document.add_paragraph("words"))
    assert extract("a.docx", plain, max_chars=MANY).title == "a"


def test_a_word_file_without_properties_has_no_made_up_title() -> None:
    with zipfile.ZipFile(io.BytesIO(docx(lambda file: file.add_paragraph("words")))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    rels = parts["_rels/.rels"]
    parts["_rels/.rels"] = re.sub(rb"<Relationship [^>]*core-properties[^>]*/>", b"", rels)
    assert extract("a.docx", zipped(parts), max_chars=MANY).title == "a"


@pytest.mark.parametrize("data", [b"", b"words", zipped({"a": b"b"})])
def test_what_is_no_word_file_is_damaged(data: bytes) -> None:
    assert isinstance(refused("a.docx", data), DamagedFile)


def test_a_word_file_cut_short_is_damaged() -> None:
    data = docx(lambda document: document.add_paragraph("words"))
    assert isinstance(refused("a.docx", data[:-200]), DamagedFile)


def test_an_empty_word_file_is_refused() -> None:
    assert isinstance(refused("a.docx", docx(lambda _: None)), FileWithoutText)


def test_a_word_file_that_unpacks_to_too_much_is_refused_before_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(word, "UNPACKED_BYTES", 10**6)
    error = refused("a.docx", zipped({"word/document.xml": bytes(10**6 + 1)}))
    assert isinstance(error, DamagedFile)
    assert error.message == "a.docx unpacks to 1,000,001 bytes; the limit is 1,000,000"
    assert error.limit == 10**6


def test_the_older_word_container_is_told_apart_from_a_password() -> None:
    container = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)
    assert isinstance(refused("a.docx", container), DamagedFile)
    locked = container + "EncryptedPackage".encode("utf-16-le")
    assert isinstance(refused("a.docx", locked), EncryptedFile)


# any file


@pytest.mark.parametrize("name", ["a.doc", "archive.tar.gz", "README", ".pdf"])
def test_a_file_of_another_kind_is_refused_with_the_kinds_there_are(name: str) -> None:
    error = refused(name, b"words")
    assert isinstance(error, UnsupportedFile)
    assert ".txt, .md, .markdown, .html, .htm, .pdf, .docx" in (error.remedy or "")


def test_a_name_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidText) as error:
        extract("a\udcff.txt", b"words", max_chars=MANY)
    assert error.value.field == "a\\udcff.txt"


def test_a_title_has_no_line_ends_and_an_end() -> None:
    page = f"<title>\n A \x01 long\n{'x' * 1000}</title><p>words</p>"
    title = extract("a.html", page.encode(), max_chars=MANY).title
    assert title.startswith("A long xxx")
    assert len(title) == 300


SEEDS = {
    "a.pdf": pdf("Page one.", "Page two."),
    "a.docx": docx(lambda document: document.add_paragraph("words")),
    "a.html": PAGE.encode(),
    "a.md": b"# Title\n\nwords",
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_whatever_the_bytes_are_there_is_a_document_or_an_error_of_ours(
    name: str, data: st.DataObject
) -> None:
    seed = SEEDS[name]
    cut = data.draw(st.integers(0, len(seed)))
    damaged = seed[:cut] + data.draw(st.binary(max_size=20)) + seed[cut + 10 :]
    with suppress(InvalidInput):
        assert extract(name, damaged, max_chars=MANY).text.strip()


# in a process of its own


@pytest.mark.parametrize(
    ("name", "data", "max_chars"),
    [
        ("a.doc", b"words", MANY),
        ("a.pdf", locked_pdf("sesame"), MANY),
        ("a.pdf", scan(), MANY),
        ("a.docx", b"words", MANY),
        ("a.html", b"\xff", MANY),
        ("a.html", PAGE.encode(), 50),
        ("a.txt", b" ", MANY),
        ("a\x00.pdf", b"", MANY),
    ],
)
def test_errors_are_the_same_from_a_process_of_its_own(
    name: str, data: bytes, max_chars: int
) -> None:
    with pytest.raises(ClaraError) as here:
        extract(name, data, max_chars=max_chars)
    with pytest.raises(ClaraError) as there:
        extract_isolated(name, data, max_chars=max_chars)
    assert type(there.value) is type(here.value)
    assert there.value.as_dict() == here.value.as_dict()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("dir/ä b.html", PAGE.encode()),
        ("-x.pdf", pdf("Füße", title="Größe")),
        ("a.docx", docx(lambda document: document.add_paragraph("emoji \U0001f600"))),
        ("a.txt", b"words"),
    ],
)
def test_documents_are_the_same_from_a_process_of_its_own(name: str, data: bytes) -> None:
    assert extract_isolated(name, data, max_chars=MANY) == extract(name, data, max_chars=MANY)


def test_a_file_that_takes_too_long_is_refused_with_the_limit() -> None:
    begun = time.perf_counter()
    with pytest.raises(DamagedFile, match=r"a\.pdf takes longer than 0\.05 seconds") as error:
        extract_isolated("a.pdf", pdf("words"), max_chars=MANY, timeout_s=0.05)
    assert time.perf_counter() - begun < 5
    assert error.value.limit == 0.05


def test_a_file_that_needs_too_much_memory_is_refused_with_the_limit() -> None:
    paragraphs = b"<p>some words</p>" * 300_000
    with pytest.raises(DamagedFile, match="needs more than 150 MiB of memory") as error:
        extract_isolated("a.html", paragraphs, max_chars=10**8, memory_mb=150)
    assert error.value.limit == 150


def test_too_little_memory_for_the_xml_of_a_word_file_is_not_called_bad_xml() -> None:
    paragraphs = b"<w:p/>" * 5_000_000
    with zipfile.ZipFile(io.BytesIO(docx(lambda file: file.add_paragraph("words")))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    xml = parts["word/document.xml"]
    parts["word/document.xml"] = xml.replace(b"<w:body>", b"<w:body>" + paragraphs)
    with pytest.raises(DamagedFile, match="needs more than 300 MiB of memory"):
        extract_isolated("a.docx", zipped(parts), max_chars=MANY, memory_mb=300)


def is_reader(process: psutil.Process) -> bool:
    try:
        return "clara.extraction" in process.cmdline()
    except psutil.Error:
        return False


def test_a_reader_that_crashes_takes_only_its_file_along() -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(extract_isolated, "a.pdf", pdf("words"), max_chars=MANY)
        while not (readers := [p for p in psutil.Process().children() if is_reader(p)]):
            assert not reading.done()
        readers[0].send_signal(signal.SIGSEGV)
        with pytest.raises(DamagedFile, match=r"made its reader crash \(SIGSEGV\)"):
            reading.result()


def test_a_failure_that_is_not_the_files_is_not_blamed_on_it() -> None:
    with pytest.raises(RuntimeError, match=r"reading a\.html failed"):
        extract_isolated("a.html", b"<p>words", max_chars=MANY, memory_mb=1)


def test_the_child_sees_no_settings_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLARA_DATABASE_URL", "postgresql://user:password@host/name")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nenv > {tmp_path}/seen\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert extract_isolated("a.html", b"<p>words", max_chars=MANY).text == "words"
    assert "PYTHONPATH" in (seen := (tmp_path / "seen").read_text())
    assert "CLARA" not in seen


def test_importing_loads_no_parser_and_no_model_library() -> None:
    program = (
        "import sys, clara.extraction, clara.texts;"
        "print(*{'torch', 'pypdf', 'docx', 'trafilatura', 'lxml', 'pydantic'} & set(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert child.stdout.strip() == b""


# JSON lines


def jsonl(tmp_path: Path, *lines: object, name: str = "corpus.jsonl") -> Path:
    path = tmp_path / name
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_each_line_is_a_document_and_blank_lines_are_skipped(tmp_path: Path, name: str) -> None:
    path = jsonl(
        tmp_path,
        "\ufeff" + json.dumps({"_id": "1", "title": "Eins", "text": "Füße", "url": "x"}),
        "",
        {"_id": "2", "text": "zwei\r\n", "metadata": {"a": "b", "n": 1.5, "ok": True}},
        " \r",
        name=name,
    )
    first, second = read_jsonl(path, max_chars=10)
    assert (first.external_id, first.title, first.text) == ("1", "Eins", "Füße")
    assert first.source == second.source == str(path)
    assert (second.title, second.text) == ("", "zwei\r\n")
    assert second.metadata == {"a": "b", "n": 1.5, "ok": True}


@pytest.mark.parametrize(
    ("line", "kind", "field", "words"),
    [
        ("{", InvalidInput, "", "is not JSON: Expecting property name"),
        ("NaN", InvalidInput, "", "NaN is not a JSON number"),
        ("[" * 100_000, InvalidInput, "", "is not JSON"),
        ("[]", InvalidInput, "", "is a list, not an object"),
        ('"text"', InvalidInput, "", "is a string, not an object"),
        ({"text": "x"}, InvalidInput, ": _id", "is missing"),
        ({"_id": 1, "text": "x"}, InvalidInput, ": _id", "is a number, not a string"),
        ({"_id": " ", "text": "x"}, InvalidInput, ": _id", "is empty"),
        ({"_id": "1"}, InvalidInput, ": text", "is missing"),
        ({"_id": "1", "text": None}, InvalidInput, ": text", "is null, not a string"),
        ({"_id": "1", "text": " "}, EmptyText, ": text", "holds no text"),
        ({"_id": "1", "text": "x" * 11}, TextTooLong, ": text", "11 characters"),
        ({"_id": "1", "text": "a\x00"}, InvalidText, ": text", "U+0000 at position 1"),
        ({"_id": "1", "text": "\ud800"}, InvalidText, ": text", "U+D800 at position 0"),
        ({"_id": "\x01", "text": "x"}, InvalidText, ": _id", "U+0001"),
        ({"_id": "1", "text": "x", "title": True}, InvalidInput, ": title", "is true or false"),
        ({"_id": "1", "text": "x", "metadata": []}, InvalidInput, ": metadata", "is a list"),
        (
            {"_id": "1", "text": "x", "metadata": {"k": {}}},
            InvalidInput,
            ": metadata: k",
            "is an object",
        ),
        (
            '{"_id": "1", "text": "x", "metadata": {"k": 1e999}}',
            InvalidInput,
            ": metadata: k",
            "is too large a number",
        ),
        (
            {"_id": "1", "text": "x", "metadata": {"k": "\x02"}},
            InvalidText,
            ": metadata: k",
            "U+0002",
        ),
    ],
)
def test_a_fault_names_its_line_and_field(
    tmp_path: Path, line: object, kind: type[InvalidInput], field: str, words: str
) -> None:
    path = jsonl(tmp_path, {"_id": "0", "text": "fine"}, "", line)
    documents = read_jsonl(path, max_chars=10)
    assert next(documents).external_id == "0"
    with pytest.raises(InvalidInput) as error:
        next(documents)
    assert type(error.value) is kind
    assert error.value.field == f"{path}:3{field}"
    assert error.value.message.startswith(f"{path}:3")
    assert words in error.value.message
    assert error.value.remedy


def test_bytes_that_are_not_utf_8_are_named_by_line_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"_id": "1", "text": "x"}\n{"_id": "\xe9"}')
    with pytest.raises(InvalidText, match=r"corpus.jsonl:2 is not UTF-8: byte 0xE9 at offset 9"):
        list(read_jsonl(path, max_chars=10))


def test_documents_before_the_cut_of_a_truncated_gzip_file_are_read(tmp_path: Path) -> None:
    lines = [{"_id": str(number), "text": os.urandom(40).hex()} for number in range(3000)]
    path = jsonl(tmp_path, *lines, name="corpus.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-5000])
    read: list[str | None] = []
    with pytest.raises(DamagedFile, match="end-of-stream") as error:
        read.extend(document.external_id for document in read_jsonl(path, max_chars=100))
    assert len(read) > 1000
    assert error.value.field == f"{path}:{len(read) + 1}"


def test_altered_and_mistaken_gzip_files_are_damaged(tmp_path: Path) -> None:
    lines = [{"_id": str(number), "text": os.urandom(40).hex()} for number in range(100)]
    path = jsonl(tmp_path, *lines, name="corpus.jsonl.gz")
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # of the checksum: what altered words unpack to may still be read as words
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="CRC check failed"):
        list(read_jsonl(path, max_chars=100))
    path.write_bytes(b'{"_id": "1", "text": "x"}')
    with pytest.raises(DamagedFile, match=r"corpus\.jsonl\.gz:1 cannot be unpacked: Not a gzipped"):
        list(read_jsonl(path, max_chars=100))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"_id": "1", "text": "' + b"x" * 5_000_000))
    with pytest.raises(TextTooLong, match=r"corpus.jsonl.gz:1 is longer than 1,048,696 bytes"):
        list(read_jsonl(path, max_chars=10))


def test_what_is_no_file_of_json_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFile):
        list(read_jsonl(tmp_path / "corpus.json", max_chars=10))
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        list(read_jsonl(tmp_path / "corpus.jsonl", max_chars=10))


# folders


def test_files_of_known_kinds_are_found_sorted_and_once(tmp_path: Path) -> None:
    for name in ["b.txt", "a/z.PDF", "a/y.docx", "c.png", ".hidden.txt", ".git/x.txt"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    found = find_files([tmp_path, tmp_path / "b.txt", tmp_path / "a"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/y.docx", "a/z.PDF", "b.txt"]


def test_a_file_given_by_itself_must_be_of_a_known_kind(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.touch()
    with pytest.raises(UnsupportedFile, match=r"picture\.png"):
        find_files([path])


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="missing does not exist") as error:
        find_files([tmp_path / "missing"])
    assert error.value.field == str(tmp_path / "missing")
