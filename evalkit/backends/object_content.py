"""What decides the answers of a function of the user's: its code, what it captured, and the globals that it reads.

A hash over all of it says whether a function is still the one whose scores are stored. What can't be read for certain, such as a
connection or an object of another language, has no hash.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from re import Pattern
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), range, PurePath)
_INSTALLED = tuple(
    {
        sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }  # where nobody edits code
)
# attributes of a class that decide no answer, or follow from others
_NOT_OF_A_CLASS = {
    *("__dict__", "__weakref__", "__doc__", "__annotations__", "__annotate_func__", "__annotations_cache__"),
    *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"),
    *("__dataclass_fields__", "__dataclass_params__", "__parameters__", "__orig_bases__"),
}
_WITHOUT_STATE = {"abc", "typing"}  # modules whose classes add no attributes of an object


class UnreadableError(Exception):
    """Something that has no reliable hash; the message says where it is and what."""


def content_hash(target: Any) -> str:
    """Return the sha256, as hex, over all that decides what a function or callable object gives.

    Read are code, defaults, captured variables, arguments of a partial, the object of a bound method, and what of its module it
    names, each to any depth; of installed packages names and versions alone. Raises UnreadableError.
    """
    reader = _Reader()
    reader.read(target, getattr(target, "__name__", type(target).__name__))
    return reader.digest.hexdigest()


def weights_hash(target: Any) -> str:
    """Return the sha256 of a torch module's weights and buffers, as hex; empty for what is none."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(target, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, value in sorted(target.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            digest.update(f"{name}\0{value!r}\n".encode())
            continue
        digest.update(f"{name}\0".encode())
        _add_tensor(digest, value)
    return digest.hexdigest()


