//! The echo example, run as a program: `cargo test` builds it beside this test, and
//! `cargo build --example echo` does where this test is run alone.

#![cfg(unix)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// The example, running; killed if the test ends first.
struct Echo {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Echo {
    fn start(arguments: &[&str]) -> Self {
        let test = std::env::current_exe().expect("this test's own path");
        let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps");
        let program = profile.join("examples").join("echo");
        assert!(is_fresh(&program), "run `cargo build --example echo` first");
        let mut child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example runs");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Echo { child, stdout, stderr }
    }

    /// Starts it with `--listen`; also gives the address that it prints.
    fn listen(address: &str, more: &[&str]) -> (Self, String) {
        let echo = Echo::start(&[&["--listen", address], more].concat());
        let line = echo.stdout.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("no word of the listener; stderr: {:?}", echo.stderr.try_iter().next())
        });
        let address = line.split_whitespace().nth(2).expect("listening on ADDRESS").to_owned();
        assert!(line.starts_with("listening on "), "{line}");
        (echo, address)
    }

    /// The exit and all that was printed, in lines.
    fn end(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let stdout = drain(&self.stdout);
        let stderr = drain(&self.stderr);
        (self.child.wait().expect("an exit status"), stdout, stderr)
    }

    /// Ctrl-C, as a terminal would send it; what the program says about its end.
    fn interrupt(self) -> Vec<String> {
        self.interrupt_peers::<TcpStream, 0>([])
    }

    /// The same while peers are connected; each hangs up once the program has ended its side.
    fn interrupt_peers<P: Read, const N: usize>(self, peers: [P; N]) -> Vec<String> {
        self.signal("-INT", peers)
    }

    fn signal<P: Read, const N: usize>(self, signal: &str, peers: [P; N]) -> Vec<String> {
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        for mut peer in peers {
            assert_eq!(peer.read(&mut [0; 8]).expect("an end, not a reset"), 0);
        }
        let (status, stdout, stderr) = self.end();
        assert_eq!(status.code(), Some(0), "{stdout:?} {stderr:?}");
        assert!(stderr.is_empty(), "{stderr:?}");
        stdout
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the program is there and no older than its source.
fn is_fresh(program: &Path) -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/echo");
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = [source.clone(), source.join("client"), source.join("server")]
        .iter()
        .flat_map(|directory| directory.read_dir().expect("the example's source"))
        .filter_map(|file| modified(&file.ok()?.path()))
        .max();
    modified(program) >= newest
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if sender.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Everything until the pipe is closed.
fn drain(lines: &Receiver<String>) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => all.push(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return all,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs after {all:?}"),
        }
    }
}

fn assert_refused(arguments: &[&str], says: &str) {
    let (status, stdout, stderr) = Echo::start(arguments).end();
    assert_eq!(status.code(), Some(2), "{arguments:?}: {stdout:?} {stderr:?}");
    assert_eq!(stderr.len(), 1, "{arguments:?}: {stderr:?}");
    assert!(stderr[0].contains(says), "{arguments:?}: {stderr:?}");
    assert!(stdout.is_empty(), "{arguments:?}: {stdout:?}");
}

fn assert_counters(said: &[String], frames: usize) {
    let counted = said.iter().find_map(|line| line.trim_start().strip_prefix("frames "));
    let counted = counted.and_then(|counted| counted.split(',').next());
    assert_eq!(counted, Some(&*frames.to_string()), "{said:?}");
    let counters = said.iter().find(|line| line.contains("counters:")).expect("counters");
    assert!(counters.ends_with("they balance"), "{said:?}");
    assert!(said.iter().any(|line| line.contains("stopped in")), "{said:?}");
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address.strip_prefix("tcp://").expect("tcp")).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Sends `request` in two pieces and reads as many bytes as `reply` has.
fn assert_echo(stream: &mut (impl Read + Write), request: &[u8], reply: &[u8]) {
    let (first, second) = request.split_at(request.len() / 2);
    stream.write_all(first).expect("write");
    stream.write_all(second).expect("write");
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got).expect("a reply");
    assert!(got == reply, "{} bytes came back altered", got.len());
}

