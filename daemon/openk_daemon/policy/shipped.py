"""Where the policies that come with openk are: in the checkout, or beside the installed package."""

from __future__ import annotations

from pathlib import Path

SCHEMA = "openk.cedarschema"


def shipped_policies() -> Path:
    """The folder with the shipped *.cedar files and their schema.

    Raises FileNotFoundError when the installation lacks it."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "openk_policies"  # installed: setup.cfg maps policies/ to this data package
    checkout = package.parents[1] / "policies"
    for folder in (beside, checkout):
        if (folder / SCHEMA).is_file():
            return folder
    raise FileNotFoundError(2, "the shipped policies are missing from this installation", str(beside))
