"""
The fake SCEP server's half of enrolment, as the real one does it: DES-CBC and SHA-1, a secret that works once.

Written apart from `socketwarp.identity.pkimessage`, so that the two check each other.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from asn1crypto import cms, core
from asn1crypto import csr as asn1csr
from asn1crypto import x509 as asn1x509
from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import pkcs7_decrypt_der, serialize_certificates
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.certs import Authority

_OID = "2.16.840.1.113733.1.9."


class Dropped(Exception):
    """The real one panics here, and its connection closes without an answer."""


def issuedName(uid: str) -> x509.Name:
    """The subject of an issued certificate."""
    names = [(NameOID.COUNTRY_NAME, "JP"), (NameOID.ORGANIZATION_NAME, "Procube"), (NameOID.COMMON_NAME, uid)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names])


def enrolAnswer(authority: Authority, data: bytes, secrets: Mapping[str, str], used: Callable[[str], None]) -> bytes:
    """
    The answer to a PKCSReq.

    :param secrets: by uid, those that exist; an empty one lets nobody enrol.
    :param used: told the uid whose secret has been used up.
    :raises Dropped: no answer, for a uid that doesn't exist.
    """
    signed = cms.ContentInfo.load(data)["content"]
    (info,) = signed["signer_infos"]
    told = {each["type"].native: each["values"][0].native for each in info["signed_attrs"]}
    (requester,) = [x509.load_der_x509_certificate(each.chosen.dump()) for each in signed["certificates"]]
    publicKey = requester.public_key()
    assert isinstance(publicKey, rsa.RSAPublicKey)
    publicKey.verify(info["signature"].native, info["signed_attrs"].untag().dump(), padding.PKCS1v15(), hashes.SHA256())
    assert isinstance(authority.key, rsa.RSAPrivateKey)
    plain = pkcs7_decrypt_der(signed["encap_content_info"]["content"].native, authority.cert, authority.key, [])
    csr = x509.load_der_x509_csr(plain)
    issued = _issueFor(authority, csr, _challengeOf(plain), secrets)
    echo = {
        "2": core.PrintableString("3"),
        "5": core.OctetString(told[_OID + "5"]),
        "6": core.OctetString(told[_OID + "5"]),
        "7": core.PrintableString(told[_OID + "7"]),
    }
    if issued is None:
        failure = {"3": core.PrintableString("2"), "4": core.PrintableString("2")}
        return _signedWithSha1(authority, b"", echo | failure)
    used(_challengeOf(plain).partition("\\")[0])
    degenerate = serialize_certificates([issued, authority.cert], Encoding.DER)
    return _signedWithSha1(
        authority, _sealedWithDes(degenerate, requester, publicKey), echo | {"3": core.PrintableString("0")}
    )


def _challengeOf(der: bytes) -> str:
    attributes = asn1csr.CertificationRequest.load(der)["certification_request_info"]["attributes"]
    found = [each["values"][0].native for each in attributes if each["type"].native == "challenge_password"]
    return str(found[0]) if found else ""


def _issueFor(
    authority: Authority, csr: x509.CertificateSigningRequest, challenge: str, secrets: Mapping[str, str]
) -> x509.Certificate | None:
    uid, _, secret = challenge.partition("\\")
    names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if uid not in secrets or not names:
        raise Dropped
    if not csr.is_signature_valid or names[0].value != uid or not secrets[uid] or secret != secrets[uid]:
        return None
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(issuedName(uid))
        .issuer_name(authority.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    )
    for extension in csr.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            builder = builder.add_extension(extension.value, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _sealedWithDes(plain: bytes, requester: x509.Certificate, publicKey: rsa.RSAPublicKey) -> bytes:
    secret, iv = os.urandom(8), os.urandom(8)
    padder = PKCS7(64).padder()
    encryptor = Cipher(TripleDES(secret * 3), modes.CBC(iv)).encryptor()
    padded = padder.update(plain) + padder.finalize()
    to = asn1x509.Certificate.load(requester.public_bytes(Encoding.DER))
    recipient = cms.KeyTransRecipientInfo(
        {
            "version": "v0",
            "rid": {"issuer_and_serial_number": {"issuer": to.issuer, "serial_number": to.serial_number}},
            "key_encryption_algorithm": {"algorithm": "rsaes_pkcs1v15"},
            "encrypted_key": publicKey.encrypt(secret, padding.PKCS1v15()),
        }
    )
    enveloped = {
        "version": "v0",
        "recipient_infos": [cms.RecipientInfo("ktri", recipient)],
        "encrypted_content_info": {
            "content_type": "data",
            "content_encryption_algorithm": {"algorithm": "des", "parameters": core.OctetString(iv)},
            "encrypted_content": encryptor.update(padded) + encryptor.finalize(),
        },
    }
    return bytes(cms.ContentInfo({"content_type": "enveloped_data", "content": cms.EnvelopedData(enveloped)}).dump())


def _signedWithSha1(authority: Authority, content: bytes, attributes: Mapping[str, core.Asn1Value]) -> bytes:
    assert isinstance(authority.key, rsa.RSAPrivateKey)
    own = asn1x509.Certificate.load(authority.cert.public_bytes(Encoding.DER))
    digest = hashes.Hash(hashes.SHA1())
    digest.update(content)
    values = {"content_type": cms.ContentType("data"), "message_digest": core.OctetString(digest.finalize())}
    values |= {_OID + number: value for number, value in attributes.items()}
    signed = cms.CMSAttributes([{"type": name, "values": [value]} for name, value in values.items()])
    info = {
        "version": "v1",
        "sid": {"issuer_and_serial_number": {"issuer": own.issuer, "serial_number": own.serial_number}},
        "digest_algorithm": {"algorithm": "sha1"},
        "signed_attrs": signed,
        "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
        "signature": authority.key.sign(signed.dump(), padding.PKCS1v15(), hashes.SHA1()),
    }
    data = {
        "version": "v1",
        "digest_algorithms": [{"algorithm": "sha1"}],
        "encap_content_info": {"content_type": "data", "content": core.OctetString(content)}
        if content
        else {"content_type": "data"},
        "certificates": [own],
        "signer_infos": [info],
    }
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(data)}).dump())
