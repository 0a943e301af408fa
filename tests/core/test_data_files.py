"""Where shipped data lies, for bundled plugins and for those of a third party."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from counterplay import _data_files
from counterplay._data_files import core_schemas, schemas_of, shipped_playbooks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder on the import path; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    written = {entry.stem for entry in tmp_path.iterdir()}
    for name in [name for name in sys.modules if name.partition(".")[0] in written]:
        del sys.modules[name]


def write(folder: Path, *names: str) -> None:
    """Empty files, with the folders that they need."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}" if name.endswith(".json") else "")


def test_the_schemas_of_a_package_lie_inside_it(folder: Path) -> None:
    """As in a wheel, a bundled one or a third party's."""
    write(folder, "pkg_in/__init__.py", "pkg_in/schemas/a.json")
    assert schemas_of("pkg_in", "acme").joinpath("a.json").read_text() == "{}"


def test_the_schemas_of_a_bundled_plugin_lie_at_the_top_level_in_a_checkout() -> None:
    """An editable install has them nowhere else."""
    assert schemas_of("counterplay_std", "std").joinpath("http.json").is_file()


def test_a_module_in_a_package_has_the_packages_schemas(folder: Path) -> None:
    """An entry point may name a module of the package, or an object in one."""
    write(folder, "pkg_sub/__init__.py", "pkg_sub/plugin.py", "pkg_sub/schemas/a.json")
    import_module("pkg_sub.plugin")
    assert schemas_of("pkg_sub.plugin", "acme").joinpath("a.json").is_file()


def test_a_module_that_stands_alone_has_its_schemas_beside_it(folder: Path) -> None:
    """A guard or a vault may be one file, and may have no schemas at all."""
    write(folder, "alone_mod.py")
    import_module("alone_mod")
    assert schemas_of("alone_mod", "acme") == folder / "schemas"


def test_the_playbooks_of_a_wheel_win_over_a_checkout(monkeypatch, folder: Path) -> None:
    """In a wheel they lie inside the package; in a checkout at the top level."""
    assert shipped_playbooks().is_dir()
    assert core_schemas().is_dir()
    write(folder, "a_wheel/counterplay/playbooks/a.yaml")
    monkeypatch.setattr(_data_files.resources, "files", lambda _: folder / "a_wheel" / "counterplay")
    assert shipped_playbooks().joinpath("a.yaml").is_file()
