"""Certificates made and compared: what a model gives here, beside what its certificate says that it should."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import machine
from evalkit.backends import backends_for, is_installed, read_backend
from evalkit.backends.probes import TOLERANCES
from evalkit.cluster.models import runs_here
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError, MismatchError
from evalkit.evaluation.certificates import (
    DOCUMENT,
    SUFFIX,
    Certificate,
    CertifiedScores,
    CertifiedTokens,
    find_certificate,
)
from evalkit.evaluation.evaluate import FULL_PRECISION, Model, build_model
from evalkit.evaluation.goldens import (
    GOLDEN_PAIRS,
    GoldenCheck,
    check_golden_scores,
    describe,
    score_pairs,
    tolerance_for,
)
from evalkit.evaluation.model_recipes import recipe_fields
from evalkit.interruption import check as raise_if_interrupted
from evalkit.models.consent import guarded_by
from evalkit.models.folders.resolving import RECIPE, compare_with_folder
from evalkit.models.identity import PROBES
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, read_model
from evalkit.models.weights import CONSENT, NO_RECIPE, ModelFiles, described_folder, find_model
from evalkit.output.console import OutputConsole
from evalkit.output.files import write_text
from evalkit.output.json import STDOUT, compact_json, plain_json
from evalkit.output.numbers import counted
from evalkit.output.sheets import Sheet, print_sheets
from evalkit.records import RecipeField

if TYPE_CHECKING:
    from evalkit.evaluation.runs import RunSettings
    from evalkit.models.local import Inputs

CHOSEN_HERE = "torch"
SHOWN = 8  # ids of an example
logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class CertificateComparison:
    """A model beside its certificate: what differs, what was found the same, and what was not compared, with the reason.

    `golden` are the scores beside each other, in the run's own precision.
    """

    differences: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    golden: GoldenCheck | None = None

    def __add__(self, other: CertificateComparison) -> CertificateComparison:
        return CertificateComparison(
            self.differences + other.differences,
            self.same + other.same,
            self.skipped + other.skipped,
            other.golden or self.golden,
        )


def make_certificate(model: Model, name: str) -> Certificate:
    """Certify the model of that name in fp32. Raises EvalkitError where its files can't be had or are refused."""
    from evalkit.models.tokenizers import probe_ids

    if model.settings.kind == "listwise":
        raise EvalkitError("it ranks whole lists, and a certificate holds scores of single pairs")
    settings = model.settings
    files = _files_of(model)
    inputs = _inputs_of(settings, files)
    identity = model.runnable.identity
    description = model.runnable.description
    return Certificate(
        model=name,
        hub_id=settings.hub_id,
        source="folder" if settings.path else "hub",
        revision=identity.revision,
        weights_hash=identity.weights_hash,
        recipe=_whole_recipe(model),
        differences=_folder_differences(model),
        findings=(*(model.recipe.findings if model.recipe else ()), *inputs.findings),
        tokenizer=CertifiedTokens(PROBES, _tupled(probe_ids(inputs.tokenizer))),
        scores=CertifiedScores(
            backend=str(description["name"]),
            device=str(description.get("device", "cpu")),
            dtype="fp32",
            pairs=GOLDEN_PAIRS,
            inputs=_tupled(_pair_inputs(settings, inputs, GOLDEN_PAIRS)),
            values=score_pairs(model.runnable, settings, GOLDEN_PAIRS),
        ),
        made=plain_json(machine.collect()),
    )


def compare_with_certificate(model: Model, folders: Sequence[Path]) -> CertificateComparison | None:
    """Compare a model with its certificate, in full: its weights load. None where it has none.

    Raises EvalkitError where the model's files can't be had, and for a certificate that is damaged.
    """
    found = find_certificate(model.settings, folders)
    if found is None:
        return None
    _, certificate = found
    return compare_files(model, certificate) + compare_golden_scores(model, certificate, model.runnable)


def compare_files(model: Model, certificate: Certificate) -> CertificateComparison:
    """Compare a model's recipe and tokenizer with its certificate; no weights are loaded.

    What the user says otherwise of the recipe is no difference: then only the tokenizer's own tokens are compared.
    """
    compared = _compare_recipe(model, certificate) + _compare_hash(model, certificate)
    if model.runtime.server is not None or (model.ray is not None and not runs_here(model.backend, model.settings)):
        return compared + CertificateComparison(skipped=("token ids: the tokenizer is not here",))
    inputs = _inputs_of(model.settings, _files_of(model))
    return compared + _compare_tokens(model, certificate, inputs)


