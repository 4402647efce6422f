//! # TLS, read and written by one thread
//!
//! A TLS session can't be cut into a half that reads and one that writes: reading may have to write. `ReadSource` owns the whole
//! session; `polled_by` says which descriptor to wait for, so a stop and a frame to write end the wait. The socket is in
//! non-blocking mode, since the session has a buffer of its own: what it has decrypted already isn't announced by the descriptor.
//!
//! Besides: `rustls = { version = "0.23", default-features = false, features = ["std", "ring", "tls12"] }`.

use callbridge::Listener;
use callbridge::listener::ReadSource;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (address, root, server) = echo_server()?;

    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let socket = TcpStream::connect(address)?;
    socket.set_nonblocking(true)?;
    let tls = rustls::StreamOwned::new(session, socket);

    // From here on it is as with any device.
    let source =
        ReadSource::new(tls, 1024, LinesCodec::new())?.polled_by(|tls| tls.sock.as_fd())?;
    let mut builder = Listener::builder(source).name("tls");
    let lines_out = builder.writer::<&str>(16);
    let (listener, mut lines_in) = builder.spawn()?;
    for line in ["hello", "secret"] {
        lines_out.send(line).await?;
        let answer = lines_in.recv().await;
        println!("{answer:?}");
        assert_eq!(answer.as_deref(), Some(line));
    }
    println!("{}", listener.close(Duration::from_secs(5)).await);
    drop((listener, lines_in));
    server.join().expect("the server doesn't panic")?;
    Ok(())
}

type Server = std::thread::JoinHandle<std::io::Result<()>>;

/// Somebody to talk to: a blocking server, with a certificate of its own.
fn echo_server() -> Result<(SocketAddr, CertificateDer<'static>, Server), crate::Failure> {
    let made = rcgen::generate_simple_self_signed([String::from("localhost")])?;
    let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::try_from(key)?)?;
    let listening = TcpListener::bind("127.0.0.1:0")?;
    let address = listening.local_addr()?;
    let server = std::thread::spawn(move || {
        let (socket, _) = listening.accept()?;
        let session = ServerConnection::new(Arc::new(config)).map_err(std::io::Error::other)?;
        let mut tls = BufReader::new(rustls::StreamOwned::new(session, socket));
        let mut line = String::new();
        while tls.read_line(&mut line).is_ok_and(|count| count > 0) {
            tls.get_mut().write_all(line.as_bytes())?;
            line.clear();
        }
        Ok(())
    });
    Ok((address, certificate, server))
}