/// What a program, given `line` on its standard input, prints first; `None` if it isn't installed.
fn first_answer(program: &str, arguments: &[&str], line: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("not tried: there is no {program} here");
            return None;
        }
        spawned => spawned.expect("the program runs"),
    };
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(line.as_bytes()).expect("write");
    let answer = lines(child.stdout.take().expect("a pipe")).recv_timeout(PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    Some(answer.expect("an answer"))
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[..], payload].concat()
}

#[test]
fn help_explains_each_flag() {
    let (status, stdout, stderr) = Echo::start(&["--help"]).end();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.is_empty(), "{stderr:?}");
    for flag in [
        "--listen",
        "--framing",
        "--max-frame",
        "--mode",
        "--frames",
        "--sizes",
        "--window",
        "--clients",
        "--deadline",
    ] {
        let at = stdout.iter().position(|line| line.trim_start().starts_with(flag));
        let at = at.unwrap_or_else(|| panic!("{flag} is not in the help"));
        assert!(stdout[at + 1].trim().len() > 20, "{flag} is not explained");
    }
}

#[test]
fn a_nonsense_number_is_refused() {
    for number in ["x", "0", "-5", "1.5", "99999999999999999999", ""] {
        for flag in ["--frames", "--window", "--clients", "--sizes", "--max-frame", "--deadline"] {
            assert_refused(&[flag, number], flag);
        }
    }
    assert_refused(&["--sizes", "1,,2"], "--sizes");
    assert_refused(&["--sizes", "70000", "--max-frame", "100"], "70000");
    assert_refused(&["--sizes", "70000"], "65507");
}

#[test]
fn a_wrong_address_is_refused() {
    for address in [
        "",
        "nonsense",
        "udp://",
        "tcp://127.0.0.1",
        "udp://127.0.0.1:99999",
        "tcp://not.a.number:7000",
        "http://127.0.0.1:7000",
        "unix://",
    ] {
        assert_refused(&["--listen", address], "udp://127.0.0.1:7000");
    }
    assert_refused(&["--listen", "udp://192.0.2.1:7000"], "cannot listen on udp://192.0.2.1:7000");
    assert_refused(&["--listen", "unix:///no/such/directory/s"], "/no/such/directory/s");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    assert_refused(&["--bogus"], "--bogus");
    assert_refused(&["stray"], "stray");
    assert_refused(&["--mode", "both"], "stream, call");
    assert_refused(&["--framing", "lines"], "--listen");
    assert_refused(&["--listen", "udp://127.0.0.1:0", "--framing", "lines"], "--framing");
    assert_refused(&["--listen", "udp://127.0.0.1:0", "--frames", "3"], "--frames");
}

#[test]
fn a_port_in_use_is_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let taken = socket.local_addr().expect("address");
    assert_refused(&["--listen", &format!("udp://{taken}")], "in use");

    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = listener.local_addr().expect("address");
    assert_refused(&["--listen", &format!("tcp://{taken}")], "in use");

    let path = SocketPath::new("taken");
    std::fs::write(&path.0, "not a socket").expect("write");
    assert_refused(&["--listen", &format!("unix://{}", path.0.display())], "in use");
    assert_eq!(std::fs::read(&path.0).expect("still there"), b"not a socket");
}

#[test]
fn a_short_run_in_a_pipe_echoes_everything() {
    let arguments = ["--frames", "120", "--sizes", "1,7,8,1400,65507,70000", "--window", "8"];
    let (status, stdout, stderr) = Echo::start(&arguments).end();
    assert_eq!(status.code(), Some(0), "{stdout:#?} {stderr:#?}");
    for title in ["udp listener, stream mode", "tcp listener, stream mode"] {
        assert!(stdout.iter().any(|line| line.starts_with(title)), "{stdout:#?}");
        let call = title.replace("stream", "call");
        assert!(stdout.iter().any(|line| line.starts_with(&call)), "{stdout:#?}");
    }
    assert_eq!(stdout.iter().filter(|line| line.ends_with("they balance")).count(), 4);
    let last = stdout.last().expect("a verdict");
    assert_eq!(last, "ok: 480 frames came back unaltered, and the counters balance");
    for label in ["udp stream", "tcp stream", "udp call", "tcp call"] {
        assert!(stderr.iter().any(|line| *line == format!("{label}: 120 of 120 frames")));
    }
    assert!(stderr.iter().all(|line| !line.contains(['\r', '\x1b'])), "{stderr:?}");
}

