"""What `import openk` brings, and what it leaves until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import openk


def test_every_public_name_is_there() -> None:
    assert set(openk._HOMES) == set(openk.__all__)
    for name in openk.__all__:
        assert getattr(openk, name) is getattr(openk, name)
    assert openk.Client.__module__ == "openk.client"


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'openk' has no attribute 'Clint'"):
        openk.Clint  # type: ignore[attr-defined]  # noqa: B018


def test_the_wire_comes_without_the_client() -> None:
    code = "import sys, openk.wire.methods; print(sorted(name for name in sys.modules if name.startswith('openk')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20).stdout
    assert "openk.wire.methods" in told
    assert "openk.client" not in told
