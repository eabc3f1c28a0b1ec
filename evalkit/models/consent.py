"""Code that comes with a model, and pickles, run only where the user consents, whatever the library that loads the model asks for.

A library may set `trust_remote_code` itself, or import what a folder's files name. So consent is not left to libraries' arguments:
an audit hook of Python's sees each file's code before it runs and each file before it is opened. It is no sandbox for code that
runs already, but keeps such code from running at all.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from evalkit.errors import ConsentError
from evalkit.machine import PACKAGE_FOLDER
from evalkit.models.settings import ModelSettings

PICKLES = frozenset(
    (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".jbl", ".dill", ".cloudpickle", ".sav")
)
HEAD_BYTES = 512
# modules that read files as bytes and never unpickle what they read
_READERS = ("evalkit", "huggingface_hub")
_IMPORTER = "<frozen importlib._bootstrap_external>"
# where caches of models and of their code lie: (loaded module, its constant), and environment variables
_CONSTANTS = (
    ("huggingface_hub.constants", "HF_HUB_CACHE"),
    ("transformers.dynamic_module_utils", "HF_MODULES_CACHE"),
    ("transformers.utils.hub", "HF_MODULES_CACHE"),
)
_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_MODULES_CACHE", "SENTENCE_TRANSFORMERS_HOME")


@dataclass(eq=False)
class _Guard:
    model: str
    roots: tuple[str, ...]
    code: bool
    pickles: bool
    refusals: list[str] = field(default_factory=list)

    def holds(self, spellings: Iterable[str]) -> bool:
        """Whether a file is the model's. An environment's libraries may lie below the folder of a model, and are not."""
        return any(
            path.startswith(self.roots) and _depth(path, self.roots) > _depth(path, _libraries()) for path in spellings
        )

    def allows(self, code: bool) -> bool:
        return self.code if code else self.pickles


class _Stack(threading.local):
    """The guards that this thread entered, the innermost last."""

    def __init__(self) -> None:
        self.guards: list[_Guard] = []
        self.looking = False


_stack = _Stack()
_active: list[_Guard] = []  # of all threads
_consented: set[str] = set()  # files whose code ran with consent
_hidden_modules: dict[str, Any] = {}
_hidden_classes: list[tuple[MutableMapping[Any, Any], Any, Any]] = []
_lock = threading.RLock()


def guarded_by(settings: ModelSettings, *folders: Path) -> AbstractContextManager[None]:
    """Return the guard of a model with the consent that its settings give, for `with`; as `guarded`.

    An object that the user imports by name is the user's own code, which says itself what it trusts.
    """
    own = bool(settings.object)
    return guarded(
        [*folders, *([settings.path] if settings.path else [])],
        code=settings.trust_remote_code or own,
        pickles=settings.allow_pickle or own,
        model=settings.name,
    )


@contextmanager
def guarded(folders: Iterable[Path | str], *, code: bool, pickles: bool, model: str) -> Iterator[None]:
    """Refuse, in any thread, to run code from the folders or from the Hub's caches, and to open pickles there, unless allowed.

    Of several guards the innermost of a thread decides; in a thread that has none (of a pool) each must allow it. Code that an
    earlier model brought, and that is imported already, is hidden meanwhile. Raises ConsentError when the file is about to
    run, and again at the end, since libraries swallow exceptions.
    """
    places = [os.path.expanduser(place) for place in (*folders, *_caches())]
    guard = _Guard(model, _roots(places), code, pickles)
    stack = _stack.guards
    _enter(guard, stack)
    try:
        yield
    except Exception as error:
        if guard.refusals and not isinstance(error, ConsentError):
            raise ConsentError(guard.refusals[0]) from error
        raise
    finally:
        _leave(guard, stack)
    if guard.refusals:
        raise ConsentError(guard.refusals[0])


def _enter(guard: _Guard, stack: list[_Guard]) -> None:
    _install()
    with _lock:
        if not guard.code:
            _hide_modules(guard)
        if not (guard.code and stack):
            _hide_classes(every=not guard.code)
        _active.append(guard)
        stack.append(guard)


def _leave(guard: _Guard, stack: list[_Guard]) -> None:
    with _lock:
        _active.remove(guard)
        stack.remove(guard)
        if any(not other.code for other in _active):
            return
        for name, module in _hidden_modules.items():
            sys.modules.setdefault(name, module)
        _hidden_modules.clear()
        if not _active:
            for registry, key, value in _hidden_classes:
                registry.setdefault(key, value)
            _hidden_classes.clear()


def _hide_modules(guard: _Guard) -> None:
    """Take a model's code out of what is imported, so that it must run, and be refused, to be used again."""
    modules = dict(sys.modules)
    libraries = {
        name
        for name, module in modules.items()
        if "." not in name and (path := _file_of(module)) and path.startswith(_libraries()) and not guard.holds((path,))
    }
    for name in [name for name in modules if name.partition(".")[0] not in libraries and name != "__main__"]:
        path = _file_of(modules[name])
        if path and (path in _consented or guard.holds((path,))):
            _hidden_modules.setdefault(name, modules[name])
            sys.modules.pop(name, None)


def _hide_classes(*, every: bool) -> None:
    """Take classes that came with a model out of transformers' tables, which give them to all models of a configuration's class.

    With consent those of a configuration of a model's own are left: its code registers them once, when it is first imported.
    """
    for registry in _registries():
        for key, value in list(registry.items()):
            if _came_with_a_model(value) and (every or not _came_with_a_model(key)):
                _hidden_classes.append((registry, key, registry.pop(key)))


