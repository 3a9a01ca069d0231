"""Runs a piece of work by Dask: a scheduler, and workers of one thread each, as processes. See work.py."""

import os
import sys

import distributed

import work

here = os.path.dirname(os.path.abspath(__file__))


def start(name, *args):
    """Starts a program of Dask, which finds the tasks' functions in work.py."""
    main = f"import sys; sys.path.insert(0, {here!r}); from distributed.cli.dask_{name} import main; main()"
    work.start([sys.executable, "-B", "-c", main, *args, "--host", "127.0.0.1", "--no-dashboard"], f"{name}.log")


def cluster(workers):
    """Starts a scheduler and workers, and gives a client."""
    where = work.folder / "scheduler.json"
    start("scheduler", "--port", "0", "--scheduler-file", str(where))
    while not where.exists() or not where.read_text().endswith("}"):
        work.alive()
    for i in range(workers):
        at = str(work.folder / f"worker-{i}")
        start("worker", "--no-nanny", "--nthreads", "1", "--local-directory", at, "--scheduler-file", str(where))
    client = distributed.Client(scheduler_file=str(where))
    client.wait_for_workers(workers)
    return client


def main():
    what, workers, job = work.asked()
    with work.ended(), cluster(workers) as client:
        client.gather(client.map(work.nothing, range(100), pure=False))  # connections are open, and modules imported
        if what == "tasks":
            with work.timed():
                got = client.gather(client.map(work.nothing, range(job["tasks"]), pure=False))
            work.check(got == list(range(job["tasks"])), "other results than tasks")
        elif what == "latency":
            with work.timed():
                for i in range(job["tasks"]):
                    work.check(client.submit(work.nothing, i, pure=False).result() == i, "another result")
        elif what == "sleep":
            with work.timed():
                got = client.gather(client.map(work.sleep, job["ms"], pure=False))
            work.check(got == job["ms"], "other results than tasks")
        elif what == "words":
            with work.timed():
                parts = client.map(work.words, work.groups(job), pure=False)
                work.save(job, client.submit(work.added, parts, pure=False).result())
        elif what == "idle":
            client.close()
            work.idle()


if __name__ == "__main__":
    main()
