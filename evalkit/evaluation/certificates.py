"""Certificates: what a named model's own weights, tokenizer and files were found to give on a machine that had them.

`configs/model/NAME.certificate.json` holds one, or the same place in a folder of the user's own (`--config-dir`). `evalkit certify`
makes them; with one it can be seen whether the weights and the tokenizer at hand are those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from evalkit.configuration.files import configs_dir, option_names, read_option
from evalkit.errors import EvalkitError, unknown_name
from evalkit.models.settings import ModelSettings
from evalkit.records import RecipeField

SUFFIX = ".certificate.json"
CODE_OF_ITS_OWN = "code of its own"
DOCUMENT = "certificates"
"""The key under which `evalkit certify` lists the certificates that it made."""

Name = Annotated[str, Field(min_length=1)]
TokenIds = tuple[Annotated[int, Field(ge=0)], ...]
FiniteScore = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class CertifiedTokens:
    """What a tokenizer makes of texts: alone, then each with one of the others, with special tokens and then without.

    Where the tokenizer gives segment ids, those follow in the same order (see `probe_ids` in models/tokenizers.py).
    """

    probes: Annotated[tuple[str, ...], Field(min_length=1)]
    ids: Annotated[tuple[TokenIds, ...], Field(min_length=1)]


@dataclass(frozen=True)
class CertifiedScores:
    """Scores of (query, document) pairs: raw ones, or the similarity of an embedder's two vectors.

    `inputs` are the token ids of each pair as the recipe makes them: of a pair one list, of an embedder's texts two.
    """

    backend: Name
    device: Name
    dtype: Literal["fp32"]
    pairs: Annotated[tuple[tuple[str, str], ...], Field(min_length=1)]
    inputs: tuple[TokenIds, ...]
    values: tuple[FiniteScore, ...]


@dataclass(frozen=True)
class Certificate:
    """What one named model was found to give, of which weights and files, and on what machine.

    `differences` are those between the model's own file and its folder's, `findings` what loading said of its files and its
    tokenizer. `source` says whether the weights came from the Hub at `revision`, or from a folder whose content has that name.
    `made` is what a result's provenance says: the versions of evalkit and of the libraries, the processor, the time.
    """

    model: Name
    hub_id: str | None
    source: Literal["hub", "folder"]
    revision: Name
    weights_hash: Name
    recipe: dict[str, RecipeField]
    differences: tuple[str, ...]
    findings: tuple[str, ...]
    tokenizer: CertifiedTokens
    scores: CertifiedScores
    made: dict[str, Any]


_CERTIFICATE = TypeAdapter(Certificate)


def certificate_files(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the certificates that there are, by the model's name; `folders` are the user's own configs folders.

    Raises EvalkitError for one of no model, and for a second one of the same model.
    """
    found: dict[str, Path] = {}
    for folder in (configs_dir(), *folders):
        for path in sorted((folder / "model").glob(f"*{SUFFIX}")):
            name = path.name.removesuffix(SUFFIX)
            if name not in option_names("model", folders):
                raise EvalkitError(f"{path}: {unknown_name('model', name, option_names('model', folders))}")
            if name in found:
                raise EvalkitError(f"{path}: {found[name]} certifies {name} already; take one of the two away")
            found[name] = path
    return found


def read_certificate(path: Path) -> Certificate:
    """Read a certificate, or the one of the file's name among those that `evalkit certify` wrote into one file.

    Raises EvalkitError, which names the file and the field, where it is damaged or another model's.
    """
    name = path.name.removesuffix(SUFFIX)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, f"is not JSON: {error}") from error
    listed = content.get(DOCUMENT) if isinstance(content, dict) else None
    if isinstance(listed, list):
        content = next((one for one in listed if isinstance(one, dict) and one.get("model") == name), None)
        if content is None:
            raise _damaged(path, f"holds no certificate of {name}")
    try:
        certificate = _CERTIFICATE.validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"])) or "the whole"
        raise _damaged(path, f"{field}: {problem['msg']}") from error
    _refuse_half(path, name, certificate)
    return certificate


def _refuse_half(path: Path, name: str, certificate: Certificate) -> None:
    """Refuse a certificate whose parts do not belong together."""
    if certificate.model != name:
        raise _damaged(path, f"model: it certifies {certificate.model}, and its name says {name}")
    if len(certificate.tokenizer.ids) % len(certificate.tokenizer.probes):
        texts = len(certificate.tokenizer.probes)
        raise _damaged(path, f"tokenizer.ids: {len(certificate.tokenizer.ids)} lists do not fit {texts} probes")
    pairs = len(certificate.scores.pairs)
    if len(certificate.scores.values) != pairs:
        raise _damaged(path, f"scores.values: {len(certificate.scores.values)} scores of {pairs} pairs")
    if len(certificate.scores.inputs) not in (pairs, 2 * pairs):
        raise _damaged(path, f"scores.inputs: {len(certificate.scores.inputs)} lists do not fit {pairs} pairs")


def _damaged(path: Path, what: str) -> EvalkitError:
    return EvalkitError(f"{path}: {what}; make it again with evalkit certify, or take it away")


def find_certificate(settings: ModelSettings, folders: Sequence[Path] = ()) -> tuple[Path, Certificate] | None:
    """Return the certificate of the model that the settings are of, and its file; None where there is none.

    They are of a named model that has the same Hub id, whatever folder stands in for it and whatever they call it; a model
    without a Hub id is known by its name.
    """
    for name, path in certificate_files(folders).items():
        if _is_of(read_option("model", name, folders), name, settings):
            return path, read_certificate(path)
    return None


def _is_of(own: Mapping[str, Any], name: str, settings: ModelSettings) -> bool:
    if own.get("onnx_file") != settings.onnx_file:
        return False
    if hub_id := own.get("hub_id"):
        return bool(hub_id == settings.hub_id)
    return str(own.get("name", name)) == settings.name


def verification(name: str, settings: ModelSettings, folders: Sequence[Path] = ()) -> str | None:
    """Return whether a named model is verified: `yes`, `no`, or `no, code of its own`; None where there is nothing to verify.

    A model of the Hub is where its certificate is of the Hub's own files at the revision that its settings name.
    """
    path = certificate_files(folders).get(name)
    certificate = None if path is None else read_certificate(path)
    if settings.hub_id is None:
        return None if certificate is None else "yes"
    if certificate and certificate.source == "hub" and certificate.revision == settings.revision:
        return "yes"
    return f"no, {CODE_OF_ITS_OWN}" if settings.needs_remote_code else "no"
