"""P11: what a call, a stream and a blocking call cost in Python on the same machine.

Prints JSON: {"python": version, "rows": [{"contestant", "workload", "ns"}]}. anyio and janus take
part where they are installed. `--quick` makes it a smoke test.
"""

import asyncio
import collections
import json
import platform
import statistics
import sys
import threading
import time

QUICK = "--quick" in sys.argv
ROUNDS = 2 if QUICK else 7
CALLS = 50 if QUICK else 1000
FRAMES = 500 if QUICK else 20_000
IN_FLIGHT = 64
CAPACITY = 1024

try:
    import anyio.from_thread
except ImportError:
    anyio = None
try:
    import janus
except ImportError:
    janus = None


class Loop:
    """An event loop on a thread of its own."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self.loop

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def value(n):
    return n


def timed(count, run):
    start = time.perf_counter_ns()
    total = run(count)
    took = time.perf_counter_ns() - start
    assert total == count * (count - 1) // 2, "wrong results"
    return took / count


def one_at_a_time(count):
    with Loop() as loop:
        submit = asyncio.run_coroutine_threadsafe
        return timed(count, lambda n: sum(submit(value(i), loop).result() for i in range(n)))


def in_flight(count):
    def run(n):
        pending, total = collections.deque(), 0
        for i in range(n):
            if len(pending) == IN_FLIGHT:
                total += pending.popleft().result()
            pending.append(asyncio.run_coroutine_threadsafe(value(i), loop))
        return total + sum(future.result() for future in pending)

    with Loop() as loop:
        return timed(count, run)


def anyio_portal(count):
    with anyio.from_thread.start_blocking_portal() as portal:
        return timed(count, lambda n: sum(portal.call(value, i) for i in range(n)))


def anyio_in_flight(count):
    def run(n):
        pending, total = collections.deque(), 0
        for i in range(n):
            if len(pending) == IN_FLIGHT:
                total += pending.popleft().result()
            pending.append(portal.start_task_soon(value, i))
        return total + sum(future.result() for future in pending)

    with anyio.from_thread.start_blocking_portal() as portal:
        return timed(count, run)


def janus_stream(count):
    async def main():
        queue = janus.Queue(CAPACITY)

        def produce():
            for i in range(count):
                queue.sync_q.put(i)

        producer = threading.Thread(target=produce)
        start = time.perf_counter_ns()
        producer.start()
        total = 0
        for _ in range(count):
            total += await queue.async_q.get()
        took = time.perf_counter_ns() - start
        producer.join()
        queue.close()
        await queue.wait_closed()
        assert total == count * (count - 1) // 2, "frames were lost"
        return took / count

    return asyncio.run(main())


def queue_stream(count):
    """What people write without janus: an asyncio.Queue, fed by call_soon_threadsafe."""

    async def main():
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()
        room = threading.Semaphore(CAPACITY)

        def produce():
            for i in range(count):
                room.acquire()
                loop.call_soon_threadsafe(queue.put_nowait, i)

        producer = threading.Thread(target=produce)
        start = time.perf_counter_ns()
        producer.start()
        total = 0
        for _ in range(count):
            total += await queue.get()
            room.release()
        took = time.perf_counter_ns() - start
        producer.join()
        assert total == count * (count - 1) // 2, "frames were lost"
        return took / count

    return asyncio.run(main())


def to_thread(count):
    async def main():
        start = time.perf_counter_ns()
        total = 0
        for i in range(count):
            total += await asyncio.to_thread(lambda: i)
        took = time.perf_counter_ns() - start
        assert total == count * (count - 1) // 2, "wrong results"
        return took / count

    return asyncio.run(main())


CONTESTANTS = [
    ("asyncio run_coroutine_threadsafe().result()", "call, one at a time", one_at_a_time, CALLS),
    ("asyncio run_coroutine_threadsafe().result()", "call, 64 in flight", in_flight, CALLS),
    ("asyncio.Queue + call_soon_threadsafe", "stream, capacity 1024", queue_stream, FRAMES),
    ("asyncio.to_thread", "blocking call, one at a time", to_thread, CALLS),
]
if anyio:
    CONTESTANTS += [
        ("anyio portal.call", "call, one at a time", anyio_portal, CALLS),
        ("anyio portal.start_task_soon", "call, 64 in flight", anyio_in_flight, CALLS),
    ]
if janus:
    CONTESTANTS.append(("janus.Queue", "stream, capacity 1024", janus_stream, FRAMES))


def main():
    taken = [[] for _ in CONTESTANTS]
    for _ in range(ROUNDS):
        for times, (_, _, run, count) in zip(taken, CONTESTANTS):
            times.append(run(count))
    rows = [
        {"contestant": name, "workload": workload, "ns": statistics.median(times)}
        for times, (name, workload, _, _) in zip(taken, CONTESTANTS)
    ]
    json.dump({"python": platform.python_version(), "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
