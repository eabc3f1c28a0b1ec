"""What a run says to a server: where it is, how it is asked. Keys are no part of it: they stay in the environment."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from evalkit.configuration.files import GroupSettings


class ServerSettings(GroupSettings):
    """The part of `configs/backend/NAME.yaml` that a run may change, as `backend.url=http://127.0.0.1:8080`.

    `served_model` is the name that the server knows the model by (None: its Hub id); `key_variable` the environment variable
    that holds its key. `concurrency` requests are in flight at once, each with at most `batch_size` texts (None: what suits the
    server). A request fails after `timeout` seconds, and is sent again at most `retries` times. Texts are cut to
    `max_characters`. An embedding request says in its field `role_field` whether it holds queries (`query_role`) or documents
    (`document_role`). A language model that reranks is asked at `endpoint`: `completions` (so too where it is None), whose inputs
    evalkit assembles, or `score`, whose inputs the server assembles by a template of its own. Where a reranker is `listwise`, a
    request holds a query with all its candidates (None: where the model is known to rank lists).
    """

    group: ClassVar[str] = "backend"

    url: str | None = None
    served_model: str | None = None
    key_variable: str | None = None
    concurrency: PositiveInt = 8
    batch_size: PositiveInt | None = None
    timeout: PositiveFloat = 300.0
    retries: NonNegativeInt = 5
    max_characters: PositiveInt | None = None
    role_field: str | None = None
    query_role: str | None = None
    document_role: str | None = None
    listwise: bool | None = None
    endpoint: Literal["completions", "score"] | None = None


ROLES = ("role_field", "query_role", "document_role")
# what can change a score, unlike how fast the server is asked; its address counts too (`find_deviations`)
DECISIVE = ("served_model", "max_characters", "listwise", "endpoint", *ROLES)
