use super::*;
use crate::id::MessageId;
use crate::publish::After::{Anything, Message, Position};
use crate::publish::Said;
use proptest::prelude::*;

const RULES: Rules = Rules {
    limit: 4,
    attempt_timeout: Duration::from_secs(5),
    first_backoff: Duration::from_millis(10),
    longest_backoff: Duration::from_millis(100),
};

fn bound(position: u64, last: Option<MessageId>) -> Bound {
    Bound { position: Some(position), last }
}

fn window(frames: u64) -> (Window<u64>, Instant) {
    let mut window = Window::new(RULES, "run".into(), &bound(100, None));
    for frame in 1..=frames {
        window.push(frame, frame);
    }
    (window, Instant::now())
}

fn stored(position: u64) -> Result<Stored, Fault> {
    Ok(Stored { position: Some(position), repeat: false })
}

/// What is sent now: the frame, its ticket, and what it comes after.
fn send_all(window: &mut Window<u64>, now: Instant) -> Vec<(u64, Ticket, After)> {
    let mut sent = Vec::new();
    while let Some(next) = window.next(now) {
        sent.push((*next.frame, next.ticket, next.after));
    }
    sent
}

fn settle(window: &mut Window<u64>) -> (Vec<u64>, Vec<u64>) {
    let (mut stored, mut rejected) = (Vec::new(), Vec::new());
    while let Some(settled) = window.pop() {
        match settled {
            Settled::Stored(frame) => stored.push(frame),
            Settled::Rejected(frame, ..) => rejected.push(frame),
        }
    }
    (stored, rejected)
}

#[test]
fn each_frame_is_sent_once_and_says_what_it_comes_after() {
    let (mut window, now) = window(3);
    let sent = send_all(&mut window, now);
    let said: Vec<_> = sent.iter().map(|&(frame, _, after)| (frame, after)).collect();
    assert_eq!(said, [(1, Position(100)), (2, Message(1)), (3, Message(2))]);
    assert_eq!(window.room(), 1);
    for (index, &(_, ticket, _)) in sent.iter().enumerate() {
        window.outcome(ticket, stored(101 + index as u64), now);
    }
    assert_eq!(settle(&mut window).0, [1, 2, 3]);
    assert_eq!((window.effort.sent, window.effort.sent_again, window.acknowledged), (3, 0, 3));
}

#[test]
fn frames_leave_in_order() {
    let (mut window, now) = window(2);
    let sent = send_all(&mut window, now);
    window.outcome(sent[1].1, stored(102), now);
    assert!(settle(&mut window).0.is_empty());
    window.outcome(sent[0].1, stored(101), now);
    assert_eq!(settle(&mut window).0, [1, 2]);
}

#[test]
fn a_failure_begins_again_with_one_frame_after_a_pause_that_grows() {
    let (mut window, mut now) = window(3);
    let sent = send_all(&mut window, now);
    window.outcome(sent[0].1, stored(101), now);
    settle(&mut window);
    window.outcome(sent[1].1, Err(Fault::passing("no")), now);
    assert!(send_all(&mut window, now).is_empty());
    for pause in [10, 20, 40, 80, 100, 100] {
        assert_eq!(window.wake_at(), Some(now + Duration::from_millis(pause)));
        now += Duration::from_millis(pause);
        let again = send_all(&mut window, now);
        assert_eq!(again.len(), 1, "one alone");
        assert_eq!((again[0].0, again[0].2), (2, Position(101)));
        window.outcome(again[0].1, Err(Fault::passing("no")), now);
    }
    now += Duration::from_millis(100);
    let again = send_all(&mut window, now);
    window.outcome(again[0].1, stored(102), now);
    let rest = send_all(&mut window, now);
    assert_eq!(rest.iter().map(|sent| (sent.0, sent.2)).collect::<Vec<_>>(), [(3, Message(2))]);
    assert_eq!(window.failing_since(), None);
}

#[test]
fn a_failure_of_an_earlier_round_is_ignored_and_a_success_is_not() {
    let (mut window, now) = window(2);
    let sent = send_all(&mut window, now);
    window.interrupted(now);
    let rounds = window.effort.rounds;
    window.outcome(sent[1].1, Err(Fault::OutOfOrder), now);
    assert_eq!(window.effort.rounds, rounds);
    window.outcome(sent[0].1, stored(101), now);
    assert_eq!(settle(&mut window).0, [1]);
}

#[test]
fn an_attempt_without_an_answer_is_made_again() {
    let (mut window, now) = window(2);
    send_all(&mut window, now);
    let late = window.wake_at().unwrap();
    assert_eq!(late, now + RULES.attempt_timeout);
    window.tick(late - Duration::from_millis(1));
    assert_eq!(window.effort.timed_out, 0);
    window.tick(late);
    assert_eq!((window.effort.timed_out, window.effort.rounds), (1, 1));
    let wake = window.wake_at().unwrap();
    let again = send_all(&mut window, wake);
    assert_eq!((again.len(), again[0].0), (1, 1));
}

