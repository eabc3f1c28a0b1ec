"""Takes the README's picture of an HTML report: `make report-picture`, where there is Chromium.

The report is of the bundled tasks: bundled multilingual-e5-small as it comes and under other recipes, BM25, and chance.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import open_browser, open_page
from real_models import shared_folder, write_e5_small

WIDTH, HEIGHT, SCALE = 1120, 1330, 1.25
E5 = ("model.query_prompt='query: '", "model.document_prompt='passage: '", "model.pooling=mean")
RECIPES = {
    "e5-small": E5,
    "e5-small-without-prompts": ("model.pooling=mean",),
    "e5-small-32-tokens": (*E5, "model.max_length=32"),
    "e5-small-cls-pooling": (*E5[:2], "model.pooling=cls"),
}


def evaluate_all(folder: Path) -> Path:
    """Run everything and write the report; gives its path."""
    weights = shared_folder("e5-small", write_e5_small)
    run(folder, "model=bm25")
    run(folder, "model=multilingual-e5-small-q4")
    for name, recipe in RECIPES.items():
        # a local model is called after its folder, and a link's is the folder that it leads to
        named = shutil.copytree(weights, folder / name)
        run(folder, "model=local-embedder", f"model.path={named}", *recipe)
    page = folder / "report.html"
    evalkit("report", str(folder / "results"), "--format", "html", "-o", str(page))
    return page


def run(folder: Path, *settings: str) -> None:
    """Evaluate one model on the bundled tasks."""
    shared = ("task=demo", "cache=off", "offline=true", "texts=true", f"results_dir={folder / 'results'}")
    evalkit(*shared, *settings)


def evalkit(*arguments: str) -> None:
    """Run the command; what it says goes to standard error."""
    subprocess.run([sys.executable, "-m", "evalkit", *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def take_picture(page: Path, picture: Path, profile: Path) -> None:
    """Write a picture (PNG) of the page's upper part, in its light theme."""
    with open_browser(profile) as browser:
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        open_page(browser, page)
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        picture.write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        take_picture(evaluate_all(Path(made)), Path(__file__).with_name("report.png"), Path(made) / "profile")
