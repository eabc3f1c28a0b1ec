"""The command line of parity, sorted."""

from __future__ import annotations

import pytest
from command import run_here

from evalkit.errors import EvalkitError
from evalkit.parity.words import parity_words


def test_words_of_all_and_of_one() -> None:
    words = parity_words(
        [
            "model=local-embedder",
            "model.path=/e5",
            "backends=transformers,mteb,openai",
            "openai.url=http://127.0.0.1:8080/v1",
            "openai.served_model=e5",
            "mteb.model=mteb",
            "mteb.model.name=intfloat/multilingual-e5-small",
            "tolerance=1e-3",
            "limit=4",
        ]
    )
    assert words.backends == ("transformers", "mteb", "openai")
    assert words.tolerance == 1e-3
    common = ["model=local-embedder", "model.path=/e5", "limit=4"]
    assert words.overrides("transformers") == [*common, "backend=transformers"]
    assert words.overrides("openai") == [
        *common,
        "backend.url=http://127.0.0.1:8080/v1",
        "backend.served_model=e5",
        "backend=openai",
    ]
    # another model's file: what is said of the first one is not meant for it
    assert words.overrides("mteb") == [
        "limit=4",
        "model=mteb",
        "model.name=intfloat/multilingual-e5-small",
        "backend=mteb",
    ]


def test_what_a_server_decides_is_not_said_to_it() -> None:
    words = parity_words(
        ["device=cpu", "dtype=bf16", "runner.threads=2", "limit=1", "backends=torch,tei", "tei.url=http://x"]
    )
    assert words.overrides("tei") == ["limit=1", "backend.url=http://x", "backend=tei"]
    assert words.overrides("torch") == ["device=cpu", "dtype=bf16", "runner.threads=2", "limit=1", "backend=torch"]


def test_what_one_backend_is_told_beats_what_all_are() -> None:
    words = parity_words(
        ["dtype=fp32", "model.truncation=longest_first", "torch.dtype=bf16", "backends=transformers,torch"]
    )
    assert words.overrides("torch") == ["model.truncation=longest_first", "dtype=bf16", "backend=torch"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backends=torch"], "names one backend"),
        (["backends=torch,torch"], "names torch twice"),
        (["backends=torch,opnvino"], "openvino"),
        (["backends=torch,auto"], "auto stands for one of the others"),
        (["backend=torch"], "backends=a,b"),
        (["backend.url=http://x"], "NAME.url="),
        (["tolerance=tight"], "tolerance=tight"),
        (["tolerance=-1"], "tolerance=-1"),
        (["tolerance=nan"], "tolerance=nan"),
        (["backends=transformers,torch", "tei.url=http://x"], "does not name"),
    ],
)
def test_wrong_words(arguments: list[str], says: str) -> None:
    with pytest.raises(EvalkitError, match=says):
        parity_words(arguments)


def test_one_model_alone() -> None:
    done = run_here("parity", "-m", "model=a,b")
    assert (done.code, done.stdout) == (2, "")
    assert "leave out -m" in done.stderr
