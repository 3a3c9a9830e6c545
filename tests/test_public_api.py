"""The public API is a list: what is on it, and that each name on it says what it is."""

import inspect
import re
import subprocess
import sys
import types
from typing import get_args, get_origin

import pytest

import flowneer_async
import flowneer_stores
from flowneer_async import errors

PACKAGES = [flowneer_async, flowneer_stores]
ERRORS = {name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_list_is_sorted_and_complete(package: types.ModuleType) -> None:
    """Every public name that a package has, but its modules, is on its list; and every name on the list is there."""
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and name != "TYPE_CHECKING" and not isinstance(value, types.ModuleType)
    }
    # What needs an extra is not there before it is asked for; the next test asks.
    assert list(package.__all__) == sorted(public | {"EncryptedStore", "PostgresStore"} & set(package.__all__))


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in PACKAGES for name in package.__all__],
    ids=lambda each: str(each),
)
def test_every_name_has_a_docstring(package: types.ModuleType, name: str) -> None:
    """Its own, which ends like a sentence; so has each public method of a class."""
    value = getattr(package, name)
    if get_origin(value) is not None:
        assert get_args(value), "an alias says its values itself"
        return
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}("), "a docstring that a dataclass made"
    if inspect.isclass(value) and package is flowneer_async:
        bare = [member for member in _own_public(value) if not inspect.getdoc(getattr(value, member))]
        assert not bare


def _own_public(kind: type) -> list[str]:
    """The methods and properties that a class defines."""
    return [
        name
        for name, member in vars(kind).items()
        if not name.startswith("_") and isinstance(member, (types.FunctionType, property, classmethod))
    ]


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_of_the_family_and_public(name: str) -> None:
    """Whoever catches FlowneerError catches all of them, and each can be imported from the top."""
    assert issubclass(ERRORS[name], errors.FlowneerError)
    assert getattr(flowneer_async, name) is ERRORS[name]
    assert name in flowneer_async.__all__


def drawn() -> dict[str, str | None]:
    """Each error in the tree of the module's docstring, with the one that it hangs from."""
    tree, above = dict[str, str | None](), list[tuple[int, str]]()
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        found = re.match(r"([ │├└─]*)((?:[A-Z]\w+ {2})*[A-Z]\w+)(?:  |$)", line)
        if found is None or not (found[1] or line.strip() == "FlowneerError"):
            continue
        depth = len(found[1])
        above = [(at, name) for at, name in above if at < depth]
        names = found[2].split()
        tree.update(dict.fromkeys(names, above[-1][1] if above else None))
        above.append((depth, names[-1]))
    return tree


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """Each class of the module hangs in its docstring from the class that it derives from."""
    real = {name: each.__base__.__name__ if each.__base__ else None for name, each in ERRORS.items()}
    real["FlowneerError"] = None
    assert drawn() == real


def test_the_engine_imports_neither_a_store_nor_an_optional_package() -> None:
    """They are loaded where they are used."""
    unwanted = ["flowneer_stores", "aiosqlite", "sqlite3", "pydantic", "msgspec", "opentelemetry", "hypothesis"]
    code = f"import sys, flowneer_async; print([name for name in {unwanted} if name in sys.modules])"
    path = [f"sys.path.insert(0, {entry!r})" for entry in reversed(sys.path) if entry]
    ran = subprocess.run(
        [sys.executable, "-c", "import sys\n" + "\n".join(path) + "\n" + code], capture_output=True, text=True
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")
