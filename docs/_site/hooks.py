"""What mkdocs needs to build the pages as they are, which are written for a reader of the repository.

Links that leave docs/ (``../README.md``, ``../examples``) lead to a copy of the file within the site. Notebooks become
pages.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from pathlib import Path
from typing import Any, Dict, Iterator

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
COPIES = "repository"  # where in the site files from outside of docs/ are
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".toml": "toml", ".xml": "xml"}


def on_files(files: Files, config: Any) -> Files:
    """Add notebooks, and what links lead out of docs/ to, and what those pages lead to."""
    for notebook in [f for f in files if f.src_uri.endswith(".ipynb")]:
        page_uri = posixpath.splitext(notebook.src_uri)[0] + ".md"
        files.append(File.generated(config, page_uri, content="".join(cells(Path(str(notebook.abs_src_path))))))
        files.remove(notebook)
    waiting = [(f.src_uri, f.src_uri) for f in files.documentation_pages()]
    while waiting:
        uri, source = waiting.pop()
        text = files.get_file_from_path(uri).content_string
        for target in outside("docs/" + source if uri == source else source, text):
            copied = copy_of(target)
            if files.get_file_from_path(copied) is None:
                path = ROOT / target
                if copied.endswith(".md"):
                    files.append(File.generated(config, copied, content=page(path, target)))
                    waiting += [(copied, target)] if target.endswith(".md") else []
                else:
                    files.append(File.generated(config, copied, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links out of docs/ into links to the copies."""
    source = "docs/" + page.file.src_uri
    if page.file.src_uri.startswith(COPIES + "/"):
        source = page.file.src_uri[len(COPIES) + 1 :]
    here = posixpath.dirname(page.file.src_uri)

    def other(match: re.Match[str]) -> str:
        target = resolved(source, match[2])
        if target is None:
            return match[0]
        uri = re.sub(r"\.ipynb$", ".md", target[5:]) if target.startswith("docs/") else copy_of(target)
        return match[1] + posixpath.relpath(uri, here or ".") + match[3]

    # Python-Markdown knows no escaped bracket.
    text = [LINK.sub(other, line).replace("\\<", "&lt;") if not code else line for line, code in lines(markdown)]
    return "\n".join(text)


def outside(source: str, text: str) -> Iterator[str]:
    """Files of the repository outside of docs/ that ``text``, which is the file ``source``, leads to."""
    for line, code in lines(text):
        for match in [] if code else LINK.finditer(line):
            target = resolved(source, match[2])
            if target is not None and not target.startswith("docs/"):
                yield target


def resolved(source: str, link: str) -> Any:
    """The path within the repository of a link in ``source``, or None for one to elsewhere."""
    if re.match(r"[a-z]+:", link) or link.startswith("/"):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if target.startswith("docs/"):
        return target
    # A dead link stays as it is, and mkdocs complains.
    return target if not target.startswith("..") and (ROOT / target).exists() else None


def copy_of(target: str) -> str:
    """Where in the site the copy of a file or folder of the repository is."""
    path = ROOT / target
    if path.suffix in (".md", ".png", ".svg") and path.is_file():
        return "%s/%s" % (COPIES, target)
    return "%s/%s.md" % (COPIES, target)


def page(path: Path, target: str) -> str:
    """A file of the repository as a page: text as it is, code in a block, a folder as the list of what is in it."""
    if path.is_dir():
        inside = sorted(p.name + "/" * p.is_dir() for p in path.iterdir() if p.name[0] not in "._")
        return "# %s\n\n%s\n" % (target, "\n".join("- `%s`" % name for name in inside))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "# %s\n\n````%s\n%s\n````\n" % (target, LANGUAGES.get(path.suffix, "text"), text)


def lines(text: str) -> Iterator[Any]:
    """(line, whether it is code or the fence around it)."""
    fence = ""
    for line in text.split("\n"):
        mark = re.match(r"\s*(`{3,})", line)
        if mark and not fence:
            fence = mark[1]
            yield line, True
        else:
            yield line, bool(fence)
            if mark and fence and line.strip() == fence:
                fence = ""


def cells(path: Path) -> Iterator[str]:
    """A notebook as Markdown, its outputs included."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source + "\n\n"
            continue
        yield "```python\n%s\n```\n\n" % source
        for output in cell["outputs"]:
            data: Dict[str, Any] = output.get("data", {})
            if "image/png" in data:
                # parsed and joined, so that a line break within the base64 text does not end the picture
                picture = base64.b64encode(base64.b64decode("".join(data["image/png"]))).decode()
                yield '<img alt="output" src="data:image/png;base64,%s">\n\n' % picture
            else:
                text = "".join(output.get("text", data.get("text/plain", [])))
                yield "```text\n%s\n```\n\n" % text.rstrip()
