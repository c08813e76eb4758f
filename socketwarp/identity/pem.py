"""
Certificate files as an operator has them: PEM blocks read one by one, so that an error can name the broken one.

Every function raises `ConfigurationError` in one line: setting, file, block, remedy.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto

from ..errors import ConfigurationError

#: Bytes of a file that are read; a revocation list of 100,000 entries has about 4 MB.
MAX_FILE = 16 * 1024 * 1024

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)

#: The keys that TLS 1.3 signs with (RFC 8446 §4.2.3).
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

#: A path as text, or a `pathlib.Path`.
FilePath = str | os.PathLike[str]

_Loaded = TypeVar("_Loaded")
_Signed = TypeVar("_Signed", x509.Certificate, x509.CertificateRevocationList)


def asText(path: FilePath) -> str:
    """The path as text."""
    return os.fspath(path)


@attrs.frozen
class SettingFile:
    """
    A file and the setting that names it.

    :ivar setting: as the operator writes it (``SWL_CERT_PATH``).
    """

    setting: str
    path: str = attrs.field(converter=asText)

    def __str__(self) -> str:
        """How errors and logs begin."""
        return f"{self.setting} {self.path!r}"

    def read(self) -> bytes:
        """The file's bytes, not empty."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            self.fail("there is no such file; make one (socketwarp gencert) or correct the path")
        except OSError as e:
            self.fail(f"can't be read ({e.strerror}); correct the path or the file's owner and mode")
        if not data.strip():
            self.fail("the file is empty; put PEM blocks into it")
        if len(data) > MAX_FILE:
            self.fail(f"larger than {MAX_FILE} bytes; is it the right file?")
        return data

    def fail(self, text: str) -> NoReturn:
        """Raise the error about this file."""
        raise ConfigurationError(f"{self}: {text}")


@attrs.frozen
class Block:
    """
    One PEM block.

    :ivar number: its place in the file, from 1.
    :ivar label: what follows ``BEGIN``.
    """

    number: int
    label: str
    data: bytes = attrs.field(repr=False)

    def __str__(self) -> str:
        """How errors call it."""
        return f"block {self.number} ({self.label})"


def readCertificates(file: SettingFile) -> list[x509.Certificate]:
    """All certificates of the file in its order, at least one; blocks of other kinds are passed over."""
    blocks = [each for each in _blocks(file, file.read()) if each.label == "CERTIFICATE"]
    if not blocks:
        file.fail("no CERTIFICATE block in it; did you name the key's file, or another one?")
    return [_load(file, each, _certificate) for each in blocks]


def readRevocationLists(file: SettingFile) -> list[x509.CertificateRevocationList]:
    """The revocation lists of a PEM file, or the one that a DER file is."""
    data = file.read()
    if b"-----BEGIN " not in data:
        try:
            return [_readable(x509.load_der_x509_crl(data))]
        except Exception as e:  # see _load
            file.fail(f"neither PEM nor a DER revocation list ({_firstLine(e)}); fetch it again from its authority")
    blocks = [each for each in _blocks(file, data) if each.label == "X509 CRL"]
    if not blocks:
        file.fail("no X509 CRL block in it; name the file with the revocation list")
    return [_load(file, each, lambda pem: _readable(x509.load_pem_x509_crl(pem))) for each in blocks]


def readPrivateKey(file: SettingFile) -> PrivateKey:
    """The one private key of the file: PKCS#1, PKCS#8 or SEC 1; RSA, EC or Ed25519/Ed448; not encrypted."""
    blocks = [each for each in _blocks(file, file.read()) if each.label.endswith("PRIVATE KEY")]
    if not blocks:
        file.fail("no PRIVATE KEY block in it; did you name the certificate's file?")
    if len(blocks) > 1:
        file.fail(f"{len(blocks)} private keys in it; keep only the certificate's own")
    block = blocks[0]
    if block.label.startswith("ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in block.data:
        file.fail(
            f"{block} is encrypted, and nobody is there to type its password; decrypt it: openssl pkey -in … -out …"
        )
    key = _load(file, block, lambda data: load_pem_private_key(data, None))
    if not isinstance(key, PrivateKey):
        file.fail(f"{block} is of a kind that TLS 1.3 can't use; use RSA, EC or Ed25519")
    return key


def _blocks(file: SettingFile, data: bytes) -> Sequence[Block]:
    found = [
        Block(number, match[1].decode("ascii"), match[0]) for number, match in enumerate(_BLOCK.finditer(data), start=1)
    ]
    if not found:
        file.fail("not PEM (no -----BEGIN line); convert it: openssl x509 (or pkey) -inform DER -in … -out …")
    return found


def _load(file: SettingFile, block: Block, load: Callable[[bytes], _Loaded]) -> _Loaded:
    try:
        return load(block.data)
    except Exception as e:  # errors of cryptography and OpenSSL, which have no class in common
        file.fail(f"{block} is damaged ({_firstLine(e)}); copy the file again from where it was made")


def _certificate(data: bytes) -> x509.Certificate:
    """
    A certificate that can be used: cryptography reads most of it only when asked, and then each caller would have to
    expect errors; and OpenSSL has a parser of its own.
    """
    found = x509.load_pem_x509_certificate(data)
    crypto.X509.from_cryptography(found).get_pubkey()
    _ = found.version, found.public_key(), found.not_valid_before_utc, found.not_valid_after_utc
    return _readable(found)


def _readable(found: _Signed) -> _Signed:
    _ = found.issuer, found.extensions, found.signature_hash_algorithm
    _ = found.subject if isinstance(found, x509.Certificate) else (found.last_update_utc, found.next_update_utc)
    return found


def _firstLine(error: Exception) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__
