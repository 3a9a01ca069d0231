"""Runs a piece of work by a queue in Redis: workers take a task at a time of one list, and put its result to another. See work.py."""

import json
import os
import sys

import redis

import work

program = os.path.abspath(__file__)

functions = {"nothing": work.nothing, "sleep": work.sleep, "words": work.words}


def connected():
    os.chdir(work.folder)  # a socket's path must not be long
    return redis.Redis(unix_socket_path="redis.sock")


def worker():
    queue = connected()
    while True:
        _, task = queue.blpop("tasks")
        number, function, argument = json.loads(task)
        queue.rpush("results", json.dumps([number, functions[function](argument)]))


def start(workers):
    """Starts a server that listens to a socket alone, and workers."""
    work.start(["redis-server", "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--daemonize", "no", "--dir", str(work.folder)], "log")
    while True:
        try:
            queue = connected()
            queue.ping()
            break
        except redis.exceptions.ConnectionError:
            work.alive()
    for _ in range(workers):
        work.start([sys.executable, "-B", program, "worker", str(work.folder)], "log")
    return queue


def run(queue, function, arguments):
    """Gives the results of a function, in the order of its arguments."""
    tasks = [json.dumps([i, function, argument]) for i, argument in enumerate(arguments)]
    for i in range(0, len(tasks), 1000):
        queue.rpush("tasks", *tasks[i:i + 1000])
    results = [None] * len(tasks)
    left = len(tasks)
    while left > 0:
        _, first = queue.blpop("results")
        for data in [first, *(queue.lpop("results", 1000) or [])]:
            number, results[number] = json.loads(data)
            left -= 1
    return results


def main():
    if sys.argv[1] == "worker":
        worker()
    what, workers, job = work.asked()
    with work.ended():
        queue = start(workers)
        run(queue, "nothing", range(100 * workers))
        if what == "tasks":
            with work.timed():
                got = run(queue, "nothing", range(job["tasks"]))
            work.check(got == list(range(job["tasks"])), "other results than tasks")
        elif what == "latency":
            with work.timed():
                for i in range(job["tasks"]):
                    work.check(run(queue, "nothing", [i]) == [i], "another result")
        elif what == "sleep":
            with work.timed():
                got = run(queue, "sleep", job["ms"])
            work.check(got == job["ms"], "other results than tasks")
        elif what == "words":
            with work.timed():
                work.save(job, work.added(run(queue, "words", work.groups(job))))
        elif what == "idle":
            work.idle()


if __name__ == "__main__":
    main()