def compare_golden_scores(model: Model, certificate: Certificate, runnable: RunnableModel) -> CertificateComparison:
    """Compare a model's scores with its certificate, in the run's own precision where that has a tolerance."""
    dtype = model.runtime.dtype
    if dtype not in TOLERANCES:
        return CertificateComparison(skipped=(f"scores: {dtype} is too coarse for a tolerance",))
    if own := _said_otherwise(model, certificate):
        return CertificateComparison(skipped=(f"scores: you say another recipe ({', '.join(own)})",))
    expected = certificate.scores.values
    golden = GoldenCheck(
        model=certificate.model,
        backend=str(runnable.description["name"]),
        dtype=dtype,
        tolerance=tolerance_for(dtype, expected),
        expected=expected,
        found=score_pairs(runnable, model.settings, certificate.scores.pairs),
    )
    if golden.matches:
        return CertificateComparison(same=(f"scores: {describe(golden)}",), golden=golden)
    hashes = (runnable.identity.weights_hash, certificate.weights_hash)
    files = "the same weight files" if hashes[0] == hashes[1] else "other weight files"
    return CertificateComparison((f"scores of {files}: {describe(golden)}",), golden=golden)


def refuse_differences(model: Model, runnable: RunnableModel, certificate: Certificate, found: Sequence[str]) -> None:
    """Raise MismatchError where weights from the Hub, at the revision that is certified, differ from the certificate.

    A folder, another revision or a server may differ, which goes to the log as a warning.
    """
    if not found:
        return
    settings = model.settings
    what = f"{settings.name} differs from its certificate"
    certified = runnable.identity.revision == certificate.revision
    if settings.path is None and model.runtime.server is None and certified:
        raise MismatchError(
            f"{what}, so nothing was run: {'; '.join(found)}. Look first at damaged files in the Hub cache, at the versions of "
            "transformers and tokenizers, and at changes of the model's file in configs/model"
        )
    logger.warning("%s: %s", what, "; ".join(found))


@dataclass(frozen=True)
class CertificateGuard:
    """Compares a model with its certificate when its weights have loaded, before it scores anything else."""

    certificate: Certificate

    def __call__(self, model: Model, runnable: RunnableModel) -> None:
        compared = compare_golden_scores(model, self.certificate, runnable)
        refuse_differences(model, runnable, self.certificate, compared.differences)
        for line in compared.same:
            logger.info("%s is as certified: %s", model.settings.name, line)

    def check_files(self, model: Model) -> None:
        """Compare what needs no weights; as `refuse_differences`."""
        refuse_differences(model, model.runnable, self.certificate, compare_files(model, self.certificate).differences)


def _files_of(model: Model) -> ModelFiles:
    return find_model(model.settings, offline=model.runtime.offline, cache_dir=model.runtime.cache_dir)


def _inputs_of(settings: ModelSettings, files: ModelFiles) -> Inputs:
    from evalkit.models.recipes import recipe_inputs

    with guarded_by(settings, files.folder):
        return recipe_inputs(settings, files.folder)


def _tupled(lists: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(ids) for ids in lists)