def _add_tensor(digest: Any, value: Any) -> None:
    import torch

    digest.update(f"{value.dtype}\0{tuple(value.shape)}\n".encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


class _Reader:
    """Adds objects to one hash; `seen` are those that were added, by which circles end."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}

    def read(self, value: Any, where: str) -> None:
        """Add an object, which is found at `where`. Raises UnreadableError."""
        if type(value) in _PLAIN or isinstance(value, PurePath):
            self._add(type(value).__name__, repr(value))
            return
        if id(value) in self._seen:
            self._add("again", str(self._seen[id(value)][0]))
            return
        self._seen[id(value)] = (len(self._seen), value)  # kept, so that no other object gets its id
        self._add(type(value).__name__)
        own = _CONTAINERS.get(type(value))
        read = own or next((one for kinds, one in _READERS if isinstance(value, kinds)), None)
        if read is not None:
            read(self, value, where)
        elif not self._read_of_libraries(value, where):
            self._read_object(value, where)

    def _add(self, *parts: str) -> None:
        for part in parts:
            encoded = part.encode(errors="surrogatepass")
            self.digest.update(b"%d:%b" % (len(encoded), encoded))

    def _read_items(self, values: Iterable[Any], where: str) -> None:
        held = list(values)
        self._add(str(len(held)))
        for place, value in enumerate(held):
            self.read(value, f"{where}[{place}]")

    def _read_mapping(self, values: Mapping[Any, Any], where: str) -> None:
        self._add(str(len(values)))
        for key, value in values.items():
            self.read(key, f"a key of {where}")
            self.read(value, f"{where}[{key!r}]"[:80])

    def _read_set(self, values: Iterable[Any], where: str) -> None:
        # sets of texts come in another order in each process
        parts = []
        for value in values:
            own = _Reader()
            own.read(value, f"an element of {where}")
            parts.append(own.digest.hexdigest())
        self._add(*sorted(parts))

    def _read_array(self, value: Any, where: str) -> None:
        if value.dtype.hasobject:
            raise UnreadableError(f"{where}, an array of objects")
        self._add(str(value.dtype), str(value.shape))
        self.digest.update(np.ascontiguousarray(value).tobytes())

    def _read_function(self, function: types.FunctionType, where: str) -> None:
        self._add(function.__module__ or "", function.__qualname__)
        if _is_installed(function.__module__) and "<locals>" not in function.__qualname__:
            self._add(_version(function.__module__))
            return
        self._read_code(function.__code__)
        self.read(function.__defaults__, f"the defaults of {where}")
        self.read(function.__kwdefaults__, f"the defaults of {where}")
        self._read_mapping(vars(function), where)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not set yet
                self._add("empty", name)
                continue
            self.read(content, name)
        for name in sorted(_names_in(function.__code__) & function.__globals__.keys()):
            self._add(name)
            self.read(function.__globals__[name], name)

    def _read_code(self, code: types.CodeType) -> None:
        self._add(code.co_code.hex(), *code.co_names, *code.co_varnames, *code.co_freevars)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._read_code(constant)
            else:
                self.read(constant, code.co_name)

    def _read_method(self, method: Any, where: str) -> None:
        self.read(method.__func__, where)
        self.read(method.__self__, where)

    def _read_builtin(self, function: Any, where: str) -> None:
        self._add(function.__module__ or "", function.__qualname__)
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            self.read(owner, where)

    def _read_partial(self, partial: functools.partial[Any], where: str) -> None:
        self.read(partial.func, where)
        self._read_items(partial.args, where)
        self._read_mapping(partial.keywords, where)

    def _read_cached(self, value: Any, where: str) -> None:
        self.read(value.__wrapped__, where)

    def _read_ufunc(self, value: np.ufunc, _: str) -> None:
        self._add(value.__name__, np.__version__)

    def _read_module(self, module: types.ModuleType, where: str) -> None:
        if not _is_installed(module.__name__):
            raise UnreadableError(f"{where}, a module of your own: import what you use of it by name")
        self._add(module.__name__, _version(module.__name__))

    def _read_class(self, kind: type, where: str) -> None:
        self._add(kind.__module__, kind.__qualname__)
        if _is_installed(kind.__module__):
            self._add(_version(kind.__module__))
            return
        self._read_items(kind.__bases__, where)
        for name, value in vars(kind).items():
            if name not in _NOT_OF_A_CLASS and not isinstance(
                value, types.GetSetDescriptorType | types.MemberDescriptorType
            ):
                self._add(name)
                self.read(value, f"{kind.__name__}.{name}")

    def _read_descriptor(self, value: Any, where: str) -> None:
        self.read(value.__func__, where)

    def _read_property(self, value: property, where: str) -> None:
        self._read_items((value.fget, value.fset, value.fdel), where)

    def _read_enum(self, value: Enum, where: str) -> None:
        self._read_class(type(value), where)
        self._add(value.name)

    def _read_pattern(self, value: Pattern[Any], where: str) -> None:
        self.read(value.pattern, where)
        self._add(str(value.flags))

    def _read_of_libraries(self, value: Any, where: str) -> bool:
        """Add what is torch's or transformers', if it is. Libraries that are not loaded made none of it."""
        torch, transformers = sys.modules.get("torch"), sys.modules.get("transformers")
        if torch is not None and isinstance(value, torch.Tensor):
            _add_tensor(self.digest, value)
        elif torch is not None and isinstance(value, torch.dtype | torch.device):
            self._add(str(value))
        elif torch is not None and isinstance(value, torch.nn.Module):
            self._read_network(value, where, torch.nn.Module)
        elif transformers is not None and isinstance(value, transformers.PreTrainedConfig):
            self._add(value.to_json_string(use_diff=False))
        elif transformers is not None and isinstance(value, transformers.PreTrainedTokenizerBase) and value.is_fast:
            self._read_class(type(value), where)
            self._add(value.backend_tokenizer.to_str(), repr(value))
        else:
            return False
        return True

    def _read_network(self, network: Any, where: str, base: type) -> None:
        """Add a network's weights, and the classes and own attributes of all its parts.

        Of sentence-transformers' models, which hold much else, what decides their scores as for one that is wrapped itself.
        """
        self._add(weights_hash(network))
        library = sys.modules.get("sentence_transformers")
        if library is not None and isinstance(network, library.CrossEncoder | library.SentenceTransformer):
            names = ("max_seq_length", "prompts", "default_prompt_name", "truncate_dim", "activation_fn")
            self._read_class(type(network), where)
            self._add(*(type(part).__qualname__ for part in network))
            self._add(*(f"{name}={getattr(network, name, None)!r}" for name in names))
            return
        plain = vars(base()).keys() - {"training"}  # torch's own, which hold weights and parts
        for name, part in network.named_modules():
            self._add(name)
            self._read_class(type(part), where)
            own = {key: held for key, held in vars(part).items() if key not in plain and key != "training"}
            self._read_mapping(own, f"{where}.{name}" if name else where)

    def _read_object(self, value: Any, where: str) -> None:
        """Add an object of a class of the user's own, with its attributes; others hold what Python can't see."""
        kind = type(value)
        others = [
            base
            for base in kind.__mro__
            if base is not object and base.__module__ not in _WITHOUT_STATE and _is_installed(base.__module__)
        ]
        if others or not hasattr(value, "__dict__"):
            raise UnreadableError(f"{where}, a {kind.__module__}.{kind.__qualname__}")
        self._read_class(kind, where)
        self._read_mapping(vars(value), where)


_READERS: tuple[tuple[Any, Callable[[_Reader, Any, str], None]], ...] = (
    (Enum, _Reader._read_enum),
    (np.ndarray | np.generic, _Reader._read_array),
    (types.FunctionType, _Reader._read_function),
    (types.MethodType, _Reader._read_method),
    (types.BuiltinFunctionType, _Reader._read_builtin),
    (functools.partial, _Reader._read_partial),
    (type(functools.cache(len)), _Reader._read_cached),
    (np.ufunc, _Reader._read_ufunc),
    (types.ModuleType, _Reader._read_module),
    (type, _Reader._read_class),
    (staticmethod | classmethod, _Reader._read_descriptor),
    (property, _Reader._read_property),
    (Pattern, _Reader._read_pattern),
)
"""How what is read; plain containers are below, since a class that inherits from one may hide more."""
_CONTAINERS: Mapping[type, Callable[[_Reader, Any, str], None]] = {
    tuple: _Reader._read_items,
    list: _Reader._read_items,
    dict: _Reader._read_mapping,
    types.MappingProxyType: _Reader._read_mapping,
    set: _Reader._read_set,
    frozenset: _Reader._read_set,
}


def _names_in(code: types.CodeType) -> set[str]:
    """Return the names that a code reads, those of functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _is_installed(module: str | None) -> bool:
    """Tell whether a module is Python's own or of an installed package, which its version names."""
    top = (module or "builtins").partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and file.startswith(_INSTALLED)


def _version(module: str) -> str:
    top = module.partition(".")[0]
    return str(getattr(sys.modules.get(top), "__version__", sys.version if top in sys.stdlib_module_names else ""))
