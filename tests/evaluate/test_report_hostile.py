"""The report in a browser with texts of every kind in every field: they stay text, and no wider than the screen."""

from dpad_fast.evaluate.report import render

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script></script><b>'
HOSTILE = {
    "separators": "a\u2028b\u2029c</script><script>window.hacked = 1</script>",
    "comment": "<!--<script>window.hacked = 1",
    "direction": "\u202eevil\u2066 \u200f\u05d0 txt.exe",
    "nul": "a\x00b\x1b[31m\x08c\x7f",
    "emoji": "\U0001f469\u200d\U0001f680 \U0001f3f3\ufe0f\u200d\U0001f308 e\u0301\u0301\u0301",
    "template": "${alert(1)} {{7*7}} javascript:alert(1) %3Cscript%3E &lt;b&gt; &#60;",
    "long": "<b>word " * 14_000,  # 112 KB
    "one word": "x" * 100_000,
    "lone surrogate": "a\ud83db",
}


def test_hostile_answers_stay_text_at_any_width(at, tmp_path):
    """In every field that a model or a file can fill; nothing is wider than the screen, and the page stays whole."""
    rows = [
        {"id": f"{name} {text[:40]}", "query": text, "text": text, "chain": text, "caption": text, "box": [0, 0, 9, 9],
         "terms": {text[:60]: 0.0}, "reason": text[:60], "iou": 0.5}
        for name, text in HOSTILE.items()
    ]  # fmt: skip
    names = [f"{name} \u202e<b>'\"/" for name in ("one", "two")]
    page = tmp_path / "hostile.html"
    page.write_text(render([(f"{name}.json", {"records": rows, "notes": [EVIL]}) for name in names]), encoding="utf-8")
    for width in (1200, 390):
        at.open(page.as_uri(), width=width)
        assert at.js("document.documentElement.scrollWidth") <= width
        assert at.js("document.getElementById('count').textContent") == f"{len(rows)} of {len(rows)}"
        for row in rows:
            at.press("j")
            shown = row["text"]
            if "\ud83d" in shown:  # which the browser's driver cannot tell
                assert at.js("location.hash") == "#lone%20surrogate%20a%EF%BF%BDb"
                assert at.js("document.querySelector('.raw').textContent.charCodeAt(1)") == 0xD83D
                continue
            assert at.js("document.querySelector('.raw').textContent") == shown
            pre = at.js(
                "[...document.querySelectorAll('.answer')[1].querySelectorAll('pre')].map((p) => p.textContent)"
            )
            assert pre[:2] == [shown.strip(), shown.strip()]
            assert at.js("document.querySelector('.ask').textContent") == shown
            panel = "document.getElementById('panel')"
            assert at.js(f"{panel}.scrollWidth <= {panel}.clientWidth")
            place = f" · {rows.index(row) + 1} of {len(rows)}"
            assert at.js("document.getElementById('where').lastChild.textContent") == place
    assert at.js("window.hacked") is None
    assert at.js("document.querySelectorAll('.answer script, .answer b, main b, iframe').length") == 0
    assert at.complaints() == []
