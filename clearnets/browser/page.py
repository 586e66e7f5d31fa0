"""The HTML page: one file that holds style, code and data, and loads nothing else."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

# In the order in which the browser reads them.
SCRIPTS = (
    "dom",
    "data",
    "window",
    "written",
    "latent",
    "list",
    "families",
    "circuits",
    "rate",
    "main",
)


def pack(data: Mapping[str, Any]) -> str:
    """Return data as compressed JSON in base64, which HTML cannot take for markup."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpack(page: str) -> dict[str, Any]:
    """Return the data in a page."""
    begin = '<script id="packed" type="text/plain">'
    packed = page.split(begin, 1)[1].split("</script>", 1)[0]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def render(data: Mapping[str, Any]) -> str:
    """Return the whole file. Its data is packed, so no text in it can be markup."""
    assets = files("clearnets.browser") / "assets"

    def read(name: str) -> str:
        return (assets / name).read_text(encoding="utf-8")

    script = "\n".join(read(f"js/{name}.js") for name in SCRIPTS)
    page = read("page.html").replace("/*STYLE*/", read("page.css"))
    page = page.replace("/*SCRIPT*/", f'"use strict";\n{script}')
    return page.replace("/*DATA*/", pack(data))
