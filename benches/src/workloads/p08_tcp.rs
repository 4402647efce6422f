//! P8: TCP echo of length-delimited 64-byte frames; a client on a thread of its own keeps a window
//! of frames out, and writes all that fit at once.

use super::{Bench, Workload};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::servers::{Handling, Server};
use crate::contestants::tcp;
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus, latency_histogram};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P8",
    title: "TCP echo of length-delimited 64-byte frames, one connection, the client included",
    run,
    goals,
};

const FRAME: usize = 64;
const ON_WIRE: usize = FRAME + 4;
const SERVE: &str = "callbridge serve";
const BATCHED: &str = "tokio Framed, batched flush";

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1] {
        for window in [64, 1] {
            let name = format!("{}/win{window}", flavour.name());
            if bench.wants(&name) {
                let on = Loop::new(flavour);
                results.push(bench.measure(case(&on, name, window)));
            }
        }
    }
    results
}

fn case(on: &Loop, name: String, window: u64) -> Case<'static> {
    let mut case = Case::new("P8", name);
    let mut add = |role, name, server: Server| {
        case.add(role, name, move |ops| {
            // All of it, or the closure would keep the address and drop the server.
            let server = &server;
            round(server.addr, window, ops)
        });
    };
    add(Role::Ours, SERVE, tcp::ours_serve(on, Handling::Ready, None));
    add(Role::Ours, "callbridge serve, pipeline 1", tcp::ours_serve(on, Handling::Ready, 1));
    add(Role::Ours, "callbridge stream", tcp::ours_stream(on, Handling::Ready));
    add(Role::Peer, BATCHED, tcp::framed_batched(on));
    add(Role::Peer, "tokio Framed, forward", tcp::framed_forward(on, Handling::Ready));
    add(Role::Peer, "tokio Framed, flush per frame", tcp::framed_send(on));
    add(Role::Peer, "tokio read_buf and write_all", tcp::by_hand(on));
    add(Role::Peer, "thread → tokio mpsc → one write", tcp::thread_tokio_mpsc(on));
    add(Role::Peer, "thread + spawn + oneshot", tcp::thread_spawn_oneshot(on));
    add(Role::Limit, "blocking thread, no loop", tcp::blocking(on, Handling::Ready));
    case
}

fn goals() -> Vec<Goal> {
    let goal = |case, at_most| Goal {
        workload: "P8",
        case,
        ours: SERVE,
        figure: "ns",
        versus: Versus::Contestant(BATCHED),
        at_most,
    };
    vec![goal("ct/win64", 1.0), goal("mt1/win64", 1.0), goal("ct/win1", 1.1), goal("mt1/win1", 1.1)]
}

pub(super) fn round(server: SocketAddr, window: u64, ops: u64) -> Round {
    let mut stream = TcpStream::connect(server).expect("loopback works");
    stream.set_nodelay(true).expect("loopback works");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("loopback works");
    let mut output = Vec::with_capacity(window as usize * ON_WIRE);
    let mut input = vec![0; 64 * 1024];
    // How many bytes of a frame that has not come whole lie at the start of the input.
    let mut partial = 0;
    let (mut sent, mut back) = (0_u64, 0_u64);
    let mut latency = latency_histogram();

    let meter = Meter::start();
    let mut before = Instant::now();
    while back < ops {
        output.clear();
        while sent < ops && sent - back < window {
            output.extend_from_slice(&(FRAME as u32).to_be_bytes());
            output.extend_from_slice(&sent.to_le_bytes());
            output.extend_from_slice(&[0x5a; FRAME - 8]);
            sent += 1;
        }
        stream.write_all(&output).expect("the server reads");
        let length = stream.read(&mut input[partial..]).expect("the server answers");
        assert_ne!(length, 0, "the server has closed the connection");
        let frames = input[..partial + length].chunks_exact(ON_WIRE);
        let rest = frames.remainder().len();
        for frame in frames {
            let number = u64::from_le_bytes(frame[4..12].try_into().expect("eight bytes"));
            assert_eq!(number, back, "echoes were lost or out of order");
            back += 1;
        }
        input.copy_within(partial + length - rest..partial + length, 0);
        partial = rest;
        if window == 1 {
            let now = Instant::now();
            let _ = latency.record((now - before).as_nanos() as u64);
            before = now;
        }
    }
    let round = meter.stop(ops);
    if window == 1 { round.with_latency(latency) } else { round }
}
