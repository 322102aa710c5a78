"""Where compiled code is kept if neither the package nor the home can have it."""

import os
import tempfile

import pytest

from vbpi_mix import _cli_cache


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Neither the package's folder nor the home can be written in; returns the folder of temporary files."""
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(_cli_cache, "__file__", str(tmp_path / "file" / "vbpi_mix" / "module.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv(_cli_cache.VARIABLE, "")
    return tmp_path / "temporary"


def test_a_folder_of_the_users_own_is_named_and_named_again(nowhere, monkeypatch):
    _cli_cache.provide_cache()
    first = os.environ[_cli_cache.VARIABLE]
    assert first == str(nowhere / f"vbpi-mix-{os.getuid()}")
    assert os.stat(first).st_mode & 0o777 == 0o700
    monkeypatch.setenv(_cli_cache.VARIABLE, "")
    _cli_cache.provide_cache()
    assert os.environ[_cli_cache.VARIABLE] == first


@pytest.mark.parametrize("kind", ["open to all", "link", "file"])
def test_a_folder_that_others_may_have_filled_is_not_used(kind, nowhere, tmp_path):
    planted = nowhere / f"vbpi-mix-{os.getuid()}"
    match kind:
        case "open to all":
            planted.mkdir()
            planted.chmod(0o777)
        case "link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            planted.symlink_to(tmp_path / "elsewhere")
        case "file":
            planted.touch()
    _cli_cache.provide_cache()
    named = os.environ[_cli_cache.VARIABLE]
    assert named != str(planted)
    assert os.path.dirname(named) == str(nowhere)
    assert os.stat(named).st_mode & 0o777 == 0o700


def test_a_home_that_can_be_written_in_is_enough(nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _cli_cache.provide_cache()
    assert os.environ[_cli_cache.VARIABLE] == ""


def test_what_the_user_names_stays(nowhere, monkeypatch):
    monkeypatch.setenv(_cli_cache.VARIABLE, "/somewhere")
    _cli_cache.provide_cache()
    assert os.environ[_cli_cache.VARIABLE] == "/somewhere"