#[test]
fn datagrams_come_back_until_ctrl_c() {
    for mode in ["stream", "call"] {
        let (echo, address) = Echo::listen("udp://127.0.0.1:0", &["--mode", mode]);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket.connect(address.strip_prefix("udp://").expect("udp")).expect("connect");
        let sizes = [0, 1, 1_400, 65_507];
        let mut reply = vec![0; 70_000];
        for size in sizes {
            let datagram: Vec<u8> = (0..size).map(|index| index as u8).collect();
            socket.send(&datagram).expect("send");
            let length = socket.recv(&mut reply).expect("a reply");
            assert!(reply[..length] == datagram, "{mode}: {size} bytes, {length} came back");
        }
        assert_counters(&echo.interrupt(), sizes.len());
    }
}

#[test]
fn length_delimited_frames_come_back_until_ctrl_c() {
    for mode in ["stream", "call"] {
        let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &["--mode", mode]);
        let mut stream = tcp(&address);
        for size in [0, 1, 1_400, 1 << 20] {
            let frame = framed(&vec![size as u8; size]);
            assert_echo(&mut stream, &frame, &frame);
        }
        let mut other = tcp(&address);
        assert_echo(&mut other, &framed(b"second connection"), &framed(b"second connection"));
        // The connections are open: stopping closes them.
        assert_counters(&echo.interrupt_peers([stream, other]), 5);
    }
}

#[test]
fn a_frame_over_the_limit_closes_only_its_connection() {
    for mode in ["stream", "call"] {
        let more = ["--mode", mode, "--max-frame", "100"];
        let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &more);
        let mut good = tcp(&address);
        let mut bad = tcp(&address);
        assert_echo(&mut good, &framed(&[7; 100]), &framed(&[7; 100]));
        bad.write_all(&101u32.to_be_bytes()).expect("write");
        assert_eq!(bad.read(&mut [0; 8]).unwrap_or(0), 0, "{mode}: no reply is due");
        assert_echo(&mut good, &framed(b"still here"), &framed(b"still here"));
        drop(bad);
        let said = echo.interrupt_peers([good]);
        assert_counters(&said, 2);
        assert!(said.iter().any(|line| line.contains("not framed 1")), "{said:?}");
    }
}

#[test]
fn lines_come_back_until_ctrl_c() {
    for mode in ["stream", "call"] {
        let more = ["--mode", mode, "--framing", "lines"];
        let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &more);
        let mut stream = tcp(&address);
        assert_echo(&mut stream, b"hello\n", b"hello\n");
        assert_echo(&mut stream, b"two\nlines, then none:\n\n", b"two\nlines, then none:\n\n");
        assert_counters(&echo.interrupt_peers([stream]), 4);
    }
}

#[test]
fn a_peer_that_has_said_everything_still_gets_its_answers() {
    for mode in ["stream", "call"] {
        let more = ["--mode", mode, "--framing", "lines"];
        let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &more);
        let mut stream = tcp(&address);
        let said: &[u8] = b"first\r\n\xff not text\nlast, without a newline";
        stream.write_all(said).expect("write");
        stream.shutdown(Shutdown::Write).expect("shutdown");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("the listener closes its side, too");
        assert_eq!(heard, said);
        assert_counters(&echo.interrupt(), 3);
    }
}

#[test]
fn a_unix_socket_echoes_until_ctrl_c() {
    for mode in ["stream", "call"] {
        let path = SocketPath::new(mode);
        let address = format!("unix://{}", path.0.display());
        let (echo, announced) = Echo::listen(&address, &["--mode", mode, "--framing", "lines"]);
        assert_eq!(announced, address);
        let mut stream = UnixStream::connect(&path.0).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        assert_echo(&mut stream, b"hello\n", b"hello\n");
        assert_counters(&echo.interrupt_peers([stream]), 1);
        assert!(!path.0.exists(), "{mode}: the socket's file is left behind");
    }
}

