"""
SCEP's messages (RFC 8894 §3): a CMS envelope inside a CMS signature, with SCEP's own attributes beside it.

Out go AES-256-CBC and SHA-256. The server that we know answers with DES-CBC and SHA-1 whatever it was sent, so
`Transaction.openReply` reads those two as well, and nothing else does: the envelope holds only a certificate, which is
public and has a signature of its own, checked by `enrol`.
"""

import os
from hmac import compare_digest
from typing import cast

import attrs
from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import (
    PKCS7EnvelopeBuilder,
    PKCS7Options,
    load_der_pkcs7_certificates,
)

from ..errors import EnrolmentFault, EnrolmentRefused

# RFC 8894 §3.2.1
MESSAGE_TYPE = "2.16.840.1.113733.1.9.2"
PKI_STATUS = "2.16.840.1.113733.1.9.3"
FAIL_INFO = "2.16.840.1.113733.1.9.4"
SENDER_NONCE = "2.16.840.1.113733.1.9.5"
RECIPIENT_NONCE = "2.16.840.1.113733.1.9.6"
TRANSACTION_ID = "2.16.840.1.113733.1.9.7"

_PKCS_REQ, _CERT_REP = "19", "3"
_SUCCESS, _FAILURE, _PENDING = "0", "2", "3"
_FAIL_INFOS = {"0": "badAlg", "1": "badMessageCheck", "2": "badRequest", "3": "badTime", "4": "badCertId"}
#: Bytes of a nonce (RFC 8894 §3.2.1.5: 16).
_NONCE = 16

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@attrs.frozen
class Transaction:
    """
    One request and its answer.

    :ivar key: the requester's, for which the certificate is asked; RSA, since the answer is encrypted to it.
    :ivar requester: a self-signed certificate of that key, by which the server knows where to encrypt to.
    :ivar authority: the server's certificate: encrypts to it, and signs its answers.
    """

    key: rsa.RSAPrivateKey = attrs.field(repr=False)
    requester: x509.Certificate
    authority: x509.Certificate
    transactionId: str = attrs.field(factory=lambda: os.urandom(16).hex())
    nonce: bytes = attrs.field(factory=lambda: os.urandom(_NONCE), repr=False)

    def request(self, csr: x509.CertificateSigningRequest) -> bytes:
        """The PKCSReq message in DER."""
        envelope = (
            PKCS7EnvelopeBuilder()
            .set_data(csr.public_bytes(Encoding.DER))
            .add_recipient(self.authority)
            .set_content_encryption_algorithm(algorithms.AES256)
            .encrypt(Encoding.DER, [PKCS7Options.Binary])
        )
        attributes = {
            MESSAGE_TYPE: core.PrintableString(_PKCS_REQ),
            SENDER_NONCE: core.OctetString(self.nonce),
            TRANSACTION_ID: core.PrintableString(self.transactionId),
        }
        return signedMessage(envelope, attributes, self.requester, self.key)

    def openReply(self, data: bytes) -> list[x509.Certificate]:
        """
        The certificates in a CertRep message.

        :raises EnrolmentRefused: the server says no, or asks us to wait for a person.
        :raises EnrolmentFault: the message is none, isn't signed by the server, or answers another request.
        """
        try:
            signed = _parsed(data)
            attributes = _verified(signed, self.authority)
            self._check(attributes)
            content = signed["encap_content_info"]["content"].native
            return load_der_pkcs7_certificates(self._decrypted(content))
        except (ValueError, TypeError, KeyError, IndexError) as e:  # all that asn1crypto and cryptography raise
            raise EnrolmentFault(f"the SCEP server's answer can't be read: {e}") from e

    def _check(self, attributes: dict[str, str | bytes]) -> None:
        if attributes.get(MESSAGE_TYPE) != _CERT_REP or attributes.get(TRANSACTION_ID) != self.transactionId:
            raise EnrolmentFault("the SCEP server's answer belongs to another request")
        nonce = attributes.get(RECIPIENT_NONCE)
        if not isinstance(nonce, bytes) or not compare_digest(nonce, self.nonce):
            raise EnrolmentFault("the SCEP server's answer doesn't repeat our nonce: it may be an old one, sent again")
        status = attributes.get(PKI_STATUS)
        if status == _PENDING:
            raise EnrolmentRefused("the SCEP server wants a person to approve the request; enrol again after that")
        if status != _SUCCESS:
            info = str(attributes.get(FAIL_INFO, "no reason"))
            raise EnrolmentRefused(
                f"the SCEP server refused the request ({_FAIL_INFOS.get(info, info)}): the secret is wrong or used "
                "up, or the client is in no state to get a certificate; ask the administrator for a new secret"
            )

    def _decrypted(self, content: bytes) -> bytes:
        enveloped = cms.ContentInfo.load(content, strict=True)["content"]
        # One recipient: us. Another's entry simply doesn't decrypt.
        encryptedKey = enveloped["recipient_infos"][0].chosen["encrypted_key"].native
        secret = self.key.decrypt(encryptedKey, padding.PKCS1v15())
        sealed = enveloped["encrypted_content_info"]
        algorithm = sealed["content_encryption_algorithm"]
        cipher = Cipher(_cipher(algorithm["algorithm"].native, secret), modes.CBC(algorithm["parameters"].native))
        decryptor, unpadder = cipher.decryptor(), PKCS7(8 * len(algorithm["parameters"].native)).unpadder()
        padded = decryptor.update(sealed["encrypted_content"].native) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()


