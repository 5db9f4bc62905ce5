from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest

from harvest.errors import FileExistsInStoreError
from harvest.storage.files import DataDirectory
from harvest.storage.filesystem import Filesystem
from tests.storage.rows import sealed_trades

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUN = "20261122T000000Z00ff"
DATA = b"some bytes" * 100


class Faulty(Filesystem):
    """Fails at one call, before or after its effect; then goes on as if nothing had been. It counts all calls."""

    def __init__(self, fail_at: int = -1, *, after: bool = False, code: int = errno.EIO) -> None:
        self.fail_at = fail_at
        self.after = after
        self.code = code
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> object:
        method = super().__getattribute__(name)
        if name.startswith("_") or not callable(method):
            return method

        def call(*args: object) -> object:
            self.calls.append(name)
            is_fault = len(self.calls) - 1 == self.fail_at
            # A file that could not be closed well is closed all the same.
            if is_fault and not self.after and name != "close":
                raise OSError(self.code, "injected")
            result = method(*args)
            if is_fault:
                if name in ("create", "open"):
                    Filesystem().close(result)
                raise OSError(self.code, "injected")
            return result

        return call


class WithoutLinks(Filesystem):
    code = errno.EPERM

    def link(self, source: Path, target: Path) -> None:
        raise OSError(self.code, "no links here")


