//! The echo server's TCP face under arbitrary bytes: what is framed comes back, in order, and
//! whatever else is sent costs that connection only.

use super::Script;
use bytes::{Bytes, BytesMut};
use callbridge::Bridge;
use callbridge::listener::{Listener, Request, TcpServer};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_FRAME: usize = 64;

struct Server {
    addr: SocketAddr,
    listener: Listener,
    _runtime: Runtime,
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}

/// One server for the process: its counters must balance, whatever its peers have sent.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let bridge = Bridge::new(runtime.handle().clone());
        let server = TcpServer::bind("127.0.0.1:0", MAX_FRAME + 4, codec).unwrap();
        let addr = server.local_addr().unwrap();
        let echo = async |request: Request<BytesMut>| Some(request.frame.freeze());
        let listener = Listener::builder(server)
            .serve::<Bytes, _, _>(&bridge, echo)
            .reply_timeout(PATIENCE)
            .pipeline(8)
            .spawn()
            .unwrap();
        Server { addr, listener, _runtime: runtime }
    })
}

/// What comes back for `data`, and whether all of it is certain to.
fn expected(data: &[u8]) -> (Vec<u8>, bool) {
    let (mut rest, mut echoed) = (BytesMut::from(data), Vec::new());
    let mut codec = codec();
    loop {
        match codec.decode(&mut rest) {
            Ok(Some(frame)) => {
                echoed.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                echoed.extend_from_slice(&frame);
            }
            Ok(None) => return (echoed, true),
            // The reset that follows may overtake the answers.
            Err(_) => return (echoed, false),
        }
    }
}

pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let flags = script.byte();
    let cuts: Vec<u8> = (0..flags % 4).map(|_| script.byte()).collect();
    let data = script.rest();
    let server = server();
    let mut client = TcpStream::connect(server.addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut sent, mut left) = (true, data);
    for cut in cuts {
        let (now, later) = left.split_at(left.len().min(usize::from(cut)));
        sent &= client.write_all(now).is_ok();
        left = later;
    }
    sent &= client.write_all(left).is_ok();
    if flags & 0x40 != 0 {
        // Leaves without a word: nothing to compare, but nothing may be upset either.
        return;
    }
    let _ = client.shutdown(Shutdown::Write);
    let mut echoed = Vec::new();
    let ended = client.read_to_end(&mut echoed);
    let (whole, certain) = expected(data);
    match ended {
        Ok(_) if certain => assert_eq!(echoed, whole),
        Ok(_) => assert!(whole.starts_with(&echoed)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server hangs: {error}");
            assert!(!certain, "a well-framed connection was reset");
            assert!(whole.starts_with(&echoed));
        }
    }
    assert!(sent || !certain);
    assert!(!server.listener.is_finished(), "a peer ended the listener");
}
