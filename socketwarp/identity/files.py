"""Keys and certificates written: private keys 0600, whole or not at all, and never over others by mistake."""

import contextlib
import os
from collections.abc import Sequence

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..errors import ConfigurationError
from .pem import FilePath, PrivateKey, asText

_PUBLIC, _PRIVATE = 0o644, 0o600


@attrs.frozen
class Output:
    """
    A file to write.

    :ivar mode: permissions that it gets, whatever the umask adds to them.
    """

    path: str = attrs.field(converter=asText)
    data: bytes = attrs.field(repr=False)
    mode: int = _PUBLIC


def certificateFile(path: FilePath, certificates: Sequence[x509.Certificate]) -> Output:
    """PEM blocks in the order given."""
    return Output(path, b"".join(each.public_bytes(Encoding.PEM) for each in certificates))


def keyFile(path: FilePath, key: PrivateKey) -> Output:
    """A private key in PKCS#8, for its owner's eyes only."""
    return Output(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _PRIVATE)


def checkFree(paths: Sequence[FilePath], force: bool) -> None:
    """
    Before the work of making a key: may these be written?

    :raises ConfigurationError: one exists already and `force` isn't given; names it.
    """
    for path in paths:
        if not force and os.path.lexists(path):
            raise ConfigurationError(f"{os.fspath(path)!r} exists already; move it away, or replace it with --force")


def writeAll(outputs: Sequence[Output], force: bool = False) -> None:
    """
    Write the files: all are complete on disk before the first appears under its name, and then they appear at once
    after each other, so that a process that watches them sees a pair.

    :raises ConfigurationError: one exists already and `force` isn't given, or can't be written; names it.
    """
    checkFree([each.path for each in outputs], force)
    ready: list[tuple[str, Output]] = []
    try:
        for output in outputs:
            ready.append((_writeBeside(output), output))
        while ready:
            temporary, output = ready[0]
            _place(temporary, output.path, force)
            ready.pop(0)
    except OSError as e:
        # link(2) has the name that is taken second, and so has rename(2)
        remedy = "; replace it with --force" if e.filename2 and not force else ""
        raise ConfigurationError(f"{e.filename2 or e.filename!r} can't be written: {e.strerror}{remedy}") from e
    finally:
        for temporary, _ in ready:
            os.unlink(temporary)


def _writeBeside(output: Output) -> str:
    directory = os.path.dirname(output.path)
    if directory:
        os.makedirs(directory, exist_ok=True)
    temporary = f"{output.path}.{os.urandom(6).hex()}.new"
    try:
        _writeWhole(temporary, output)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return temporary


def writeNew(output: Output) -> str:
    """
    Write a file beside the place that it is for, under its name and ``.new``, which is given back; an older one is
    replaced, unless it is the same. It is on disk then.

    :raises OSError: it can't be written.
    """
    path = f"{output.path}.new"
    with contextlib.suppress(FileNotFoundError):
        with open(path, "rb") as file:
            if file.read() == output.data:
                return path
        os.unlink(path)
    _writeWhole(path, output)
    return path


def _writeWhole(path: str, output: Output) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, output.mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(output.data)
        file.flush()
        os.fsync(descriptor)


def _place(temporary: str, path: str, force: bool) -> None:
    if force:
        os.replace(temporary, path)
    else:
        os.link(temporary, path)  # fails, other than rename, when the name is taken
        os.unlink(temporary)