class FaultyWithoutLinks(Faulty):
    def link(self, source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")


def path_in(directory: DataDirectory) -> Path:
    return directory.path_of(sealed_trades(), venue="binance-usdm", run=RUN)


def all_files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_paths_are_hive_partitions(tmp_path: Path) -> None:
    path = DataDirectory(tmp_path).path_of(sealed_trades(symbol="牛来USDT"), venue="binance-usdm", run=RUN)
    assert path.relative_to(tmp_path).as_posix() == (
        f"prices/venue=binance-usdm/symbol=%E7%89%9B%E6%9D%A5USDT/date=2026-11-22/{RUN}-1-3.parquet"
    )


@pytest.mark.parametrize("filesystem", [Filesystem(), WithoutLinks()], ids=["links", "no links"])
def test_a_published_file_is_whole_and_alone(tmp_path: Path, filesystem: Filesystem) -> None:
    directory = DataDirectory(tmp_path / "not" / "yet" / "there", filesystem=filesystem)
    path = path_in(directory)
    assert directory.publish(path, DATA)
    assert path.read_bytes() == DATA
    assert all_files(tmp_path) == [path.name]
    assert path.stat().st_nlink == 1


@pytest.mark.parametrize("filesystem", [Filesystem(), WithoutLinks()], ids=["links", "no links"])
def test_another_file_of_that_name_is_left_as_it_is(tmp_path: Path, filesystem: Filesystem) -> None:
    directory = DataDirectory(tmp_path, filesystem=filesystem)
    path = path_in(directory)
    directory.publish(path, b"first")
    with pytest.raises(FileExistsInStoreError, match="left as it is"):
        directory.publish(path, DATA)
    assert path.read_bytes() == b"first"
    assert all_files(tmp_path) == [path.name]


def test_the_same_file_again_is_not_written_twice(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    path = path_in(directory)
    assert directory.publish(path, DATA)
    before = path.stat()
    assert not directory.publish(path, DATA)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("filesystem", [Filesystem(), WithoutLinks()], ids=["links", "no links"])
def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path: Path, filesystem: Filesystem) -> None:
    directory = DataDirectory(tmp_path, filesystem=filesystem)
    path = path_in(directory)
    create = filesystem.create

    def create_while_another_publishes(temporary: Path) -> int:
        path.write_bytes(b"the other's")
        return create(temporary)

    filesystem.create = create_while_another_publishes  # type: ignore[method-assign]
    with pytest.raises(FileExistsInStoreError):
        directory.publish(path, DATA)
    assert path.read_bytes() == b"the other's"


def test_a_retry_after_a_crash_between_link_and_unlink_finds_the_file_there(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    path = path_in(directory)
    directory.publish(path, DATA)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.hardlink_to(path)
    assert not directory.publish(path, DATA)
    assert directory.remove_stale_temporaries() == [temporary]
    assert path.read_bytes() == DATA
    assert all_files(tmp_path) == [path.name]


def test_a_temporary_of_somebody_else_is_never_written_on(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    path = path_in(directory)
    path.parent.mkdir(parents=True)
    foreign = path.with_name(f".{path.name}.tmp")
    foreign.write_bytes(b"torn")
    assert directory.publish(path, DATA)
    assert path.read_bytes() == DATA
    assert foreign.read_bytes() == b"torn"
    assert directory.remove_stale_temporaries() == [foreign]
    assert all_files(tmp_path) == [path.name]


def test_short_writes_are_continued(tmp_path: Path) -> None:
    class Short(Filesystem):
        def write(self, descriptor: int, data: memoryview) -> int:
            return super().write(descriptor, data[:7])

    directory = DataDirectory(tmp_path, filesystem=Short())
    path = path_in(directory)
    directory.publish(path, DATA)
    assert path.read_bytes() == DATA


def test_nothing_is_named_before_it_is_on_the_medium(tmp_path: Path) -> None:
    filesystem = Faulty()
    directory = DataDirectory(tmp_path / "root", filesystem=filesystem)
    directory.publish(path_in(directory), DATA)
    made = ["mkdir", "fsync_directory"] * 5
    written = ["exists", "create", "write", "fsync", "close", "link", "unlink", "fsync_directory"]
    assert [call for call in filesystem.calls if call != "is_directory"] == made + written


def every_call(make: Callable[..., Faulty], root: Path) -> int:
    filesystem = make()
    directory = DataDirectory(root, filesystem=filesystem)
    directory.publish(path_in(directory), DATA)
    return len(filesystem.calls)


@pytest.mark.parametrize("make", [Faulty, FaultyWithoutLinks], ids=["links", "no links"])
@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_a_failure_of_any_call_leaves_all_or_nothing_and_a_retry_completes_it(
    tmp_path: Path, make: Callable[..., Faulty], after: bool
) -> None:
    calls = every_call(make, tmp_path / "counted")
    failures = 0
    for fail_at in range(calls):
        root = tmp_path / str(fail_at)
        directory = DataDirectory(root, filesystem=make(fail_at, after=after))
        path = path_in(directory)
        for _attempt in range(2):
            try:
                directory.publish(path, DATA)
                break
            except OSError:
                failures += 1
            assert not path.exists() or path.read_bytes() == DATA
        assert path.read_bytes() == DATA
        leftovers = [name for name in all_files(root) if name != path.name]
        assert all(name.startswith(".") for name in leftovers)
        DataDirectory(root).remove_stale_temporaries()
        assert all_files(root) == [path.name]
    assert failures >= calls - 3


@pytest.mark.parametrize("make", [Faulty, FaultyWithoutLinks], ids=["links", "no links"])
def test_a_failure_of_any_call_never_overwrites_another_file(
    tmp_path: Path, make: Callable[..., Faulty]
) -> None:
    for fail_at in range(every_call(make, tmp_path / "counted")):
        root = tmp_path / str(fail_at)
        directory = DataDirectory(root, filesystem=make(fail_at))
        path = path_in(directory)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another's")
        for _attempt in range(2):
            with pytest.raises((OSError, FileExistsInStoreError)):
                directory.publish(path, DATA)
        assert path.read_bytes() == b"another's"


def test_after_a_failed_fsync_the_same_file_is_not_written_on(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, filesystem=(filesystem := Faulty()))
    directory.publish(path_in(directory).with_name(f"{RUN}-8-9.parquet"), DATA)
    filesystem.calls.clear()
    filesystem.fail_at = [*filesystem.calls, "is_directory", "exists", "create", "write", "fsync"].index(
        "fsync"
    )
    path = path_in(directory)
    with pytest.raises(OSError, match="injected"):
        directory.publish(path, DATA)
    assert filesystem.calls[-3:] == ["fsync", "close", "unlink"]
    assert not path.exists()
    assert directory.publish(path, DATA)
    assert filesystem.calls.count("create") == 2


@pytest.mark.parametrize(
    "code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL]
)
def test_file_systems_without_links_are_known_by_many_errors(tmp_path: Path, code: int) -> None:
    filesystem = WithoutLinks()
    filesystem.code = code
    directory = DataDirectory(tmp_path, filesystem=filesystem)
    path = path_in(directory)
    assert directory.publish(path, DATA)
    assert path.read_bytes() == DATA


def test_without_links_a_claim_of_another_writer_keeps_us_out(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, filesystem=WithoutLinks())
    path = path_in(directory)
    path.parent.mkdir(parents=True)
    claim = path.with_name(f".{path.name}.claim")
    claim.touch()
    with pytest.raises(FileExistsInStoreError, match="claim"):
        directory.publish(path, DATA)
    assert not path.exists()
    assert claim.exists()


@pytest.mark.parametrize("filesystem", [Filesystem(), WithoutLinks()], ids=["links", "no links"])
def test_of_many_writers_of_one_name_one_wins(tmp_path: Path, filesystem: Filesystem) -> None:
    path = path_in(DataDirectory(tmp_path))
    path.parent.mkdir(parents=True)
    outcomes: list[bool] = []
    barrier = threading.Barrier(8)

    def publish(number: int) -> None:
        directory = DataDirectory(tmp_path, filesystem=filesystem)
        barrier.wait()
        try:
            directory.publish(path, bytes([number]) * 1000)
            outcomes.append(True)
        except FileExistsInStoreError:
            outcomes.append(False)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert sum(outcomes) == 1
    content = path.read_bytes()
    assert len(content) == 1000
    assert len(set(content)) == 1
    assert all_files(tmp_path) == [path.name]


def test_threads_make_their_common_directories_together(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "root")
    paths = [
        directory.path_of(sealed_trades(symbol=f"S{index % 4}", first_seq=index), venue="v", run=RUN)
        for index in range(16)
    ]
    threads = [threading.Thread(target=directory.publish, args=(path, DATA)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(path.read_bytes() == DATA for path in paths)


def test_only_leftovers_of_dead_runs_are_removed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    path = path_in(directory)
    directory.publish(path, DATA)
    living = "20261128T000000Zaaaa"
    dead = [path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.claim")]
    kept = [
        path.with_name(f".{living}-1-2.parquet.tmp"),
        path.with_name(".notes.tmp"),
        path.with_name("x.tmp"),
    ]
    private = tmp_path / "_journal" / f".{RUN}-1-2.parquet.tmp"
    private.parent.mkdir()
    for file in (*dead, *kept, private):
        file.touch()
    assert sorted(directory.remove_stale_temporaries(living_runs={living})) == sorted(dead)
    assert all(file.exists() for file in (path, *kept, private))
    assert not any(file.exists() for file in dead)


def test_leftovers_of_a_root_that_does_not_exist_are_none(tmp_path: Path) -> None:
    assert DataDirectory(tmp_path / "missing").remove_stale_temporaries() == []


def test_free_space_is_known_before_the_root_exists(tmp_path: Path) -> None:
    assert DataDirectory(tmp_path / "a" / "b").free_bytes() > 0


def test_a_directory_that_was_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    path = path_in(directory)
    directory.publish(path, DATA)
    path.unlink()
    path.parent.rmdir()
    assert directory.publish(path, DATA)


def test_a_file_in_the_place_of_a_directory_is_an_error_not_a_loss(tmp_path: Path) -> None:
    (tmp_path / "prices").write_text("mine")
    directory = DataDirectory(tmp_path)
    with pytest.raises(OSError, match=r".+"):
        directory.publish(path_in(directory), DATA)
    assert (tmp_path / "prices").read_text() == "mine"