def _registries() -> list[MutableMapping[Any, Any]]:
    """Return transformers' tables of classes that were registered, of all its `Auto…` classes."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("transformers.models.auto.")]
    found = [
        value if variable.startswith("REGISTERED_") else getattr(value, "_extra_content", None)
        for module in modules
        for variable, value in list(vars(module).items())
    ]
    return [content for content in found if isinstance(content, dict)]


def _came_with_a_model(value: Any) -> bool:
    if isinstance(value, tuple | list):  # the slow and the fast tokenizer of a configuration
        return any(map(_came_with_a_model, value))
    name = str(getattr(value, "__module__", ""))
    module = _hidden_modules.get(name) or sys.modules.get(name)
    return name.startswith("transformers_modules.") or _file_of(module) in _consented


def _file_of(module: Any) -> str | None:
    path = getattr(module, "__dict__", {}).get("__file__")
    if not isinstance(path, str):
        return None
    return path if os.path.isabs(path) else os.path.abspath(path)


@cache
def _install() -> None:
    _libraries()
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Python's hook: it can't be taken out again, and is called for much else, so it is quick where no guard is active."""
    if not _active or event not in _CHECKS or _stack.looking:
        return
    _stack.looking = True  # what the check itself opens is no business of its own
    try:
        _CHECKS[event](*arguments)
    finally:
        _stack.looking = False


def _check_code(code: Any, *_: Any) -> None:
    if isinstance(code, CodeType) and not code.co_filename.startswith("<"):
        _refuse_code(code.co_filename)


def _check_import(_: str, file: Any, *__: Any) -> None:
    """Refuse an extension module; modules in Python have no file here, and are seen when their code runs."""
    if isinstance(file, str):
        _refuse_code(file)


def _check_library(name: Any, *_: Any) -> None:
    if isinstance(name, str) and os.sep in name:
        _refuse_code(name)


def _check_open(path: Any, _: Any, flags: Any) -> None:
    if not isinstance(path, str | bytes) or _writes(flags):
        return
    path = os.fsdecode(path)
    if path.endswith(".pyc"):
        _check_compiled(path)
        return
    guard = _refusing(path, code=False)
    if guard and is_pickle(path) and _package(_opener()) not in _READERS:
        _refuse(guard, f"{guard.model} would unpickle {path}, which can run code", "model.allow_pickle=true")


def _check_compiled(path: str) -> None:
    """Refuse compiled code that may name any file as its source: Python corrects that only for what it keeps in __pycache__."""
    opener = _opener()
    cached = os.path.basename(os.path.dirname(path)) == "__pycache__" and opener.f_code.co_filename == _IMPORTER
    if not cached and _package(opener) not in _READERS:
        _refuse_code(path)


_CHECKS: dict[str, Callable[..., None]] = {
    "exec": _check_code,
    "import": _check_import,
    "ctypes.dlopen": _check_library,
    "open": _check_open,
}


def _refuse_code(path: str) -> None:
    guard = _refusing(path, code=True)
    if guard and not _is_empty(path):  # such as the __init__.py that transformers puts into its cache
        what = f"{guard.model} would run {path}, code that comes with the model, and evalkit runs none unasked"
        _refuse(guard, what, "model.trust_remote_code=true")


def _refuse(guard: _Guard, what: str, setting: str) -> None:
    message = f"{what}; if you trust its author: {setting}"
    guard.refusals.append(message)
    raise ConsentError(message)


def _refusing(path: str, *, code: bool) -> _Guard | None:
    """Return the guard that does not allow to run the file's code, or else to unpickle it."""
    spellings = _spellings(path)
    for guard in reversed(_stack.guards):
        if guard.holds(spellings):
            if code and guard.code:
                _consented.add(spellings[0])
            return None if guard.allows(code) else guard
    return next((guard for guard in tuple(_active) if not guard.allows(code) and guard.holds(spellings)), None)


def is_pickle(path: str) -> bool:
    """Whether a file is a pickle, or weights as torch pickles them: by its name, or else by its first bytes."""
    if os.path.splitext(path)[1].lower() in PICKLES:
        return True
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return False
    torch_archive = head.startswith(b"PK\x03\x04") and b"/data.pkl" in head
    return torch_archive or (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _opener() -> FrameType:
    """Return the frame of the code that opens a file, past this module and pathlib's."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_globals is globals() or _package(frame) == "pathlib"):
        frame = frame.f_back
    return frame


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and (flags & (os.O_WRONLY | os.O_TRUNC)) != 0


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except OSError:
        return False


def _caches() -> Iterator[str]:
    """Yield where models of the Hub are kept, and where transformers copies their code: as loaded libraries and the user say."""
    for name, constant in _CONSTANTS:
        place = getattr(sys.modules.get(name), constant, None)
        if place:
            yield str(place)
    yield from filter(None, map(os.environ.get, _VARIABLES))
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    yield from (os.path.join(home, "hub"), os.path.join(home, "modules"))


def _spellings(path: Path | str) -> tuple[str, ...]:
    """Return a path as it is named, and as it is where links are followed."""
    absolute = os.path.abspath(path)
    return tuple(dict.fromkeys((absolute, os.path.realpath(absolute))))


def _roots(folders: Iterable[str]) -> tuple[str, ...]:
    """Return what paths below the folders begin with."""
    return tuple(spelling.rstrip(os.sep) + os.sep for folder in folders for spelling in _spellings(folder))


def _depth(path: str, roots: Iterable[str]) -> int:
    """Return the length of the longest of the folders that the path lies in; -1 where it lies in none."""
    return max((len(root) for root in roots if path.startswith(root)), default=-1)


@cache
def _libraries() -> tuple[str, ...]:
    """Return where installed packages lie, and evalkit."""
    places = sysconfig.get_paths()
    folders = [places[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), str(PACKAGE_FOLDER)]
    return _roots(folders)
