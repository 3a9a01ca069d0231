"""What the drivers of peers have in common: the work, and how they are asked for it and answer.

A driver is started with a job, which is JSON, and an empty folder:

    python3 run_dask.py '{"do":"tasks","workers":2,"tasks":1000}' /tmp/somewhere

It starts what the peer needs in the folder, has it do the job once, ends all of it, and prints what came of it, a word and a value
in a line: `seconds 1.5` from submission to the last result, or `pid 123` of each process that stays up. When its standard input ends, it does.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ".").absolute()


def asked():
    """The kind of work, how many workers are to do it, and the whole job."""
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, leave)
    job = json.loads(sys.argv[1])
    if job["do"] != "idle":
        threading.Thread(target=orphaned, daemon=True).start()
    return job["do"], job["workers"], job


def orphaned():
    """Ends the driver when its standard input does: who has asked is gone, however that came."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def timed():
    began = time.monotonic()
    yield
    print("seconds", time.monotonic() - began, flush=True)


started = []  # processes
starting, left = False, False


def start(command, log):
    """Starts a process that is to stay up, and that ends with the driver."""
    global starting
    starting = True  # nothing comes between its start and its entry in the list
    with open(folder / log, "ab") as file:
        started.append(subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file))
    starting = False
    if left:
        leave()


def leave(*_):
    """Ends the driver, and thereby what it has started."""
    global left
    left = True
    if not starting:
        sys.exit("interrupted")


@contextlib.contextmanager
def ended():
    """Kills what was started when all is done: there is nothing to be saved, and Dask's workers do not always end by themselves."""
    try:
        yield
    finally:
        for p in reversed(started):
            p.kill()
            p.wait()


def alive():
    """Waits a moment for what was started to be ready, and fails if some of it has ended."""
    if any(p.poll() is not None for p in started):
        logs = "".join(log.read_text(errors="replace")[-1000:] for log in folder.glob("*log"))
        sys.exit(f"what should stay up has ended: {logs}")
    time.sleep(0.01)


def idle():
    """Names what was started, and waits until nobody asks for it any more."""
    for p in started:
        print("pid", p.pid)
    print("ready 1", flush=True)
    sys.stdin.read()


def check(right, complaint):
    if not right:
        sys.exit(complaint)


# The tasks.

def nothing(i):
    return i


def sleep(ms):
    time.sleep(ms / 1000)
    return ms


word = re.compile(r"[^\W_]+")


def words(files):
    """Counts the words of files."""
    counts = collections.Counter()
    for name in files:
        with open(name, encoding="utf-8", errors="replace") as file:
            counts.update(word.findall(file.read().lower()))
    return counts


def added(parts):
    total = collections.Counter()
    for part in parts:
        total.update(part)
    return total


def names(job):
    return sorted(map(str, pathlib.Path(job["files"]).glob("*.txt")))


def groups(job):
    """The files of each task."""
    files, most = names(job), job["group"]
    return [files[i:i + most] for i in range(0, len(files), most)]


def save(job, counts):
    with open(job["out"], "w", encoding="utf-8") as file:
        file.writelines(f"{word}\t{n}\n" for word, n in counts.items())
