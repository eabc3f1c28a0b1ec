"""The configuration files of a model's folder, read and checked: no weights, and nothing that runs code.

The layouts are Hugging Face transformers' (`config.json`, `tokenizer_config.json`) and sentence-transformers' (`modules.json` with
a folder per module, `sentence_bert_config.json`, `config_sentence_transformers.json`), in their old forms and today's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit.errors import EvalkitError

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
ENCODER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# the order in which sentence-transformers puts the vectors of several modes, in files that say each with a key of its own
OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
File = TypeVar("File", bound=BaseModel)


class FolderModule(BaseModel):
    """An entry of `modules.json`: the class of a module, its folder below the model's, and the name that it is given."""

    model_config = ConfigDict(frozen=True)

    type: str
    path: str = ""
    given: str = Field(default="", alias="name")
    kwargs: list[str] = Field(default_factory=list)

    @property
    def name(self) -> str:
        """The class without the package that it is in."""
        return self.type.rpartition(".")[2]


class PoolingFile(BaseModel):
    """A pooling module's `config.json`: its modes by sentence-transformers' names, and whether prompts are pooled."""

    model_config = ConfigDict(frozen=True, extra="allow")

    pooling_mode: str | list[str] | None = None
    include_prompt: bool = True
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes whose vectors are put end to end; the mean where the file names none."""
        if self.pooling_mode is not None:
            return (self.pooling_mode,) if isinstance(self.pooling_mode, str) else tuple(self.pooling_mode)
        return tuple(mode for key, mode in OLD_POOLING.items() if getattr(self, key)) or ("mean",)


class EncoderFile(BaseModel):
    """`sentence_bert_config.json`: how the first module reads texts. What else it says is kept in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    max_seq_length: int | None = Field(default=None, ge=1)
    do_lower_case: bool = False
    transformer_task: str | None = None
    modality_config: dict[str, Any] | None = None


class SettingsFile(BaseModel):
    """`config_sentence_transformers.json`: prompts, how vectors are compared, and the class that the model was saved as."""

    model_config = ConfigDict(frozen=True, extra="allow")

    prompts: dict[str, str | None] = Field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = Field(default=None, ge=1)
    model_type: str = "SentenceTransformer"

    @property
    def said(self) -> dict[str, str]:
        """The prompts that are not empty."""
        return {name: prompt for name, prompt in self.prompts.items() if prompt}


@dataclass(frozen=True)
class FolderFiles:
    """What the files of a model's folder say. `network` is the folder of its first module, most often the folder itself.

    `modules` is None without a `modules.json`; `names` are the files that lie directly in `network`, `pooling` the pooling
    modules' files by their folder, `encoder_name` the encoder's settings file.
    """

    folder: Path
    network: Path
    config: Mapping[str, Any]
    modules: tuple[FolderModule, ...] | None
    pooling: Mapping[str, PoolingFile]
    encoder: EncoderFile | None
    encoder_name: str
    settings: SettingsFile | None
    tokenizer: Mapping[str, Any]
    names: frozenset[str]

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes of transformers that the weights were saved from."""
        return tuple(str(name) for name in self.config.get("architectures") or ())

    @property
    def model_type(self) -> str:
        """Transformers' name of the architecture's family."""
        return str(self.config.get("model_type") or "")

    @property
    def labels(self) -> tuple[str, ...]:
        """A classifier's labels, by number; empty where config.json is silent, as transformers writes it where they are two."""
        named = self.config.get("id2label")
        if isinstance(named, Mapping) and named:
            return tuple(str(named[key]) for key in sorted(named, key=lambda key: (len(str(key)), str(key))))
        count = self.config.get("num_labels", self.config.get("_num_labels"))
        return tuple(f"LABEL_{number}" for number in range(count)) if isinstance(count, int) and count > 0 else ()

    @property
    def code(self) -> Mapping[str, str]:
        """The classes that `config.json` takes from Python files of the model's own, by what transformers calls them."""
        mapped = self.config.get("auto_map")
        return {str(name): str(place) for name, place in mapped.items()} if isinstance(mapped, Mapping) else {}