#[test]
fn a_rejected_frame_leaves_no_hole() {
    let (mut window, now) = window(3);
    let sent = send_all(&mut window, now);
    window.outcome(sent[0].1, stored(101), now);
    window.outcome(sent[1].1, Err(Fault::rejected("too large")), now);
    window.outcome(sent[2].1, Err(Fault::OutOfOrder), now);
    let again = send_all(&mut window, now);
    assert_eq!(again.iter().map(|sent| (sent.0, sent.2)).collect::<Vec<_>>(), [(3, Position(101))]);
    assert_eq!(settle(&mut window), (vec![1], vec![2]));
}

#[test]
fn a_frame_that_is_rejected_before_it_leaves_costs_no_round() {
    let (mut window, now) = window(2);
    let ticket = window.next(now).unwrap().ticket;
    window.outcome(ticket, Err(Fault::rejected("bad subject")), now);
    let sent = send_all(&mut window, now);
    assert_eq!(sent.iter().map(|sent| (sent.0, sent.2)).collect::<Vec<_>>(), [(2, Position(100))]);
    assert_eq!(window.effort.rounds, 0);
}

#[test]
fn an_engine_whose_end_is_elsewhere_is_asked_where_it_is() {
    let (mut window, now) = window(3);
    let sent = send_all(&mut window, now);
    window.outcome(sent[0].1, Err(Fault::OutOfOrder), now);
    let now = window.wake_at().unwrap();
    assert!(window.must_bind(now));
    assert!(send_all(&mut window, now).is_empty());
    // The answers were lost: two of the three are stored.
    window.bound(&bound(102, Some(MessageId::new("run", 2))));
    assert_eq!(settle(&mut window).0, [1, 2]);
    let again = send_all(&mut window, now);
    assert_eq!((again[0].0, again[0].2), (3, Position(102)));
}

#[test]
fn what_an_earlier_run_of_the_same_name_has_stored_is_not_sent() {
    let last = MessageId::new("run", 2);
    let mut window = Window::new(RULES, "run".into(), &bound(7, Some(last.clone())));
    (1..=3).for_each(|frame| window.push(frame, frame));
    let sent = send_all(&mut window, Instant::now());
    assert_eq!((sent.len(), sent[0].0, sent[0].2), (1, 3, Position(7)));
    assert_eq!((settle(&mut window).0, window.effort.stored_before), (vec![1, 2], 2));

    // Where others write, too, the last message says nothing about the ones before.
    let shared = Bound { position: None, last: Some(last) };
    let mut window = Window::new(RULES, "run".into(), &shared);
    (1..=3).for_each(|frame| window.push(frame, frame));
    assert_eq!(send_all(&mut window, Instant::now()).len(), 3);
}

/// A server, as JetStream is one: it keeps a log, and answers over connections that break.
#[derive(Default)]
struct Server {
    log: Vec<MessageId>,
    room: usize,
    /// What it would recognise as a repeat, and the last id; it forgets.
    known: Vec<MessageId>,
    last: Option<MessageId>,
}

impl Server {
    fn take(&mut self, id: MessageId, after: After) -> Result<Stored, Fault> {
        if self.known.contains(&id) {
            let at = self.log.iter().position(|logged| *logged == id).unwrap();
            return Ok(Stored { position: Some(at as u64 + 1), repeat: true });
        }
        let is_next = match after {
            Anything => true,
            Position(position) => position == self.log.len() as u64,
            Message(sequence) => self.last == Some(MessageId::new("run", sequence)),
        };
        if !is_next {
            return Err(Fault::OutOfOrder);
        }
        if id.sequence.is_multiple_of(7) {
            return Err(Fault::rejected("not this one"));
        }
        if self.log.len() >= self.room {
            return Err(Fault::Full("full".into()));
        }
        self.log.push(id.clone());
        self.known.push(id.clone());
        self.last = Some(id);
        Ok(Stored { position: Some(self.log.len() as u64), repeat: false })
    }

    fn bound(&self) -> Bound {
        bound(self.log.len() as u64, self.log.last().cloned())
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    Send(u8),
    /// The server takes so many of what is on its way.
    Serve(u8),
    /// So many answers arrive.
    Answer(u8),
    /// What is on its way is lost, both ways.
    Cut,
    /// As a cut, but nobody notices.
    Silence,
    Later,
    Forget,
    MoreRoom(u8),
    /// Somebody else writes there.
    Intrude,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5u8).prop_map(Step::Push),
        6 => (1..5u8).prop_map(Step::Send),
        6 => (1..5u8).prop_map(Step::Serve),
        6 => (1..5u8).prop_map(Step::Answer),
        1 => Just(Step::Cut),
        1 => Just(Step::Silence),
        2 => Just(Step::Later),
        1 => Just(Step::Forget),
        2 => (1..9u8).prop_map(Step::MoreRoom),
        1 => Just(Step::Intrude),
    ]
}

