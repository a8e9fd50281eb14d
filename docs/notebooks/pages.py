"""Writes the site's pages that are other files: notebooks, changelog, how to contribute."""

import json
import os
import pathlib

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def notebook_page(path: str) -> str:
    """The cells of a notebook one after the other, and where to get it."""
    with open(path, encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    name = os.path.basename(path)
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    get = f"[Download {name}]({name}) and open it in Jupyter or [Colab](https://colab.research.google.com)."
    return "\n\n".join([parts[0], get, *parts[1:]]) + "\n"


def root_page(name: str) -> str:
    """A page of the repository's root, its links as the site has them."""
    root = pathlib.Path(__file__).parents[2]
    return (root / name).read_text(encoding="utf-8").replace("](docs/", "](")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {name: root_page(f"{name.upper()}.md") for name in ("contributing", "changelog")}
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            pages[file.src_uri.removesuffix(".ipynb")] = notebook_page(file.abs_src_path)
    for name, page in pages.items():
        files.append(File.generated(config, f"{name}.md", content=page))
    return files
