"""One self-contained HTML page of results: tables, curves, and a gallery of samples with every run's answers.

Everything that a model wrote is data or escaped text, and the page's own policy allows the scripts that it was written
with, by their hash, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast.evaluate.drawing import curve_panels, held_out_panels
from dpad_fast.evaluate.gallery import gallery
from dpad_fast.evaluate.lookup import Lookup
from dpad_fast.evaluate.results import Source, number, read_sources, series_of
from dpad_fast.evaluate.side_by_side import measured_tables, runs_table
from dpad_fast.evaluate.tables import Table, before_after

_NAMED = 4  # results that the title names
_BLOCK = 200  # pictures that are read at a time
_SCRIPTS = ("vendor/uplot/uPlot.iife.min.js", "masks.js", "charts.js", "state.js", "gallery.js", "page.js")
_LICENCE = "vendor/uplot/LICENSE"
_STYLES = ("vendor/uplot/uPlot.min.css", "page.css")
_KEYS = (
    ("j or right", "next sample"), ("k or left", "previous sample"), ("Esc", "close"), ("/", "search"),
    ("i", "picture"), ("b", "answer's box"), ("t", "true box"), ("m", "answer's mask"), ("g", "true mask"),
    ("p", "points"), ("d", "dark or light"), ("?", "these keys"),
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What a report shows.

    Attributes:
        lookup: finds samples; None: what the records and the shapes world know.
        thumb: longest side of pictures in pixels, 0 for none; None: see `gallery`.
        limit: so many samples at most; 0 for all.
    """

    lookup: Lookup | None = None
    thumb: int | None = None
    limit: int = 0


def render(results: Sequence[tuple[str, Mapping[str, Any]]], options: Options | None = None) -> str:
    """The page of some results, side by side.

    Args:
        results: (path, content) of each: a `result.json` of `dpad-fast train` or `dpad-fast demo`, or the JSON of
            `dpad-fast evaluate`.
        options: what it shows.

    Returns:
        HTML text.

    Raises:
        ValueError: a result is none of these, or not whole; names it.
    """
    options = options or Options()
    lookup = options.lookup or Lookup()
    sources = read_sources(results)
    try:
        parts, curves = _sections(sources)
        data = gallery(list(series_of(sources)), lookup, options.thumb, options.limit)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        # Fields inside fields: the message for a file that was changed by hand says what was found there.
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{', '.join(name for name, _ in results)} is not whole: {what}") from error
    pictures = data.pop("pictures")
    data |= {"curves": curves, "block": _BLOCK}
    if data["samples"]:
        parts.append(_gallery_html(lookup.notes))
    else:
        parts.append("<p class='empty'>There is no sample in these results.</p>")
    parts += [_settings(source) for source in sources if source.kind != "evaluate"]
    return _page(_title(sources), parts, data, pictures)


def write_report(
    results: Sequence[tuple[str, Mapping[str, Any]]], path: str | Path, options: Options | None = None
) -> Path:
    """Render results and write the page.

    Args:
        results: see `render`.
        path: the HTML file; its folder is made.
        options: what it shows.

    Returns:
        The file.

    Raises:
        ValueError: see `render`; nothing is written.
        OSError: the file cannot be written.
    """
    files.write_text(path, render(results, options))
    return Path(path)


def _title(sources: Sequence[Source]) -> str:
    names = ", ".join(source.name for source in sources[:_NAMED])
    if len(sources) > _NAMED:
        names += f" and {len(sources) - _NAMED} more"
    if any(source.kind != "run" for source in sources):
        return names
    return f"Training run {names}" if len(sources) == 1 else f"Training runs {names}"


def _sections(sources: Sequence[Source]) -> tuple[list[str], list[Any]]:
    """What stands above the gallery, and the curves of each place for them."""
    parts: list[str] = []
    curves: list[Any] = []
    runs = [source for source in sources if source.kind == "run"]
    for source in sources:
        if source.kind == "demo":
            parts += _demo(source, curves)
    if runs:
        parts += _runs(runs, curves)
    measured = [source for source in sources if source.kind == "evaluate"]
    if measured:
        tables = "".join(_table(_plain(table)) for table in measured_tables(measured))
        parts.append(f"<h2>Measured</h2>{tables}" if tables else "")
        notes = [(source.name, note) for source in measured for note in source.content.get("notes") or []]
        parts += [f"<p class='note'><bdi>{escape(name)}</bdi>: {escape(str(note))}</p>" for name, note in notes]
    return parts, curves


def _runs(runs: Sequence[Source], curves: list[Any]) -> list[str]:
    parts = [
        f"<p class='note'><bdi>{escape(source.name)}</bdi> has not ended; its log is known up to step "
        f"{escape(str(source.content['unfinished']))}.</p>"
        for source in runs
        if "unfinished" in source.content
    ]
    if len(runs) > 1:
        parts.append("<h2>Runs side by side</h2>" + _table(_plain(runs_table(runs))))
    tables = [_table(_plain(before_after(source.content, source.name))) for source in runs if source.content["after"]]
    if tables:
        within = "".join(f"<div>{table}</div>" for table in tables)
        parts.append(f"<h2>Before and after</h2><div class='tables'>{within}</div>")
    histories = {source.name: lines for source in runs for lines in source.histories.values()}
    parts += _curves("<h2>Curves</h2>", curve_panels(histories), curves)
    held_out = held_out_panels({source.name: source.content for source in runs})
    return parts + _curves("<h2>Held-out samples during training</h2>", held_out, curves)