def _pair_inputs(settings: ModelSettings, inputs: Any, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Return the token ids of pairs as the recipe's inputs make them: of an embedder's pair two lists, query and document."""
    found = []
    for query, document in pairs:
        pieces = inputs.tokenize([query], "query")[0], inputs.tokenize([document], "document")[0]
        if settings.makes_vectors:
            found += [inputs.encode_text(piece) for piece in pieces]
        else:
            found.append(inputs.encode_pair(*pieces))
    return [encoding.token_ids.tolist() for encoding in found]


def _whole_recipe(model: Model) -> dict[str, RecipeField]:
    """Return every field that decides a score, with who states it; of other kinds than RECIPE's those that are no defaults."""
    fields = {} if model.recipe is None else recipe_fields(model.recipe)
    settings, usual = model.settings, ModelSettings()
    others = [name for name in ModelSettings.model_fields if name not in NO_RECIPE | CONSENT | {"object", *fields}]
    return fields | {
        name: RecipeField(plain_json(getattr(settings, name)), f"model={settings.name}")
        for name in others
        if getattr(settings, name) != getattr(usual, name)
    }


def _folder_differences(model: Model) -> tuple[str, ...]:
    """Return where the model's own file and the files beside its weights say different things."""
    if model.settings.kind not in RECIPE or model.settings.onnx_file:
        return ()
    return compare_with_folder(model.settings, described_folder(model.settings, offline=model.runtime.offline))


def _other_fields(model: Model, certificate: Certificate) -> Iterator[tuple[str, str]]:
    """Yield the fields of the recipe that are certified otherwise, each with a text that says how."""
    here = {name: one.value for name, one in _whole_recipe(model).items()}
    certified = {name: one.value for name, one in certificate.recipe.items()}
    usual = ModelSettings().model_dump(mode="json")
    for name in {**certified, **here}:
        own, theirs = here.get(name, usual.get(name)), certified.get(name, usual.get(name))
        if own != theirs:
            yield name, f"{name} is {own!r}, certified {theirs!r}"


def _said_otherwise(model: Model, certificate: Certificate) -> tuple[str, ...]:
    """Return the fields of the recipe that the user, or the recipe that the user chose, says otherwise than the certificate."""
    settings = model.settings
    chosen = {*model.deviations, *settings.recipes.get(settings.recipe or "", {})}
    return tuple(name for name, _ in _other_fields(model, certificate) if name in chosen)


def _compare_recipe(model: Model, certificate: Certificate) -> CertificateComparison:
    own = set(_said_otherwise(model, certificate))
    others = tuple(f"recipe: {text}" for name, text in _other_fields(model, certificate) if name not in own)
    return CertificateComparison(others) if others or own else CertificateComparison(same=("recipe",))


def _compare_hash(model: Model, certificate: Certificate) -> CertificateComparison:
    """Compare the weight files, where they should be the certified ones."""
    identity = model.runnable.identity
    if model.settings.path or identity.revision != certificate.revision or not identity.weights_hash:
        return CertificateComparison()
    if identity.weights_hash == certificate.weights_hash:
        return CertificateComparison(same=("weight files",))
    return CertificateComparison((f"weight files: {identity.weights_hash}, certified {certificate.weights_hash}",))


def _compare_tokens(model: Model, certificate: Certificate, inputs: Inputs) -> CertificateComparison:
    """Compare the tokenizer's ids of the probes, and of the scored pairs as the recipe makes them."""
    from evalkit.models.tokenizers import probe_ids

    tokens, scores = certificate.tokenizer, certificate.scores
    if tokens.probes != PROBES:
        compared = CertificateComparison(skipped=("token ids: the certificate is of other probes than this evalkit's",))
    else:
        found = _tupled(probe_ids(inputs.tokenizer))
        compared = _compare_ids(found, tokens.ids, [repr(text) for text in PROBES])
    if compared.differences or _said_otherwise(model, certificate):
        return compared
    found = _tupled(_pair_inputs(model.settings, inputs, scores.pairs))
    per_pair = max(1, len(found) // len(scores.pairs))
    names = [" with ".join(map(repr, pair)) for pair in scores.pairs for _ in range(per_pair)]
    return compared + _compare_ids(found, scores.inputs, names)


def _compare_ids(
    found: Sequence[Sequence[int]], certified: Sequence[Sequence[int]], names: Sequence[str]
) -> CertificateComparison:
    if found == certified:
        return CertificateComparison(same=(f"token ids of {counted(len(found), 'input')}",))
    for place, (here, there) in enumerate(zip(found, certified, strict=False)):
        if here != there:
            first = next(
                (at for at, (one, other) in enumerate(zip(here, there, strict=False)) if one != other),
                min(len(here), len(there)),
            )
            ids = f"{_shown(here[first:])}, certified {_shown(there[first:])}"
            where = f" behind the first {first}" if first else ""
            return CertificateComparison((f"token ids of {names[place % len(names)]}{where}: {ids}",))
    return CertificateComparison((f"token ids: {len(found)} lists, certified {len(certified)}",))


def _shown(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:SHOWN]))}{', …' if len(ids) > SHOWN else ''}]"


