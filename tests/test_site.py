"""The site of docs/: built without a warning, and every link in it leads somewhere within it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from hepo_isaac.locate import PREFIX, task_names, tasks_package

ROOT = Path(__file__).resolve().parents[1]
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
TAGS = """a abbr article b blockquote br button code col colgroup dd del details div dl dt em figure form h1 h2 h3 h4
h5 h6 hr i img input label li nav ol p path pre small span strong sub summary sup svg table tbody td th thead tr ul"""


class Page(HTMLParser):
    """What a page names and leads to, and what a browser fetches for it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.fetched = {""}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[k] for k in ("id", "name") if attributes.get(k)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in FETCHED and attributes.get(FETCHED[tag]) and attributes.get("rel") != "canonical":
            self.fetched.append(attributes[FETCHED[tag]])


def build(config, out):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="pip install -c constraints.txt -e '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", out)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "WARNING" not in said and "Documentation built" in said, said
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_of_docs_is_there(site):
    for path in (ROOT / "docs").rglob("*.md"):
        inside = path.relative_to(ROOT / "docs")
        assert (site / inside.with_name("index" if path.stem == "README" else path.stem).with_suffix(".html")).is_file()
    assert "first run" in (site / "index.html").read_text(encoding="utf-8").lower()


def test_every_link_leads_to_a_file_and_an_anchor_of_the_site(site, pages):
    dead = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            url = urlsplit(link)
            if url.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                dead.append("%s: %s" % (path.relative_to(site), link))
            elif target in pages and unquote(url.fragment) not in pages[target].anchors:
                dead.append("%s: %s (no such anchor)" % (path.relative_to(site), link))
    assert dead == []


def test_a_browser_fetches_nothing_from_elsewhere(site, pages):
    fetched = {link for page in pages.values() for link in page.fetched if urlsplit(link).netloc}
    assert fetched == set()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_the_pages_read_on_the_site_as_in_the_repository(pages):
    """No heading, table or list came out as text, and no <placeholder> as a tag that nobody sees."""
    for path in pages:
        text = path.read_text(encoding="utf-8")
        article = re.search(r"<article.*?</article>", text, re.S)[0]
        assert set(re.findall(r"<([a-z][\w-]*)", article)) <= set(TAGS.split()), path.name
        prose = re.sub(r"<(pre|code|svg|table)\b.*?</\1>", "", article, flags=re.S)
        prose = re.sub(r"<[^>]+>", "", prose)
        assert not re.search(r"^\s*(\|.*\||```|#{1,6} |[-*] )", prose, re.M), path.name


def test_three_ways_in(site):
    tabs = re.findall(r'<li class="md-tabs__item.*?</li>', (site / "index.html").read_text(encoding="utf-8"), re.S)
    assert [re.sub(r"<[^>]+>", "", tab).strip() for tab in tabs] == [
        "First run",
        "Your own shaping and task",
        "Research",
    ]


def test_a_dead_link_fails_the_build(tmp_path):
    pytest.importorskip("mkdocs")
    docs = tmp_path / "docs"
    docs.mkdir()
    dead = ["[x](nowhere_1.md)", "[x](settings.md#nowhere_2)", "[x](../nowhere_3.py)", "![x](nowhere_4.png)"]
    (docs / "README.md").write_text("# Home\n\n%s\n\n[settings](settings.md#settings)\n" % "\n".join(dead))
    (docs / "settings.md").write_text("# Settings\n")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = config[: config.index("\nnav:")].replace("docs/_site/hooks.py", str(ROOT / "docs/_site/hooks.py"))
    (tmp_path / "mkdocs.yml").write_text(config)
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Aborted with 4 warnings in strict mode" in said
    assert sorted(set(re.findall(r"nowhere_\d", said))) == ["nowhere_1", "nowhere_2", "nowhere_3", "nowhere_4"]


def test_every_task_has_a_row_with_a_picture():
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*(\w+)\*\*.*?!\[\w+\]\((.*?)\)(.*)$", page, re.M)
    names = set(task_names()) - {PREFIX + name for name in tasks_package().DEXTEROUS}
    assert sorted(name for name, *_ in rows) == sorted(names)
    for name, picture, rest in rows:
        file = ROOT / "docs" / picture
        assert file.stem == name and file.stat().st_size < (40_000 if file.suffix == ".png" else 400_000)
        assert len([cell for cell in rest.strip("| ").split("|") if cell.strip()]) == 3, name  # r, h, what goes wrong


def test_every_dexterous_task_has_a_row_of_its_page():
    page = (ROOT / "docs" / "parity" / "bidex.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    head = next(row for row in rows if row[0] == "task" and len(row) == 9)
    table = [row for row in rows[rows.index(head) + 1 :] if len(row) == len(head)]
    assert sorted(row[0] for row in table) == sorted(tasks_package().DEXTEROUS)
    assert all(cell.strip() for row in table for cell in row)