def _cipher(name: str, secret: bytes) -> algorithms.AES | TripleDES:
    if name in ("aes128_cbc", "aes256_cbc"):
        return algorithms.AES(secret)
    if name in ("tripledes_3key", "tripledes", "des"):
        # DES with one key is 3DES with that key three times over.
        return TripleDES(secret * 3 if len(secret) == 8 else secret)
    raise ValueError(f"encrypted with {name}, which we don't read")


def _parsed(data: bytes) -> cms.SignedData:
    info = cms.ContentInfo.load(data, strict=True)
    if info["content_type"].native != "signed_data":
        raise ValueError("no signed message")
    return info["content"]


def _verified(signed: cms.SignedData, signer: x509.Certificate) -> dict[str, str | bytes]:
    """The one signature's attributes, by OID, after the signature and the content's digest have been checked."""
    (info,) = signed["signer_infos"]
    algorithm = _HASHES[info["digest_algorithm"]["algorithm"].native]
    attributes = _attributeValues(info["signed_attrs"])
    digest = hashes.Hash(algorithm)
    # A refusal has no content, and its digest is that of nothing.
    digest.update(signed["encap_content_info"]["content"].native or b"")
    if not compare_digest(digest.finalize(), cast(bytes, attributes["message_digest"])):
        raise EnrolmentFault("the SCEP server's answer was changed on its way")
    key = signer.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise EnrolmentFault("the SCEP server's certificate has no RSA key")
    try:
        # It is the SET OF that is signed, not the [0] by which it stands in the message (RFC 5652 §5.4).
        key.verify(info["signature"].native, info["signed_attrs"].untag().dump(), padding.PKCS1v15(), algorithm)
    except InvalidSignature as e:
        raise EnrolmentFault("the SCEP server's answer isn't signed by the SCEP server") from e
    return attributes


def _attributeValues(attributes: cms.CMSAttributes) -> dict[str, str | bytes]:
    return {each["type"].native: each["values"][0].native for each in attributes}


def signedMessage(
    content: bytes,
    attributes: dict[str, core.Asn1Value],
    certificate: x509.Certificate,
    key: rsa.RSAPrivateKey,
) -> bytes:
    """A CMS SignedData (RFC 5652 §5) over `content`, with SHA-256, the signer's certificate and signed attributes."""
    signer = asn1x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    values = {
        "content_type": cms.ContentType("data"),
        "message_digest": core.OctetString(digest.finalize()),
    } | attributes
    signedAttributes = cms.CMSAttributes([{"type": name, "values": [value]} for name, value in values.items()])
    signature = key.sign(signedAttributes.dump(), padding.PKCS1v15(), hashes.SHA256())
    sha256 = algos.DigestAlgorithm({"algorithm": "sha256"})
    info = {
        "version": "v1",
        "sid": {"issuer_and_serial_number": {"issuer": signer.issuer, "serial_number": signer.serial_number}},
        "digest_algorithm": sha256,
        "signed_attrs": signedAttributes,
        "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
        "signature": signature,
    }
    signed = {
        "version": "v1",
        "digest_algorithms": [sha256],
        "encap_content_info": {"content_type": "data", "content": core.OctetString(content)},
        "certificates": [signer],
        "signer_infos": [info],
    }
    message: bytes = cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)}).dump()
    return message