def read_folder(folder: Path) -> FolderFiles:
    """Read what a model's folder says. Raises EvalkitError, naming file and field, where a file is damaged."""
    modules = read_modules(folder)
    network = network_folder(folder)
    # an empty file is passed over, as sentence-transformers does
    encoder_name = next((name for name in ENCODER_SETTINGS if read_object(network / name)), "")
    names = frozenset(path.name for path in network.iterdir()) if network.is_dir() else frozenset[str]()
    return FolderFiles(
        folder=folder,
        network=network,
        config=_read_config(network / "config.json"),
        modules=modules,
        pooling={
            module.path: _validated(PoolingFile, _module_folder(folder, module) / "config.json", required=True)
            for module in modules or ()
            if module.name == "Pooling"
        },
        encoder=_validated(EncoderFile, network / encoder_name) if encoder_name else None,
        encoder_name=encoder_name,
        settings=_validated(SettingsFile, folder / SETTINGS) if (folder / SETTINGS).is_file() else None,
        tokenizer=read_object(network / "tokenizer_config.json") or {},
        names=names,
    )


def network_folder(folder: Path) -> Path:
    """Return the folder of a model's network: that of the first module, in old layouts a folder of its own, else the model's."""
    modules = read_modules(folder)
    apart = modules and modules[0].name == "Transformer" and modules[0].path not in ("", ".")
    return _module_folder(folder, modules[0]) if modules and apart else folder


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where there is no such file. Raises EvalkitError where it holds something else."""
    content = _read_json(path)
    if content is not None and not isinstance(content, dict):
        raise EvalkitError(f"{path} holds a {type(content).__name__}, not an object; copy it from the model's origin")
    return content


def _read_config(path: Path) -> dict[str, Any]:
    config = read_object(path) or {}
    named = config.get("architectures") or []
    if not isinstance(named, list):
        raise EvalkitError(f"{path}: architectures={named!r} must be a list of names; copy it from the model's origin")
    return config


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise EvalkitError(
            f"{path} is not JSON: {' '.join(str(error).split())[:200]}; copy it from the model's origin"
        ) from None


def read_modules(folder: Path) -> tuple[FolderModule, ...] | None:
    """Return the entries of `modules.json`; None where there is none. Raises EvalkitError where it is damaged."""
    path = folder / MODULES
    content = _read_json(path)
    if content is None:
        return None
    if not isinstance(content, list) or not content:
        raise EvalkitError(f"{path} must hold a list of modules; copy it from the model's origin")
    return tuple(_checked(FolderModule, path, entry, f"entry {number}") for number, entry in enumerate(content))


def _module_folder(folder: Path, module: FolderModule) -> Path:
    """Return a module's folder. Raises EvalkitError where it lies outside the model's."""
    place = folder / module.path
    parts = Path(module.path).parts
    if Path(module.path).is_absolute() or ".." in parts:
        raise EvalkitError(f"{folder / MODULES}: path={module.path!r} leads out of the model's folder")
    if not place.is_dir() and module.name != "Normalize":
        raise EvalkitError(
            f"{folder / MODULES} names {module.path}, and there is no such folder; copy it from the model's origin"
        )
    return place


def _validated(kind: type[File], path: Path, *, required: bool = False) -> File:
    content = read_object(path)
    if content is None and required:
        raise EvalkitError(f"{path} is missing; copy it from the model's origin")
    return _checked(kind, path, content or {}, "")


def _checked(kind: type[File], path: Path, content: Any, where: str) -> File:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in (where, *problem["loc"]) if part != "")
        raise EvalkitError(
            f"{path}: {name}={problem['input']!r}: {problem['msg']}; copy it from the model's origin"
        ) from None


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in the headers of the folder's safetensors. A damaged file is left to whoever loads it."""
    return {name: shape for name, (shape, _) in _tensors(folder).items()}


def tensor_types(folder: Path) -> set[str]:
    """Return the types in the headers of the folder's safetensors, by these names: F32, BF16, I64 and others."""
    return {kind for _, kind in _tensors(folder).values()}


def _tensors(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as tensors:
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                found |= {name: (tuple(one.get_shape()), str(one.get_dtype())) for name, one in slices.items()}
        except (OSError, SafetensorError):
            continue
    return found
