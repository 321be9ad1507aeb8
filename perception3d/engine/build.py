"""Config -> objects.  `type` is a class, a function or a dotted string; nested dicts are built."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from perception3d.errors import UserError, unknown


def build(config: Any, *arguments: Any, path: str = "config", **defaults: Any) -> Any:
    """Build the object that a config describes, innermost first.

    A dict with the key `type` becomes the object; other dicts, lists and tuples keep their kind,
    with their entries built; anything else is returned as it is.

    Args:
        config: plain values, dicts with `type`, or lists of them.
        arguments: positional arguments of the outermost object.
        path: where the config stands, named in messages.
        defaults: keyword arguments of the outermost object; the config overrules them.

    Raises:
        UserError: a module, class or argument that does not exist (with the closest that does),
            a missing argument, or a value that the constructor refuses.
    """
    if isinstance(config, list | tuple):
        return type(config)(build(entry, path=f"{path}.{i}") for i, entry in enumerate(config))
    if not isinstance(config, dict):
        return config
    if "type" not in config:
        return {key: build(entry, path=f"{path}.{key}") for key, entry in config.items()}
    made = resolve(config["type"], path)
    given = {key: value for key, value in config.items() if key != "type"}
    for problem in check_arguments(made, given, path, len(arguments), defaults):
        raise UserError(problem)
    values = {key: build(entry, path=f"{path}.{key}") for key, entry in given.items()}
    try:
        return made(*arguments, **{**defaults, **values})
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} ({made.__name__}): {error}") from error


def resolve(kind: Any, path: str = "config") -> Callable[..., Any]:
    """Return the class or function that `type` names.

    Args:
        kind: the class or function itself, or its dotted path.
        path: where the config stands, named in messages.

    Raises:
        UserError: no such module or name in it; names the closest.
    """
    if callable(kind):
        return kind  # type: ignore[no-any-return]  # any callable fits
    if not isinstance(kind, str) or "." not in kind:
        raise UserError(
            f"{path}.type must be a class or its dotted path such as "
            f"'perception3d.models.detector.Detector', got {kind!r}"
        )
    # the module is the longest prefix that imports; the rest may be Class or Class.method
    parts = kind.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise UserError(f"{path}: importing {name} fails: {error}") from error
            continue
        for attribute in parts[cut:]:
            if not hasattr(found, attribute):
                raise UserError(f"{path}: {_missing(found, attribute, name)}")
            found = getattr(found, attribute)
        if not callable(found):
            raise UserError(f"{path}: {kind} is neither a class nor a function")
        return found  # type: ignore[no-any-return]  # any callable fits
    raise UserError(f"{path}: no module named {parts[0]!r}; is it installed?")


def _missing(owner: Any, attribute: str, module: str) -> str:
    names = [name for name in dir(owner) if not name.startswith("_")]
    if inspect.ismodule(owner) and hasattr(owner, "__path__"):
        import pkgutil

        names += [entry.name for entry in pkgutil.iter_modules(owner.__path__)]
    return f"{module}: {unknown(attribute, names, 'name')}"


def check(config: Any, path: str = "config") -> list[str]:
    """List all that is wrong with the names in a config, without building anything."""
    if isinstance(config, list | tuple):
        return [p for i, entry in enumerate(config) for p in check(entry, f"{path}.{i}")]
    if not isinstance(config, dict):
        return []
    given = {key: value for key, value in config.items() if key != "type"}
    problems = []
    if "type" in config:
        try:
            problems += list(check_arguments(resolve(config["type"], path), given, path))
        except UserError as error:
            problems.append(str(error))
    for key, value in given.items():
        problems += check(value, f"{path}.{key}")
    return problems


def check_arguments(
    made: Callable[..., Any],
    given: dict[str, Any],
    path: str,
    num_positional: int | None = None,
    defaults: dict[str, Any] | None = None,
) -> Iterator[str]:
    """Yield what is wrong with the argument names of a call.

    Args:
        made: class or function to be called.
        given: keyword arguments.
        path: where the config stands.
        num_positional: positional arguments that the caller adds; None: not known, so missing
            arguments are no error.
        defaults: keyword arguments that the caller adds.
    """
    accepted, required = signature(made)
    if accepted is None:
        return
    name = made.__name__
    for key in given:
        if key not in accepted:
            yield f"{path} ({name}): {unknown(key, accepted, 'argument')}"
    if num_positional is None:
        return
    supplied = {*given, *(defaults or {}), *accepted[:num_positional]}
    missing = [key for key in required if key not in supplied]
    if missing:
        yield f"{path} ({name}): missing {', '.join(missing)}"


def signature(made: Callable[..., Any]) -> tuple[list[str] | None, list[str]]:
    """Return the argument names that a class or function accepts, and those it must get.

    A constructor that passes `**kwargs` on accepts what its parent class accepts.

    Returns:
        (None, []) where anything is accepted or nothing can be known.
    """
    if not inspect.isclass(made):
        return _parameters(made)
    accepted: list[str] = []
    required: list[str] = []
    for owner in made.__mro__:
        constructor = vars(owner).get("__init__")
        if constructor is None:
            continue
        if owner is object:
            return accepted, required
        names, needed = _parameters(constructor, skip_self=True)
        parameters = inspect.signature(constructor).parameters.values()
        if names is None:
            names = [p.name for p in parameters if _is_named(p)][1:]
            needed = [p.name for p in parameters if _is_named(p) and p.default is p.empty][1:]
            accepted += names
            required += needed
            continue
        return accepted + names, required + [key for key in needed if key not in accepted]
    return accepted, required


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _parameters(
    made: Callable[..., Any], skip_self: bool = False
) -> tuple[list[str] | None, list[str]]:
    try:
        parameters = list(inspect.signature(made).parameters.values())[int(skip_self) :]
    except ValueError:  # builtins without a signature
        return None, []
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None, []
    names = [p.name for p in parameters if _is_named(p)]
    return names, [p.name for p in parameters if _is_named(p) and p.default is p.empty]
