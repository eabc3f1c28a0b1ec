"""The charts, and the JavaScript that draws them: Vega, Vega-Lite and Vega-Embed, out of the package vl-convert-python.

They are Vega-Lite specifications (https://vega.github.io/vega-lite/docs/) without data: the page's scripts add those.

Colours are the page's own variables of CSS, so that light, dark and print need no other chart.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from evalkit.cache import cache_folder
from evalkit.machine import installed_version
from evalkit.output.files import replace_file
from evalkit.report.html.embedding import inline_script

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_ACCENT, _GOOD, _BAD, _MUTED, _INK = (f"var(--{name})" for name in ("accent", "good", "bad", "muted", "ink"))
_NARROW = 420  # pixels: a chart on a phone
_FONT = "system-ui, -apple-system, 'Segoe UI', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"


@cache
def chart_library() -> str:
    """Give the libraries as one script. Putting them together takes seconds, so they are kept in the user's cache folder."""
    path = cache_folder(None) / "charts" / f"vega-{installed_version('vl-convert-python')}.js"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        code = _bundle()
        with contextlib.suppress(OSError):  # a cache that can't be written costs time alone
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, code.encode())
        return code


def chart_config() -> dict[str, Any]:
    """Give the settings that all charts share."""
    axis = {
        "domainColor": "var(--line-strong)",
        "gridColor": "var(--line)",
        "tickColor": "var(--line-strong)",
        "labelColor": _MUTED,
        "titleColor": _MUTED,
        "labelFont": _FONT,
        "titleFont": _FONT,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titlePadding": 8,
        "labelOverlap": "greedy",
        "labelSeparation": 8,
    }
    return {
        "background": "transparent",
        "view": {"stroke": "transparent"},
        "axis": axis,
        "text": {"font": _FONT, "fill": _INK, "fontSize": 12},
        "locale": {"number": {"decimal": ".", "thousands": ",", "grouping": [3], "currency": ["", ""], "minus": "−"}},
    }


def chart_specs() -> dict[str, dict[str, Any]]:
    """Give the specifications by name; `rows` is the name of their data."""
    return {"speed": _speed(), "depth": _depth(), "distribution": _distribution(), "differences": _differences()}


def _bundle() -> str:
    import vl_convert

    bundle = vl_convert.javascript_bundle(None)  # type: ignore[arg-type] # its default
    return inline_script(bundle)


def _speed() -> dict[str, Any]:
    """Rows: label, value (percent), rate (pairs per second), front, and cells of text for the tooltip."""
    rate = {
        "field": "rate",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False, "padding": 90},
        "axis": {
            "title": "pairs per second, log scale →",
            "format": ",.3~r",
            "labelBound": True,
            "grid": False,
            "tickCount": 6,
        },
    }
    value = {
        "field": "value",
        "type": "quantitative",
        "scale": {"zero": False, "nice": True, "padding": 24},
        "axis": {"title": None, "tickCount": 6, "format": ".2~f"},
    }
    colour = {"condition": {"test": "datum.front", "value": _ACCENT}, "value": _MUTED}
    points = {
        "mark": {
            "type": "point",
            "filled": True,
            "size": 110,
            "opacity": 1,
            "stroke": "var(--surface)",
            "strokeWidth": 1.5,
        },
        "encoding": {
            "fill": colour,
            "shape": {"condition": {"test": "datum.front", "value": "circle"}, "value": "diamond"},
            "tooltip": [
                {"field": name, "type": "nominal", "title": title}
                for name, title in (
                    ("label", "model"),
                    ("valueText", "value"),
                    ("intervalText", "95 % interval"),
                    ("rateText", "pairs per second"),
                    ("way", "run by"),
                )
            ],
        },
    }
    front = {
        "transform": [{"filter": "datum.front"}],
        "mark": {
            "type": "line",
            "interpolate": "step-before",
            "stroke": _ACCENT,
            "strokeWidth": 1.5,
            "strokeDash": [4, 3],
            "opacity": 0.8,
        },
        "encoding": {"order": {"field": "rate", "type": "quantitative"}},
    }
    names = {
        "mark": {
            "type": "text",
            "dy": -13,
            "fontSize": {"expr": f"width < {_NARROW} ? 10 : 12"},
            "limit": {"expr": f"width < {_NARROW} ? 220 : 300"},
        },
        "encoding": {"text": {"field": "label", "type": "nominal"}, "fill": {**colour, "value": _MUTED}},
    }
    return _spec(
        "Quality against speed: each model's value over the pairs that it scores in a second.",
        height=340,
        encoding={"x": rate, "y": value},
        layer=[front, points, names],
    )