/// A window, a server, and what is between them.
struct World {
    window: Window<u64>,
    server: Server,
    now: Instant,
    pushed: u64,
    /// Whether others write there, too.
    others: bool,
    sent: Vec<(Ticket, MessageId, After)>,
    answers: Vec<Said>,
    done: Vec<u64>,
    rejected: Vec<u64>,
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Push(frames) => {
                for _ in 0..usize::from(frames).min(self.window.room()) {
                    self.pushed += 1;
                    self.window.push(self.pushed, self.pushed);
                }
            }
            Step::Send(frames) => {
                if self.window.must_bind(self.now) {
                    self.window.bound(&self.server.bound());
                }
                for _ in 0..frames {
                    let Some(next) = self.window.next(self.now) else { break };
                    assert_eq!(*next.frame, next.sequence);
                    let id = MessageId::new("run", next.sequence);
                    self.sent.push((next.ticket, id, next.after));
                }
            }
            Step::Serve(messages) => {
                let messages = usize::from(messages).min(self.sent.len());
                for (ticket, id, after) in self.sent.drain(..messages) {
                    self.answers.push(Said::Outcome(ticket, self.server.take(id, after)));
                }
            }
            Step::Answer(answers) => {
                let answers = usize::from(answers).min(self.answers.len());
                for said in self.answers.drain(..answers) {
                    if let Said::Outcome(ticket, result) = said {
                        self.window.outcome(ticket, result, self.now);
                    }
                }
            }
            Step::Cut => {
                self.sent.clear();
                self.answers.clear();
                self.window.interrupted(self.now);
            }
            Step::Silence => {
                self.sent.clear();
                self.answers.clear();
            }
            Step::Later => {
                self.now = self.window.wake_at().unwrap_or(self.now).max(self.now);
                self.window.tick(self.now);
            }
            Step::Forget => {
                // A repeat whose time is over is known by the last message only: by none if it isn't ours.
                if !self.others {
                    self.server.known.clear();
                }
                self.server.last = None;
            }
            Step::MoreRoom(room) => self.server.room += usize::from(room),
            Step::Intrude if !self.others => {}
            Step::Intrude => {
                self.server.log.push(MessageId::new("other", self.server.log.len() as u64));
                self.server.last = None;
                self.server.room += 1;
            }
        }
        let (done, rejected) = settle(&mut self.window);
        self.done.extend(done);
        self.rejected.extend(rejected);
        self.check();
    }

    fn check(&self) {
        let window = &self.window;
        assert_eq!(self.done.len() as u64, window.acknowledged);
        assert_eq!(self.rejected.len() as u64, window.rejected);
        assert_eq!(self.pushed, window.acknowledged + window.rejected + window.len() as u64);
        assert!(window.len() <= RULES.limit);
        assert!(window.effort.sent_again <= window.effort.sent);
        assert!(self.done.is_sorted_by(|a, b| a < b));
        let logged: Vec<_> = self.logged().collect();
        assert!(logged.is_sorted_by(|a, b| a < b), "in order, none twice: {logged:?}");
        assert!(self.done.iter().all(|frame| logged.contains(frame)), "what is done is stored");
    }

    fn logged(&self) -> impl Iterator<Item = u64> + '_ {
        self.server.log.iter().filter(|id| &*id.run == "run").map(|id| id.sequence)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_each_frame_is_stored_once_in_order(
        steps in prop::collection::vec(step(), 0..120),
        others in any::<bool>(),
    ) {
        let mut world = World {
            window: Window::new(RULES, "run".into(), &Bound { position: Some(0), last: None }),
            server: Server { room: 6, ..Server::default() },
            now: Instant::now(),
            pushed: 0,
            others,
            sent: Vec::new(),
            answers: Vec::new(),
            done: Vec::new(),
            rejected: Vec::new(),
        };
        for step in steps {
            world.step(step);
        }
        // With a server that works everything gets settled.
        world.server.room = usize::MAX;
        for _ in 0..200 {
            for step in [Step::Send(9), Step::Serve(99), Step::Answer(99), Step::Later] {
                world.step(step);
            }
        }
        prop_assert!(world.window.is_empty());
        prop_assert!(world.rejected.iter().all(|frame| frame.is_multiple_of(7)));
        prop_assert_eq!(world.logged().collect::<Vec<_>>(), world.done);
    }
}
