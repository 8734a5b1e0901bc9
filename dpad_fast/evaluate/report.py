"""One self-contained HTML page from a `result.json`: tables, curves, and sampled completions on their images.

Everything that a model wrote is escaped, and the page's own policy forbids scripts and anything from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast.data import shapes
from dpad_fast.evaluate.drawing import as_data_uri, curves_svg, draw_answer
from dpad_fast.evaluate.tables import Table, before_after
from dpad_fast.rewards import RewardConfig, parse_completion

_STYLE = """
:root { color-scheme: light dark; --edge: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; margin-top: 1.2rem; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--edge); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.note { font-size: .9rem; opacity: .8; margin: .3rem 0; }
svg { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
.scene { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); margin: 1rem 0;
  border-top: 1px solid var(--edge); padding-top: .8rem; }
.scene > p { grid-column: 1 / -1; margin: 0; }
figure { margin: 0; background: var(--soft); border-radius: 6px; padding: .6rem; }
figure img { display: block; width: 100%; max-width: 14rem; image-rendering: pixelated; }
figcaption { font-size: .85rem; margin: .4rem 0; }
pre { font-size: .78rem; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
"""


def _table(table: Mapping[str, Any]) -> str:
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in table["heading"])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table["rows"])
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table["notes"])
    return (
        f"<div class='scroll'><table><caption>{escape(table['title'])}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
    )


def _answer(name: str, row: Mapping[str, Any]) -> str:
    """One completion on its scene."""
    item = shapes.from_id(row["id"])
    answer = parse_completion(row["text"], RewardConfig.preset("dpad"))
    points = () if answer.points is None or not answer.fields_ok else answer.points
    picture = draw_answer(item.image, item.target.box, answer.box, points)
    iou = row["intersection"] / row["union"] if row["union"] else 1.0
    parts = [f"IoU {iou:.2f}", f"{row['chain_tokens']} chain tokens"]
    if row.get("s1") is not None and row.get("s2") is not None:
        parts.append(f"S1 {row['s1']:.3f}, S2 {row['s2']:.3f}")
    if row.get("reason"):
        parts.append(str(row["reason"]))
    return (
        f"<figure><img alt='{escape(name)}: answer drawn on the scene' src='{as_data_uri(picture)}'>"
        f"<figcaption><b>{escape(name)}</b><br>{escape(', '.join(parts))}</figcaption>"
        f"<pre>{escape(row['text'])}</pre></figure>"
    )


def _index(identifier: object) -> int:
    """The scene's number: a file that was changed by hand may hold any id."""
    found = re.fullmatch(r"shapes-[0-9]+-([0-9]+)", str(identifier))
    if found is None:
        raise ValueError(f"id: {identifier!r} is not of the form shapes-SEED-INDEX")
    return int(found.group(1))


def _scenes(columns: Mapping[str, Sequence[Mapping[str, Any]]], show: int) -> str:
    """The same scenes in every column: one completion each."""
    first = {name: {row["id"]: row for row in reversed(rows)} for name, rows in columns.items() if rows}
    if not first:
        return ""
    shared = [i for i in next(iter(first.values())) if all(i in rows for rows in first.values())]
    blocks = []
    for identifier in sorted(shared, key=_index)[:show]:
        query = shapes.from_id(identifier).query
        figures = "".join(_answer(name, rows[identifier]) for name, rows in first.items())
        blocks.append(f"<div class='scene'><p>{escape(identifier)}: <b>{escape(query)}</b></p>{figures}</div>")
    return "".join(blocks)


def _plain(table: Table) -> dict[str, Any]:
    return {"title": table.title, "heading": table.heading, "rows": table.rows, "notes": table.notes}


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole page that loads nothing and runs nothing.

    Args:
        title: text; it is escaped.
        parts: HTML, in which whatever others wrote is escaped already.
        style: rules behind the common ones.

    Returns:
        HTML text.
    """
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body><h1>{escape(title)}</h1>"
        + "".join(parts)
        + "</body></html>\n"
    )


def render(result: Mapping[str, Any]) -> str:
    """The page of a training run or of a demo.

    Args:
        result: the content of `result.json`, of `dpad-fast train` or `dpad-fast demo`.

    Returns:
        HTML text.

    Raises:
        ValueError: if it is neither.
    """
    kind = result.get("kind")
    pages = {"run": (_run_page, _RUN_FIELDS), "demo": (_demo_page, _DEMO_FIELDS)}
    if not isinstance(kind, str) or kind not in pages:
        raise ValueError(f"result.json is of kind {kind!r:.80}; known: {', '.join(pages)}")
    make, fields = pages[kind]
    for name, held in fields.items():
        if not isinstance(result.get(name), held):
            found = "missing" if name not in result else f"{type(result[name]).__name__}, expected {held.__name__}"
            raise ValueError(f"result.json of kind {kind!r} is not whole: {name} is {found}")
    try:
        return make(result)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        # The fields' own fields: whoever changed the file by hand is told what was met, not where in our code.
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"result.json of kind {kind!r} is not whole: {what}") from error


_RUN_FIELDS: dict[str, type] = {
    "config": dict, "before": dict, "after": dict, "records": dict, "history": list, "versions": dict,
}  # fmt: skip
_DEMO_FIELDS: dict[str, type] = {"title": str, "command": str, "preface": list, "settings": list, "versions": dict}


def _run_page(result: Mapping[str, Any]) -> str:
    config = result["config"]
    name = config["name"]
    parts = []
    if result["after"]:
        parts.append("<h2>Before and after</h2>" + _table(_plain(before_after(result, name))))
    parts.append("<h2>Curves</h2>" + curves_svg({name: [result["history"]]}))
    scenes = _scenes(result["records"], config["evaluation"]["show"])
    if scenes:
        parts.append("<h2>Sampled completions</h2>" + _LEGEND + scenes)
    parts.append(_settings(config, result["versions"]))
    return page(f"Training run {name}", parts)


_LEGEND = (
    "<p class='note'>Green: ground truth. Red: the answer's box and points. "
    "Not selected: the first held-out scenes.</p>"
)


def _demo_page(result: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(line)}</p>" for line in result["preface"]]
    parts.append(f"<p class='note'>Made by <code>{escape(result['command'])}</code></p>")
    for setting in result["settings"]:
        parts.append(f"<h2>{escape(setting['title'])}</h2>")
        parts += [f"<p>{escape(line)}</p>" for line in setting["preface"]]
        parts += [_table(table) for table in setting["tables"]]
        parts.append("<h3>Curves</h3>" + curves_svg(setting["histories"]))
        parts.append("<h3>Sampled completions</h3>" + _LEGEND + _scenes(setting["samples"], setting["show"]))
        parts.append(_settings(setting["config"], result["versions"]))
    return page(result["title"], parts)


def _settings(config: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    text = json.dumps({"config": config, "versions": versions}, indent=1)
    return f"<details><summary>Configuration and versions</summary><pre>{escape(text)}</pre></details>"


def write_report(result: Mapping[str, Any], path: Path) -> Path:
    """Render a result and write it.

    Args:
        result: the content of `result.json`.
        path: the HTML file; its folder is made.

    Returns:
        The file.

    Raises:
        ValueError: it is no whole result; nothing is written.
        OSError: the file cannot be written.
    """
    files.write_text(path, render(result))
    return path
