"""Other libraries at the Hub: kept offline where the user says so, their failures in one line."""

from __future__ import annotations

import os

import huggingface_hub
import pytest

from evalkit.errors import EvalkitError
from evalkit.hub_access import reporting_hub_errors


def test_offline_is_meant() -> None:
    """The library is told, whatever was imported before, and told again that it may when the work is done."""
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    variable = os.environ.get("HF_HUB_OFFLINE")
    with reporting_hub_errors("work", offline=True, advice="look"):
        assert huggingface_hub.constants.is_offline_mode()
        assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert not huggingface_hub.constants.is_offline_mode()
    assert os.environ.get("HF_HUB_OFFLINE") == variable


def test_a_request_that_offline_forbids() -> None:
    with (
        pytest.raises(EvalkitError, match=r"^loading: .*offline mode is enabled.*; name a folder$"),
        reporting_hub_errors("loading", offline=True, advice="name a folder"),
    ):
        huggingface_hub.HfApi().model_info("intfloat/multilingual-e5-small")


def test_failures_are_one_line() -> None:
    with (
        pytest.raises(EvalkitError, match=r"^loading: it broke in two$"),
        reporting_hub_errors("loading", offline=False, advice="look"),
    ):
        raise RuntimeError("it broke\nin two")
    with (
        pytest.raises(EvalkitError, match=r"^loading: no such place; look$"),
        reporting_hub_errors("loading", offline=False, advice="look"),
    ):
        raise ValueError("no such place") from ConnectionError("refused")
    with pytest.raises(EvalkitError, match=r"^mine$"), reporting_hub_errors("loading", offline=False, advice="look"):
        raise EvalkitError("mine")
    with (
        pytest.raises(EvalkitError, match=r"^loading: x{299}…$"),
        reporting_hub_errors("loading", offline=False, advice="look"),
    ):
        raise RuntimeError("x" * 999)
