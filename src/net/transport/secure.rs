//! Who is at the other end, and that nobody else reads along: TLS 1.3 as libp2p has it
//! (<https://github.com/libp2p/specs/blob/master/tls/tls.md>), or noise where the other side has no TLS.
//!
//! The certificates and their checks are libp2p's. The order of the ciphers is ours: the dialer's first one is taken, and
//! where the processor does AES itself, that moves several times the bytes of `ChaCha20` for the same work.
//!
//! Below the cipher as much is read at once as is there, and above it what belongs together is written at once: the head of
//! a frame does not become a record and a packet of its own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::io::{BufReader, BufWriter};
use futures::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::{TlsAcceptor, TlsConnector};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::identity::Keypair;
use libp2p::tls::{self, certificate};
use libp2p::{PeerId, noise};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CipherSuite, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
};

use crate::limits::{SOCKET_READ_BYTES, SOCKET_WRITE_BYTES};

/// A byte stream of whichever kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Duplex for T {}
type Encrypted = Pin<Box<dyn Duplex + Send>>;

/// TLS, or noise where the other side has no TLS.
#[derive(Clone)]
pub(super) struct Secure {
    client: TlsConnector,
    server: TlsAcceptor,
    noise: noise::Config,
}

const TLS: &str = "/tls/1.0.0";
const NOISE: &str = "/noise";

impl Secure {
    /// In the name of `keypair`; the error says what is wrong with it.
    pub fn new(keypair: &Keypair) -> Result<Secure, String> {
        let tls = configs(keypair).map_err(|error| format!("cannot set up TLS: {error}"))?;
        let noise = noise::Config::new(keypair).map_err(|error| format!("cannot set up noise: {error}"))?;
        Ok(Secure { client: Arc::new(tls.0).into(), server: Arc::new(tls.1).into(), noise })
    }
}

/// libp2p's settings of TLS, with ciphers in our order, and without tickets: no two peers share a session.
fn configs(keypair: &Keypair) -> Result<(ClientConfig, ServerConfig), Box<dyn std::error::Error>> {
    let (client, server) = (tls::make_client_config(keypair, None)?, tls::make_server_config(keypair)?);
    let mut provider = CryptoProvider::clone(client.crypto_provider());
    order(&mut provider.cipher_suites, has_aes());
    let provider = Arc::new(provider);
    let versions = &[&rustls::version::TLS13];
    let mut ours = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Peers))
        .with_client_cert_resolver(client.client_auth_cert_resolver);
    ours.alpn_protocols = client.alpn_protocols;
    ours.resumption = Resumption::disabled();
    let mut theirs = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(Peers))
        .with_cert_resolver(server.cert_resolver);
    theirs.alpn_protocols = server.alpn_protocols;
    theirs.send_tls13_tickets = 0;
    Ok((ours, theirs))
}

/// Puts first what is fastest here.
fn order(ciphers: &mut [SupportedCipherSuite], has_aes: bool) {
    let first =
        if has_aes { CipherSuite::TLS13_AES_128_GCM_SHA256 } else { CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 };
    ciphers.sort_by_key(|cipher| cipher.suite() != first);
}

/// Whether the processor has AES and the multiplication that goes with it.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Believes every certificate that its own key has signed together with the peer's; whether the peer is the one that was
/// dialed is seen by its name.
#[derive(Debug)]
struct Peers;

impl Peers {
    fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !others.is_empty() {
            return Err(Error::General("a peer shows one certificate, and no chain".into()));
        }
        certificate::parse(certificate)?;
        Ok(())
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
        Ok(HandshakeSignatureValid::assertion())
    }

    /// What a certificate's key may sign with. RSA comes last.
    fn schemes() -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}

/// No older version than 1.3 is offered or taken.
const NO_TLS_12: Error = Error::PeerMisbehaved(PeerMisbehaved::SelectedTls12UsingTls13VersionExtension);

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Peers::check(certificate, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS_12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Peers::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Peers::schemes()
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Peers::check(certificate, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(NO_TLS_12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Peers::check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Peers::schemes()
    }
}

/// Who has shown its certificate.
fn peer(state: &CommonState) -> io::Result<PeerId> {
    let Some([certificate]) = state.peer_certificates() else {
        return Err(io::Error::other("the peer has shown no certificate"));
    };
    Ok(certificate::parse(certificate).map_err(io::Error::other)?.peer_id())
}

fn read_ahead<C: AsyncRead + AsyncWrite>(socket: C) -> BufReader<C> {
    BufReader::with_capacity(SOCKET_READ_BYTES, socket)
}

fn gathered(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Encrypted {
    Box::pin(BufWriter::with_capacity(SOCKET_WRITE_BYTES, stream))
}

impl UpgradeInfo for Secure {
    type Info = &'static str;
    type InfoIter = std::array::IntoIter<&'static str, 2>;

    fn protocol_info(&self) -> Self::InfoIter {
        [TLS, NOISE].into_iter()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Secure {
    type Output = (PeerId, Encrypted);
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Output, io::Error>>;

    fn upgrade_inbound(self, socket: C, info: &'static str) -> Self::Future {
        async move {
            let socket = read_ahead(socket);
            if info == TLS {
                let stream = self.server.accept(socket).await?;
                return Ok((peer(stream.get_ref().1)?, gathered(stream)));
            }
            let (peer, stream) = self.noise.upgrade_inbound(socket, info).await.map_err(io::Error::other)?;
            Ok((peer, gathered(stream)))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Secure {
    type Output = (PeerId, Encrypted);
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Output, io::Error>>;

    fn upgrade_outbound(self, socket: C, info: &'static str) -> Self::Future {
        async move {
            let socket = read_ahead(socket);
            if info == TLS {
                // An address is sent to nobody, and peers have no other name that TLS knows of.
                let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
                let stream = self.client.connect(name, socket).await?;
                return Ok((peer(stream.get_ref().1)?, gathered(stream)));
            }
            let (peer, stream) = self.noise.upgrade_outbound(socket, info).await.map_err(io::Error::other)?;
            Ok((peer, gathered(stream)))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_that_the_processor_does_itself_is_offered_first() {
        let keypair = Keypair::generate_ed25519();
        let (client, server) = configs(&keypair).unwrap();
        let first = client.crypto_provider().cipher_suites[0].suite();
        let aes = CipherSuite::TLS13_AES_128_GCM_SHA256;
        assert_eq!(first == aes, has_aes());
        assert_eq!(server.crypto_provider().cipher_suites[0].suite(), first);
        let mut ciphers = client.crypto_provider().cipher_suites.clone();
        order(&mut ciphers, false);
        assert_eq!(ciphers[0].suite(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        order(&mut ciphers, true);
        assert_eq!((ciphers[0].suite(), ciphers.len()), (aes, 3));
    }
}
