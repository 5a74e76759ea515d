"""The OpenAPI document as one page of plain HTML, which asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{overflow:auto;padding:.75rem;border:1px solid #8886;border-radius:.4rem;font-size:.85rem}"
    "h2{margin-top:2.5rem;font-size:1.1rem}h2 code{font-size:1.1em}summary{cursor:pointer}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document: each operation, what it takes, and what it answers."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f'<p>{escape(info["summary"])}. The same for programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    if "securitySchemes" in document["components"]:
        parts.append("<p>Each request bears its token: <code>Authorization: Bearer …</code></p>")
    for path, operations in document["paths"].items():
        parts += [_operation(method, path, about) for method, about in operations.items()]
    title = escape(info["title"])
    head = f'<meta charset="utf-8"><title>{title}</title><meta name="viewport" content="width=device-width">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _operation(method: str, path: str, about: dict[str, Any]) -> str:
    made = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(about['summary'])}</p>"]
    if "requestBody" in about:
        made.append(_schema("What it takes", about["requestBody"]["content"]["application/json"]["schema"]))
    made.append(_schema("What it answers", about["responses"]["200"]["content"]["application/json"]["schema"]))
    refused = (f"<li>{status}: {escape(one['description'])}</li>" for status, one in about["responses"].items())
    made.append(f"<details><summary>Statuses</summary><ul>{''.join(refused)}</ul></details>")
    return "".join(made)


def _schema(title: str, schema: dict[str, Any]) -> str:
    shown = escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return f"<details><summary>{title}</summary><pre>{shown}</pre></details>"
