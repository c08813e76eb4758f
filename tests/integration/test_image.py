"""
etc/Containerfile without a builder of images: its steps, one after the other, in a directory that stands for the
image's root. What only a builder has isn't shown here: the base image, and the user that the second stage makes.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from .test_install import CONFIGURATION_ERROR, ROOT, copy

CONTAINERFILE = ROOT / "etc" / "Containerfile"
#: Directories of the image that are below the test's own.
PLACES = re.compile(r"/(?:opt/socketwarp|source|var/lib/socketwarp)\b")


def instructions() -> list[tuple[str, str]]:
    """The instructions with what follows them, each in one line."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if line and line.lstrip()[0] != "#"]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines()]


class ImageTests(SynchronousTestCase):
    """What the image would hold, and run."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self.root)}
        self.environment |= {name: each for name, each in os.environ.items() if name.startswith("PIP_")}
        self.state = self.root / "var/lib/socketwarp"
        self.last: dict[str, Any] = {}  # Any: a list of words, or a text

    def within(self, text: str) -> str:
        """A text whose places are the test's."""
        return PLACES.sub(lambda place: f"{self.root}{place[0]}", text)

    def build(self) -> None:
        """Follow the instructions."""
        steps = {"COPY": self.copy, "RUN": self.run_, "ENV": self.setVariables}
        for name, rest in instructions():
            steps.get(name, lambda _: None)(rest)
            self.last[name] = json.loads(rest) if rest.startswith("[") else rest
        self.state.mkdir(parents=True, exist_ok=True)

    def copy(self, rest: str) -> None:
        *sources, target = rest.split()
        if sources[0] == "--from=build":
            self.assertEqual(sources[1], target)  # the programs in it name their interpreter by its path
            return
        place = Path(self.within(target))
        for source in sources:
            copy(ROOT / source, place / Path(source).name if target.endswith("/") else place)

    def run_(self, rest: str) -> None:
        if rest.startswith("useradd "):
            return  # the host's users are none of ours
        command = ["sh", "-e", "-c", self.within(rest)]
        done = subprocess.run(command, env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=300)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def setVariables(self, rest: str) -> None:
        for word in shlex.split(rest):
            name, _, text = self.within(word).partition("=")
            self.environment[name] = text.replace("$PATH", self.environment["PATH"])

    def start(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What the image runs, in the directory in which it does."""
        command = [*self.last["ENTRYPOINT"], *(arguments or self.last["CMD"])]
        directory = self.within(self.last["WORKDIR"])
        return subprocess.run(command, env=self.environment, cwd=directory, capture_output=True, text=True, timeout=60)

    def test_itsStepsMakeBothEnds(self) -> None:
        self.build()
        plugins = self.root / "opt/socketwarp/lib"
        self.assertEqual(1, len(list(plugins.rglob("twisted/plugins/dropin.cache"))))
        listener = self.start()
        self.assertEqual(CONFIGURATION_ERROR, listener.returncode, listener.stderr)
        self.assertIn("SWL_KEY_PATH", listener.stderr)
        connector = self.start("swconnector")
        self.assertEqual(CONFIGURATION_ERROR, connector.returncode, connector.stderr)
        self.assertIn("SWC_CERT_PATH", connector.stderr)
        checked = self.start("swlistener", "--check")
        self.assertEqual((0, ""), (checked.returncode, checked.stderr))
        self.assertIn(f"SWL_STATE_DIR={self.state}  (environment)", checked.stdout)

    def test_theUserIsWhoeverMayWriteTheVolume(self) -> None:
        """By number, which a host's rules about root ask for; its home is the volume."""
        found = dict(instructions())
        made = shlex.split(next(rest for name, rest in instructions() if rest.startswith("useradd ")))
        self.assertEqual(found["USER"], made[made.index("--uid") + 1])
        self.assertEqual(found["VOLUME"], made[made.index("--home-dir") + 1])
        self.assertEqual(found["VOLUME"], found["WORKDIR"])

    def test_theContextHasWhatIsCopiedAndNothingElse(self) -> None:
        """Keys that lie about in a clone don't go to a builder."""
        everything, *lines = (ROOT / ".dockerignore").read_text().splitlines()
        copied = {
            name
            for step, rest in instructions()
            if step == "COPY" and "--from" not in rest
            for name in rest.split()[:-1]
        }
        self.assertEqual(
            ("*", {f"!{name}" for name in copied}), (everything, {line for line in lines if line[0] == "!"})
        )
