"""The version of the code, from Git."""

import os
import subprocess
import sys

CODE = ("src", "dvc.yaml", "requirements.txt")


def code_version() -> dict | str:
    """{`id`: the last commit that changed CODE, `modified`: whether CODE differs from it}, or `unknown: ` and why.

    Not the commit that is checked out: one of results or of words would give the same code another name. Where Git
    refuses, such as in the repository of another user, that is printed on standard error too.
    """
    try:
        commit = _git("log", "-1", "--format=%H", "--", *CODE)
        modified = bool(_git("status", "--porcelain", "--", *CODE))
    except OSError as error:
        return f"unknown: git cannot be run: {error.strerror}"
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[0].removeprefix("fatal: ")
        if reason.startswith("not a git repository"):
            return "unknown: not a Git repository"
        print(f"commit unknown: git refused: {reason}", file=sys.stderr)
        return f"unknown: git refused: {reason}"
    return {"id": commit, "modified": modified} if commit else "unknown: the code is not committed"


def _git(*arguments):
    environment = {**os.environ, "LC_ALL": "C"}  # the reason is matched
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()