def speed_domains(points: Sequence[tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Give the ends of the axes of quality against speed, for points of (percent, pairs per second): none without points.

    They span a point and a factor of two at least: an axis of one value would have that alone for a tick.
    """
    points = [point for point in points if all(map(math.isfinite, point))]
    if not points:
        return {}
    values, rates = zip(*points, strict=True)
    middle, half = (min(values) + max(values)) / 2, max(max(values) - min(values), 1.0) / 2
    factor = math.sqrt(max(max(rates) / min(rates), 2.0))
    centre = math.sqrt(min(rates)) * math.sqrt(max(rates))
    return {"x": (centre / factor, centre * factor), "y": (middle - half, middle + half)}


def _depth() -> dict[str, Any]:
    """Rows: depth (candidates), value, low, high and ceiling (percent), and shown and interval, texts for the tooltip."""
    x = {
        "field": "depth",
        "type": "quantitative",
        "scale": {"type": "log", "nice": False},
        "axis": {"title": "candidates reranked", "grid": False, "tickCount": 5, "format": ",d", "labelBound": True},
    }
    y = {
        "field": "value",
        "type": "quantitative",
        "scale": {"zero": False, "nice": True},
        "axis": {"title": None, "tickCount": 5, "format": ".4~r"},
    }
    tooltip = [
        {"field": name, "type": kind, "title": title}
        for name, kind, title in (
            ("depth", "quantitative", "candidates"),
            ("shown", "nominal", "value"),
            ("interval", "nominal", "95 % interval"),
        )
    ]
    return _spec(
        "A measure by how many candidates are reranked.",
        height=200,
        encoding={"x": x},
        layer=[
            {
                "mark": {"type": "area", "fill": _ACCENT, "fillOpacity": 0.18},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "line", "stroke": _MUTED, "strokeWidth": 1.2, "strokeDash": [4, 3]},
                "encoding": {"y": {**y, "field": "ceiling"}},
            },
            {"mark": {"type": "line", "stroke": _ACCENT, "strokeWidth": 1.8}, "encoding": {"y": y}},
            {
                "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "fill": _ACCENT},
                "encoding": {"y": y, "tooltip": tooltip},
            },
        ],
    )


def _distribution() -> dict[str, Any]:
    """Rows: start of a bin of scores, share (percent of its kind), kind (relevant or irrelevant)."""
    areas = {
        "mark": {"type": "area", "interpolate": "step-after", "fillOpacity": 0.28, "line": {"strokeWidth": 1.5}},
        "encoding": {
            "x": {
                "field": "score",
                "type": "quantitative",
                "scale": {"zero": False, "nice": False},
                "axis": {"title": None, "grid": False, "tickCount": 5, "format": ".3~r", "labelBound": True},
            },
            "y": {
                "field": "share",
                "type": "quantitative",
                "stack": None,
                "axis": {"title": None, "tickCount": 3, "format": ".1~f", "labelExpr": "datum.label + ' %'"},
            },
            "color": {
                "field": "kind",
                "type": "nominal",
                "legend": None,
                "scale": {"domain": ["irrelevant", "relevant"], "range": [_BAD, _GOOD]},
            },
        },
    }
    return _spec("Shares of the scores of relevant and of irrelevant candidates.", height=130, **areas)


def _differences() -> dict[str, Any]:
    """Rows: place in the order of differences, until (the next place), difference (percentage points)."""
    x = {
        "field": "place",
        "type": "quantitative",
        "scale": {"nice": False, "zero": False},
        "axis": {
            "title": "queries, in the order of their differences",
            "grid": False,
            "format": ",d",
            "tickMinStep": 1,
            "labelBound": True,
        },
    }
    y = {
        "field": "difference",
        "type": "quantitative",
        "scale": {"nice": True},
        "axis": {"title": None, "tickCount": 5, "format": "+.1~f"},
    }
    parts = [
        {
            "transform": [{"calculate": f"{end}(datum.difference, 0)", "as": "part"}],
            "mark": {"type": "area", "interpolate": "step-after", "fill": colour, "fillOpacity": 0.75},
            "encoding": {"x": x, "y": {**y, "field": "part"}},
        }
        for end, colour in (("max", _GOOD), ("min", _BAD))
    ]
    return _spec(
        "The difference of two models on each query, sorted.",
        height=220,
        layer=[*parts, {"mark": {"type": "rule", "stroke": "var(--line-strong)"}, "encoding": {"y": {"datum": 0}}}],
    )


def _spec(description: str, height: int, **parts: Any) -> dict[str, Any]:
    return {
        "$schema": _SCHEMA,
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"name": "rows"},
        **parts,
    }
