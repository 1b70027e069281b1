"""What MkDocs builds the site from beside docs/: the pages at the root of the project.

A page that lies elsewhere gets a name in the site, and links to it follow; of links to files that
are no pages the words stay.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Names in the site, of what lies outside of docs/.
PAGES = {
    "index.md": ROOT / "README.md",
    "architecture.md": ROOT / "ARCHITECTURE.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "security.md": ROOT / "SECURITY.md",
    "model-card.md": ROOT / "midas_world/worlds/stage/README.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, content=with_links(source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page with its links as the site has them; those of PAGES have theirs already."""
    if page.file.src_uri in PAGES:
        return markdown
    return with_links(ROOT / "docs" / page.file.src_uri)


def with_links(source: Path) -> str:
    """Return the text of a page, with links as the site has them."""
    names = {path: name for name, path in PAGES.items()}

    def linked(match: re.Match[str]) -> str:
        mark, words, target, anchor = match.groups()
        if ":" in target:
            return match[0]
        path = (source.parent / target).resolve()
        if path in names:
            return f"[{words}]({names[path]}{anchor or ''})"
        if path.is_relative_to(ROOT / "docs"):
            return f"{mark}[{words}]({path.relative_to(ROOT / 'docs')}{anchor or ''})"
        return words

    return _LINK.sub(linked, source.read_text(encoding="utf-8"))