def certifiable_models(names: Sequence[str] | None, folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the models that are named, each once; where none is (None), all that have a Hub id.

    Raises EvalkitError for an unknown name, and for one that is whatever model it is given.
    """
    if names is None:
        known = sorted(option_names("model", folders), key=str.lower)
        return tuple(name for name in known if read_model(name, folders).hub_id)
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        settings = read_model(name, folders)
        if not settings.hub_id and not settings.path:
            raise EvalkitError(
                f"model={name} is no model of its own that could be certified; name one of evalkit list models that has a Hub "
                "id, or give yours a file in --config-dir"
            )
    return chosen


def certifying_backend(name: str, folders: Sequence[Path]) -> str:
    """Return the backend that certifies a model where the user names none: torch, or the first that runs it here.

    Raises EvalkitError where none does.
    """
    able = [one for one in backends_for(read_model(name, folders)) if not read_backend(one).server]
    if not able:
        raise EvalkitError("it stands behind an API: neither its weights nor its tokenizer can be had")
    if CHOSEN_HERE in able:
        return CHOSEN_HERE
    here = [one for one in able if is_installed(read_backend(one))]
    if not here:
        raise EvalkitError(f"none of the backends that run it is installed: {', '.join(able)}")
    return here[0]


class Certifier:
    """Certifies models one after the other, and keeps what came of it. One JSON holds all; it is written at the end."""

    def __init__(self, json_file: Path, folder: Path | None) -> None:
        self._json_file = json_file
        self._folder = folder
        self._made: dict[str, Certificate] = {}
        self._missing: dict[str, str] = {}
        self._differences: dict[str, tuple[str, ...]] = {}
        self._notes: dict[str, str] = {}

    def certify(self, name: str, settings: RunSettings) -> None:
        """Certify a model, and compare it with the certificate that it has. Raises EvalkitError where it can't be had."""
        logger.info("certifying %s", name)
        model = build_model(
            settings.model,
            settings.backend,
            _in_full(settings.runtime),
            None,
            dict(settings.model_deviations),
            settings.stated,
        )
        made = make_certificate(model, name)
        compared = compare_with_certificate(model, settings.config_folders)
        missed = [one for one in check_golden_scores(model) if not one.matches]
        differences = () if compared is None else compared.differences
        note = "none to compare with" if compared is None else "as certified"
        if missed:
            published = f"published golden scores: {describe(missed[0])}"
            if model.settings.path is None:
                differences += (published,)
            else:
                note += "; misses the published golden scores, as a stand-in may"
        self._made[name] = made
        self._differences[name] = differences
        self._notes[name] = note
        self._keep(name, made)

    def miss(self, name: str, error: Exception) -> None:
        """Note why a model could not be certified. Raises the error again where it is an interruption."""
        raise_if_interrupted()
        reason = str(error) if isinstance(error, EvalkitError) else f"{type(error).__name__}: {error}"
        self._missing[name] = " ".join(reason.split()) or type(error).__name__
        logger.warning("%s can't be certified: %s", name, self._missing[name])

    def finish(self) -> int:
        """Write the JSON and print a table. Return the exit code: 0, 1 where something differs, 2 where nothing could be had."""
        document = {
            DOCUMENT: [asdict(one) for one in self._made.values()],
            "differences": {name: found for name, found in self._differences.items() if found},
            "missing": self._missing,
        }
        if self._made or self._missing:
            write_text(compact_json(document), None if self._json_file == STDOUT else self._json_file)
        if self._json_file != STDOUT and (self._made or self._missing):
            print_sheets([self._sheet()], OutputConsole())
        if not self._made:
            return 2
        return 1 if any(self._differences.values()) else 0

    def _keep(self, name: str, made: Certificate) -> None:
        """Write a certificate into the folder that was named; one that is there stays."""
        if self._folder is None:
            return
        path = self._folder / f"{name}{SUFFIX}"
        if path.exists():
            logger.warning("%s is there already, and stays as it is", path)
        else:
            write_text(compact_json(asdict(made)), path)

    def _sheet(self) -> Sheet:
        rows = [
            (
                name,
                "yes",
                f"{one.hub_id or name} at {one.revision}" if one.source == "hub" else f"a folder, {one.revision}",
                " ".join(f"{score:.4f}" for score in one.scores.values),
                "; ".join(self._differences[name]) or self._notes[name],
            )
            for name, one in self._made.items()
        ]
        rows += [(name, "no", "", "", reason) for name, reason in self._missing.items()]
        return Sheet(
            title="certificates",
            columns=(
                ("model", "name"),
                ("made", "name"),
                ("of", "text"),
                ("golden scores", "text"),
                ("compared, or why not made", "text"),
            ),
            rows=tuple(rows),
            below=(f"{self._json_file}: send it back, and these models can be verified",),
        )


def _in_full(runtime: Runtime) -> Runtime:
    if runtime.dtype != FULL_PRECISION:
        raise EvalkitError(f"dtype={runtime.dtype}: certificates are of fp32; leave dtype out")
    return runtime
