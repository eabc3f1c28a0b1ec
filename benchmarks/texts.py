"""Real Chinese text for the benchmarks: two Debian packages of documentation, fetched and unpacked at run time."""

from __future__ import annotations

import gzip
import html
import random
import re
import subprocess
from functools import cache
from pathlib import Path

PACKAGES = ("manpages-zh", "debian-reference-zh-cn")
WORK = Path(__file__).parent / "work"
CHINESE = re.compile(r"[一-鿿]")
LONGEST = 120_026  # characters of T2Reranking's longest passage


@cache
def corpus() -> str:
    """All of the packages' prose, one text of some two million characters."""
    folder = WORK / "debian"
    if not folder.is_dir():
        _unpack(folder)
    manuals = sorted(folder.rglob("zh_CN/man*/*.gz"))
    pages = [_roff(gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")) for path in manuals]
    pages += [_html(path.read_text("utf-8", "ignore")) for path in sorted(folder.rglob("*.zh-cn.html"))]
    return " ".join(page for page in pages if len(CHINESE.findall(page)) > 200)


def passages(count: int, mean_characters: float, seed: int, spread: float = 0.6) -> list[str]:
    """`count` different passages of log-normal lengths with that mean: most are short, a few very long."""
    text, chance = corpus(), random.Random(seed)
    found: dict[str, None] = {}
    centre = _log_centre(mean_characters, spread)
    while len(found) < count:
        length = min(LONGEST, max(5, int(chance.lognormvariate(centre, spread))))
        start = chance.randrange(len(text) - length)
        found[text[start : start + length].strip() or "空"] = None
    return list(found)


def _log_centre(mean: float, spread: float) -> float:
    from math import log

    return log(mean) - spread**2 / 2


def _unpack(folder: Path) -> None:
    WORK.mkdir(exist_ok=True)
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=WORK, check=True, capture_output=True)
    for package in WORK.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)


def _roff(source: str) -> str:
    lines = (line for line in source.splitlines() if not line.startswith((".", "'")))
    return _spaces(re.sub(r"\\f.|\\[-&|~ ]|\\\(..|\\s[-+]?\d", "", " ".join(lines)))


def _html(source: str) -> str:
    return _spaces(html.unescape(re.sub(r"<[^>]+>", " ", source)))


def _spaces(text: str) -> str:
    return re.sub(r"\s+", " ", text)
