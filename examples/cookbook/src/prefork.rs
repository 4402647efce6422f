//! # Prefork: several processes behind one port
//!
//! Each worker is a process with a loop and a listener of its own; `SO_REUSEPORT` has the kernel spread the connections. A socket
//! that was set up elsewhere is injected by `from_socket`. Start programs, don't `fork`: a forked child has none of the threads, and
//! the crate answers `Forked` there. A worker ends when its standard input does, so none outlives its parent.
//!
//! Besides: `socket2 = { version = "0.6", features = ["all"] }`.

use callbridge::listener::{Request, TcpServer};
use callbridge::{Bridge, Listener};
use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_util::codec::LinesCodec;

fn reserve(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

fn worker(port: u16) -> crate::Ended {
    let socket = reserve(port)?;
    socket.listen(1024)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let bridge = Bridge::new(runtime.handle().clone());
    let server = TcpServer::from_socket(socket, 1024, LinesCodec::new)?;
    let listener = Listener::builder(server)
        .serve(&bridge, async |request: Request<String>| {
            Some(format!("{} says {}", std::process::id(), request.frame))
        })
        .spawn()?;
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    let report = listener.close_blocking(Duration::from_secs(5)); // requests at work are answered
    if report.is_clean() { Ok(()) } else { Err(report.to_string().into()) }
}

pub(crate) fn main() -> crate::Ended {
    if let Some(port) = std::env::args().skip_while(|arg| arg != "--worker").nth(1) {
        return worker(port.parse()?);
    }
    // Bound and not listening: keeps the port, gets no connection.
    let socket = reserve(0)?;
    let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    let mut workers = Vec::new();
    for _ in 0..2 {
        let mut worker = Command::new(std::env::current_exe()?)
            .args(["--worker", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        if let Some(out) = &mut worker.stdout {
            BufReader::new(out).read_line(&mut ready)?;
        }
        assert_eq!(ready, "ready\n");
        workers.push(worker);
    }

    let mut client = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?);
    client.get_mut().write_all(b"hello\n")?;
    let mut answer = String::new();
    client.read_line(&mut answer)?;
    print!("{answer}");
    assert!(answer.ends_with("says hello\n"));
    drop(client);

    for mut worker in workers {
        drop(worker.stdin.take()); // the end
        assert!(worker.wait()?.success());
    }
    Ok(())
}
