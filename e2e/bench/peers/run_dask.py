"""Runs a piece of work by Dask: a scheduler, and workers of one thread each, as processes. See work.py."""

import pathlib
import subprocess
import sys

import distributed

import work


def tool(name, *args):
    """Starts a program of Dask."""
    main = f"from distributed.cli.dask_{name} import main; main()"
    log = open(work.folder / f"{name}.log", "ab")
    return subprocess.Popen([sys.executable, "-B", "-c", main, *args, "--no-dashboard"], stdout=log, stderr=log, cwd=pathlib.Path(__file__).parent)


def cluster(workers):
    """Starts a scheduler and workers, and gives their processes and a client."""
    where = work.folder / "scheduler.json"
    started = [tool("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(where))]
    while not where.exists() or not where.read_text().endswith("}"):
        work.alive(started)
    for i in range(workers):
        at = str(work.folder / f"worker-{i}")
        started.append(tool("worker", "--host", "127.0.0.1", "--no-nanny", "--nthreads", "1", "--local-directory", at, "--scheduler-file", str(where)))
    client = distributed.Client(scheduler_file=str(where))
    client.wait_for_workers(workers)
    return started, client


def main():
    what, workers, job = work.asked()
    started, client = cluster(workers)
    with work.ended(started), client:
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
            work.idle(started)


if __name__ == "__main__":
    main()
