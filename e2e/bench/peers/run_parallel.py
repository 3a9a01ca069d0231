"""Runs a piece of work by GNU parallel, whose tasks are processes and whose workers are how many of them run together. See work.py."""

import os
import shutil
import subprocess

import work

count = """BEGIN { RS = "[^[:alnum:]]+" } $0 != "" { counts[tolower($0)]++ } END { for (word in counts) print word "\t" counts[word] }"""
add = """BEGIN { FS = "\t" } { counts[$1] += $2 } END { for (word in counts) print word "\t" counts[word] }"""


def parallel(workers, command, lines, each=1):
    """Runs a command for each so many lines, and notes in its log what came of it."""
    log = work.folder / "log"
    log.unlink(missing_ok=True)
    run = ["parallel", "--no-notice", f"-j{workers}", f"-N{each}", "--joblog", str(log), *command]
    subprocess.run(run, input="".join(f"{line}\n" for line in lines), text=True, check=True)
    ended = log.read_text().splitlines()[1:]
    work.check(len(ended) == -(-len(lines) // each) and all(line.split("\t")[6] == "0" for line in ended), "other tasks have ended than were there")


def main():
    what, workers, job = work.asked()
    os.environ.update(LC_ALL="C.UTF-8", TMPDIR=str(work.folder), HOME=str(work.folder), PARALLEL_SHELL=shutil.which("sh"))
    parallel(workers, ["true"], range(workers))  # it measures its limits the first time
    if what == "tasks":
        with work.timed():
            parallel(workers, ["true"], range(job["tasks"]))
    elif what == "latency":
        with work.timed():
            for i in range(job["tasks"]):
                parallel(workers, ["true"], [i])
    elif what == "sleep":
        with work.timed():
            parallel(workers, ["sleep"], [ms / 1000 for ms in job["ms"]])
    elif what == "words":
        parts = work.folder / "parts"
        parts.mkdir()
        with work.timed():
            command = ["gawk", f"'{count}'", "{}", ">", f"{parts}/{{#}}"]
            parallel(workers, command, work.names(job), job["group"])
            with open(job["out"], "wb") as out:
                subprocess.run(["gawk", add, *map(str, parts.iterdir())], stdout=out, check=True)


if __name__ == "__main__":
    main()