#[test]
fn sigterm_ends_it_in_order() {
    let path = SocketPath::new("term");
    let address = format!("unix://{}", path.0.display());
    let (echo, _) = Echo::listen(&address, &["--framing", "lines"]);
    let mut stream = UnixStream::connect(&path.0).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    assert_echo(&mut stream, b"hello\n", b"hello\n");
    assert_counters(&echo.signal("-TERM", [stream]), 1);
    assert!(!path.0.exists(), "the socket's file is left behind");
}

#[test]
fn a_peer_that_never_reads_stops_nobody() {
    for mode in ["stream", "call"] {
        let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &["--mode", mode]);
        let mut deaf = tcp(&address);
        deaf.set_write_timeout(Some(Duration::from_millis(200))).expect("timeout");
        let flood = framed(&[7; 60_000]);
        // Until nothing of it is taken any more.
        while deaf.write_all(&flood).is_ok() {}
        let mut other = tcp(&address);
        for _ in 0..3 {
            assert_echo(&mut other, &framed(b"still here"), &framed(b"still here"));
        }
        drop(deaf);
        let said = echo.interrupt_peers([other]);
        assert!(said.iter().any(|line| line.ends_with("they balance")), "{said:?}");
    }
}

/// Another owner of its socket shuts it down.
#[cfg(target_os = "linux")]
#[test]
fn a_listener_that_fails_ends_the_program() {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &[]);
    let pid = echo.child.id();
    let process = Pid::from_raw(pid.try_into().expect("a pid")).expect("it isn't 0");
    let process = pidfd_open(process, PidfdFlags::empty()).expect("it runs");
    let stolen = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()));
    let mut refused = 0;
    for fd in stolen {
        let Ok(fd) = fd else {
            refused += 1;
            continue;
        };
        let listening = TcpListener::from(fd);
        if listening.local_addr().is_ok_and(|at| address == format!("tcp://{at}")) {
            TcpStream::from(std::os::fd::OwnedFd::from(listening))
                .shutdown(Shutdown::Both)
                .expect("shutdown");
            let (status, stdout, stderr) = echo.end();
            assert_eq!(status.code(), Some(1), "{stdout:?} {stderr:?}");
            assert!(stdout.iter().any(|line| line.contains("listener failed")), "{stdout:?}");
            return;
        }
    }
    assert!(refused > 0, "its socket wasn't found");
    eprintln!("not tried: the system doesn't let descriptors be taken");
}

#[test]
fn a_python_script_gets_its_bytes_back() {
    const UDP: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.sendto(b'hello', ('127.0.0.1', int(sys.argv[1])))
print(s.recv(65507), flush=True)";
    const TCP: &str = "import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 60)
s.sendall((5).to_bytes(4, 'big') + b'hello')
print(s.makefile('rb').read(9)[4:], flush=True)";
    for (scheme, script) in [("udp", UDP), ("tcp", TCP)] {
        for mode in ["stream", "call"] {
            let (echo, address) =
                Echo::listen(&format!("{scheme}://127.0.0.1:0"), &["--mode", mode]);
            let port = address.rsplit(':').next().expect("a port");
            let Some(answer) = first_answer("python3", &["-c", script, port], "") else { return };
            assert_eq!(answer, "b'hello'");
            assert_counters(&echo.interrupt(), 1);
        }
    }
}

#[test]
fn nc_gets_its_lines_back() {
    let path = SocketPath::new("nc");
    let path = path.0.to_str().expect("text");
    for mode in ["stream", "call"] {
        let more = ["--mode", mode, "--framing", "lines"];
        let (echo, address) = Echo::listen("tcp://127.0.0.1:0", &more);
        let port = address.rsplit(':').next().expect("a port");
        let Some(answer) = first_answer("nc", &["127.0.0.1", port], "hello\n") else { return };
        assert_eq!(answer, "hello");
        assert_counters(&echo.interrupt(), 1);
        let (echo, _) = Echo::listen(&format!("unix://{path}"), &more);
        let Some(answer) = first_answer("nc", &["-U", path], "hello\n") else { return };
        assert_eq!(answer, "hello");
        assert_counters(&echo.interrupt(), 1);
    }
}

/// A path for a socket, removed at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        let file = format!("callbridge-echo-{}-{name}.sock", std::process::id());
        SocketPath(std::env::temp_dir().join(file))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