def _demo(source: Source, curves: list[Any]) -> list[str]:
    content = source.content
    parts = [f"<p>{escape(line)}</p>" for line in content["preface"]]
    parts.append(f"<p class='note'>Made by <code>{escape(content['command'])}</code></p>")
    for setting in content["settings"]:
        parts.append(f"<h2>{escape(setting['title'])}</h2>")
        parts += [f"<p>{escape(line)}</p>" for line in setting["preface"]]
        parts += [_table(table) for table in setting["tables"]]
        parts += _curves("<h3>Curves</h3>", curve_panels(setting["histories"]), curves)
    return parts


def _curves(heading: str, panels: list[dict[str, Any]], curves: list[Any]) -> list[str]:
    if not panels:
        return []
    curves.append(panels)
    return [f"{heading}<div data-curves='{len(curves) - 1}'></div>"]


def _table(table: Mapping[str, Any]) -> str:
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in table["heading"])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table["rows"])
    notes = "".join(f"<p class='note'>{escape(note)}</p>" for note in table["notes"])
    return (
        f"<div class='scroll'><table><caption>{escape(table['title'])}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"
    )


def _plain(table: Table) -> dict[str, Any]:
    return {"title": table.title, "heading": table.heading, "rows": table.rows, "notes": table.notes}


def _gallery_html(notes: Sequence[str]) -> str:
    told = ""
    if notes:
        told = f"<p class='note'>{len(notes)} pictures or rows could not be read, the first: {escape(notes[0])}</p>"
    return (
        "<h2>Samples</h2><p class='note'>Green, dashed: ground truth. Red: the answer. Filters and the order are about "
        "the run that is shown; improvement is its IoU minus that of the other.</p>"
        f"{told}<div class='bar'>"
        "<input type='search' id='search' placeholder='search ids, queries, answers' aria-label='search'>"
        "<label id='lead-of'>shown <select id='lead' aria-label='run shown'></select></label>"
        "<label id='base-of'>against <select id='base' aria-label='compared with'></select></label>"
        "<select id='term' aria-label='term'></select><select id='reason' aria-label='reason'></select>"
        "<select id='order' aria-label='order'></select><span class='count' id='count'></span>"
        "<span class='layers' role='group' aria-label='layers'></span></div>"
        "<div id='list' class='list'></div><p id='none' class='empty' hidden>No sample fits.</p>"
        "<noscript><p>The gallery and the curves need JavaScript.</p></noscript>"
    )


def _overlays() -> str:
    keys = "".join(f"<tr><td><kbd>{escape(key)}</kbd></td><td>{escape(what)}</td></tr>" for key, what in _KEYS)
    return (
        "<div id='cover' class='cover' hidden><section id='panel' class='panel' tabindex='-1' role='dialog' "
        "aria-label='sample'><div class='head'><button id='previous'>previous</button><button id='next'>next</button>"
        "<span id='where' class='where'></span><button id='copy'>copy link</button><button id='close'>close</button>"
        "<span class='layers' role='group' aria-label='layers'></span></div><div id='sample'></div></section></div>"
        f"<div id='help' class='cover' hidden><div class='panel help'><h2>Keys</h2><table>{keys}</table></div></div>"
    )


def _settings(source: Source) -> str:
    content = source.content
    configs = [content["config"]] if source.kind == "run" else [setting["config"] for setting in content["settings"]]
    text = "\n".join(json.dumps({"config": config, "versions": content["versions"]}, indent=1) for config in configs)
    return (
        f"<details><summary>Configuration and versions of {escape(source.name)}</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def _page(title: str, parts: Sequence[str], data: Mapping[str, Any], pictures: Sequence[str | None]) -> str:
    licence = f"/*! uPlot (vendor/uplot)\n{_assets((_LICENCE,))}\n*/\n"
    script, style = licence + _assets(_SCRIPTS), _assets(_STYLES)
    if not data["samples"]:
        parts = [*parts, f"<div hidden>{_gallery_html(())}</div>"]
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = "".join(
        _json(f"pictures-{start // _BLOCK}", pictures[start : start + _BLOCK])
        for start in range(0, len(pictures), _BLOCK)
    )
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1><bdi>{escape(title)}</bdi></h1><button id='theme'>dark</button>"
        "<button id='ask-help' aria-label='keys'>?</button></header><main>"
        + "".join(parts)
        + f"</main>{_overlays()}{_json('data', data)}{blocks}<script>{script}</script></body></html>\n"
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is text that JSON can hold


def _assets(names: Sequence[str]) -> str:
    folder = resources.files("dpad_fast.evaluate") / "report_assets"
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(name: str, value: Any) -> str:
    """Data in the page. Only ASCII, and no "<": nothing in it can end the element, whatever a model wrote."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f"<script type='application/json' id='{name}'>{text}</script>"


def _finite(value: Any) -> Any:
    """The value, with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return number(value) if isinstance(value, float) else value
