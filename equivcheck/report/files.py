"""Files are read up to a size, and written whole or not at all; a probe refuses a place before the run."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISFIFO, S_ISREG

__all__ = ["MOST_BYTES", "probe_file", "probe_folder", "read_bounded", "write_whole"]

MOST_BYTES = 64 * 2**20
"""The largest file that is read whole."""


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file, or of a pipe, of at most `most` bytes; an OSError for any other.

    A device has no end, and a pipe that nobody writes to is empty: neither is waited for.
    """
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(opened).st_mode
        if S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not S_ISREG(mode) and not S_ISFIFO(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if S_ISFIFO(mode):
            os.set_blocking(opened, True)
        with open(opened, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(opened)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most // 2**20} MiB")
    return content


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path` in one step, so that neither a reader nor a kill meets half of it."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        # /dev/stdout, a pipe: not ours to replace by a file of the same name; a folder raises here
        path.write_bytes(data)
        return
    target = Path(os.path.realpath(path))  # a link stays a link
    scratch = _scratch(target.parent)
    try:
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def probe_file(path: Path) -> None:
    """Raise the OSError that `write_whole(path, …)` would raise; leave nothing behind."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    with suppress(FileNotFoundError):
        os.stat(path)  # raises for a name that is too long, or that goes through a file
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
        if not path.is_file():
            return
    scratch = _scratch(Path(os.path.realpath(path)).parent)
    try:
        scratch.touch(exist_ok=False)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}") from None
    finally:
        scratch.unlink(missing_ok=True)


def probe_folder(path: Path) -> None:
    """Raise the OSError of writing files into the folder `path`, which need not exist; leave nothing behind."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe_file(path / "probe")
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _scratch(folder: Path) -> Path:
    return folder / f".equivcheck-{os.urandom(8).hex()}.tmp"
