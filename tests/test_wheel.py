"""The wheel holds all that a run needs: installed elsewhere, it works from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Outcome, files_below, run_program

ROOT = Path(__file__).parent.parent

# what a run opens and imports, from a program that sees all of it
WATCHED = """
import json, os, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from evalkit.commands.main import run_command_line
code = run_command_line(["task=demo", "model=bm25", "offline=true"])
from evalkit.configuration.files import configs_dir
from evalkit.results.published import all_figures
own = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] == "evalkit"]
found = {"code": code, "configs": str(configs_dir()), "figures": len(all_figures())}
found |= {"opened": [os.path.abspath(path) for path in opened], "own": own}
print(json.dumps(found), file=sys.stderr)
"""


@dataclass(frozen=True)
class Installed:
    """The folder with the wheel's content, the only one of evalkit on the path, and an empty one to run in."""

    place: Path
    empty: Path

    def run(self, *arguments: str, program: tuple[str, ...] = (sys.executable, "-m", "evalkit")) -> Outcome:
        return run_program(self.empty, *arguments, program=program, PYTHONPATH=str(self.place))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    work = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (work / "dist").glob("evalkit_reranking-*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        str(work / "site"),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=300, env=os.environ | {"PIP_NO_CACHE_DIR": "1"})
    (work / "empty").mkdir()
    return Installed(work / "site", work / "empty")


def test_module_and_script_run_from_an_empty_folder(installed: Installed) -> None:
    by_module = installed.run("task=demo-zh2en", "model=bm25")
    by_script = installed.run("task=demo-zh2en", "model=bm25", program=(str(installed.place / "bin" / "evalkit"),))
    assert (by_module.code, by_script.code) == (0, 0), by_module.stderr + by_script.stderr
    assert by_module.rows == by_script.rows
    assert by_module.rows[0][:2] == ["bm25", "demo-zh2en"]
    assert any(name.endswith("EvalkitDemoZh2En.json") for name in files_below(installed.empty / "results"))


def test_configs_demo_and_published_figures_are_the_wheel_s(installed: Installed) -> None:
    done = installed.run(program=(sys.executable, "-c", WATCHED))
    assert done.code == 0, done.stderr
    found = json.loads(done.stderr.splitlines()[-1])
    assert found["code"] == 0
    assert [path for path in found["own"] if not path.startswith(str(installed.place))] == []
    assert found["configs"] == str(installed.place / "evalkit" / "configs")
    assert found["figures"] > 1_000
    opened = found["opened"]
    environment = str(Path(sys.prefix))
    assert [path for path in opened if path.startswith(f"{ROOT}{os.sep}") and not path.startswith(environment)] == []
    data = (
        "demo/zh.jsonl",
        "demo/zh2en.jsonl",
        "demo/en2zh.jsonl",
        "configs/config.yaml",
        "results/data/cmteb-reranking.csv",
    )
    for name in data:
        assert any(path.endswith(name) and path.startswith(str(installed.place)) for path in opened), name


def test_a_page_is_written_with_the_wheel_s_own_template_and_scripts(installed: Installed) -> None:
    assert installed.run("task=demo-zh2en", "model=bm25", "results_dir=page").code == 0
    done = installed.run("report", "page", "--format", "html", "-o", "page.html")
    assert (done.code, done.stdout) == (0, ""), done.stderr
    page = (installed.empty / "page.html").read_text(encoding="utf-8")
    assert "startLeaderboard();" in page
    assert page.count("vegaEmbed") > 1


def test_wheel_holds_nothing_else(installed: Installed) -> None:
    tops = {path.name for path in installed.place.iterdir()} - {"bin"}
    assert {top.partition("-")[0] for top in tops} == {"evalkit", "evalkit_reranking"}
    assert (installed.place / "evalkit" / "py.typed").is_file()
    (info,) = installed.place.glob("evalkit_reranking-*.dist-info")
    assert (info / "licenses" / "LICENSE").is_file()
