"""Everything the rows share, started when first needed and stopped at the end of the run."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from bench import baselines, frames, native, ssh_agent
from bench.daemon import Daemon, memory_folder
from bench.load import Load, Measured


class Stage:
    """`seconds` for one measurement, repeated `rounds` times in turn with what it is compared with.

    `memory` is a folder on a memory file system (or None), `folder` one on the disk whose fdatasync counts.
    """

    def __init__(self, folder: Path, memory: Path | None, *, seconds: float, rounds: int, stack: ExitStack) -> None:
        self.folder, self.memory = folder, memory
        self.seconds, self.rounds = seconds, rounds
        self._stack = stack
        self._daemons: dict[str, Daemon] = {}
        self._echoes: dict[str, Path] = {}

    @cached_property
    def load(self) -> Load:
        return Load(native.build("load", self.folder), self.folder, warm=self.seconds / 4, seconds=self.seconds)

    @cached_property
    def token(self) -> baselines.Token:
        return baselines.Token(self.folder)

    @cached_property
    def raw(self) -> baselines.Loops:
        return baselines.Loops([str(native.build("raw_pkcs11", self.folder))], self.token, self._stack)

    @cached_property
    def python(self) -> baselines.Loops:
        return baselines.python_loops(self.token, self._stack)

    @cached_property
    def agent(self) -> tuple[Path, bytes]:
        return ssh_agent.start(self.token, self.folder, self._stack)

    def daemon(self, workers: int) -> Daemon:
        return self._daemon(f"workers-{workers}", self.folder, workers)

    def daemon_in_memory(self) -> Daemon | None:
        """One whose store and log lie where fdatasync costs nothing; None where there is no such place."""
        return self._daemon("memory", self.memory, 1) if self.memory is not None else None

    def plain_daemon(self) -> Daemon:
        """As `daemon_in_memory` (or on the disk, where there is no such place), with buffers in ordinary memory."""
        return self._daemon("plain", self.memory or self.folder, 1, "bench.plain_openkd")

    def silent_daemon(self) -> Daemon:
        """As `daemon_in_memory`, but it counts, logs and watches nothing."""
        return self._daemon("silent", self.memory or self.folder, 1, "bench.silent_openkd")

    def scraped_daemon(self) -> Daemon:
        """As `daemon_in_memory`, with a metrics door at `metrics.sock` in its folder, and quick to notice trouble."""
        place = (self.memory or self.folder) / "scraped"
        settings = place / "conf.d"
        if not settings.exists():
            settings.mkdir(mode=0o700, parents=True)
            (settings / "metrics.toml").write_text(
                f'[metrics]\nsocket = "{place / "metrics.sock"}"\n'
                "[health]\nprobe_seconds = 1\nprobe_limit_seconds = 1\n"
            )
        return self._daemon("scraped", place.parent, 1)

    def _daemon(self, name: str, folder: Path, workers: int, instead: str = "") -> Daemon:
        if name not in self._daemons:
            (folder / name).mkdir(mode=0o700, exist_ok=True)
            self._daemons[name] = Daemon(folder / name, workers, self._stack, instead=instead)
        return self._daemons[name]

    def echo(self, name: str, frame: bytes, *, depth: int, reads: bool = False) -> float:
        """Frames a second of the bare echo for frames like `frame`; with `reads` of the one that unpacks them."""
        if name not in self._echoes:
            self._echoes[name] = self.folder / f"echo-{name}.sock"
            baselines.start_echo(self._echoes[name], 0 if reads else len(frame), self._stack)
        framing = "msgpack" if reads else "echo"
        return self.load.run(self._echoes[name], f"echo-{name}", [frame], depth=depth, framing=framing).rate

    def fdatasync(self) -> tuple[float, float]:
        """Median and 99th percentile in microseconds, on the disk of `folder`."""
        return baselines.fdatasync(self.folder, self.seconds)

    def in_turn(self, *measure: Callable[[], float]) -> list[float]:
        """Run each of `measure` by turns, `rounds` times; the median of each. What disturbs one then disturbs all."""
        taken: list[list[float]] = [[] for _ in measure]
        for _ in range(self.rounds):
            for one, values in zip(measure, taken, strict=True):
                values.append(one())
        return [statistics.median(values) for values in taken]

    def drive(
        self,
        workers: int,
        name: str,
        requests: Sequence[tuple[str, dict[str, object]]],
        *,
        depth: int = 32,
        connections: int = 1,
    ) -> Measured:
        """Load the daemon with `workers` with these requests in turn."""
        prepared = [frames.request(method, params) for method, params in requests]
        return self.load.run(self.daemon(workers).socket, name, prepared, depth=depth, connections=connections)


def places(parent: Path) -> tuple[Path, Path | None]:
    """A new folder below `parent` (on a real disk), and one in memory."""
    folder = Path(tempfile.mkdtemp(prefix="openk-bench-", dir=parent))
    shared = memory_folder()
    memory = Path(tempfile.mkdtemp(prefix="openk-bench-", dir=shared)) if shared is not None else None
    return folder, memory
