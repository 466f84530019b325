"""One target under libFuzzer, in this process: `python -m tests.fuzz.engine NAME FOLDER [libFuzzer's options]`.

Started by `python -m tests.fuzz`, which says how. The process ends with libFuzzer's exit status."""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path

import atheris

from tests.fuzz.catalogue import PACKAGES, load
from tests.fuzz.target import inputs


def main(name: str, folder: Path, options: list[str]) -> None:
    """`folder`: gets the corpus, the dictionary, and what is found."""
    with atheris.instrument_imports(include=list(PACKAGES)):
        target = load(name)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(inputs(target)):
        (corpus / f"seed-{number:03}").write_bytes(data[: target.most])
    dictionary = folder / "dictionary"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if word))
    if not any(option.startswith("-max_total_time=") for option in options):
        options = [*options, f"-runs={target.runs}"]
    os.chdir(folder)

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except BaseException:
            # libFuzzer writes it as well, unless its own alarm comes while the interpreter ends.
            Path(f"found-{sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    atheris.Setup([name, *options, f"-max_len={target.most}", f"-dict={dictionary}", str(corpus)], run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
